#!/usr/bin/python3 -IS
"""Memory that has to be swapped out.

swapped.py MIB ROUNDS

Writes to every page of so much memory which page it is, and in which round, and looks in each
round whether all of them hold what was written in the one before.
"""

import mmap
import struct
import sys

STAMP = struct.Struct('<QQ')


def main():
    mib, rounds = map(int, sys.argv[1:])
    memory = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for turn in range(rounds + 1):
        for page in range(len(memory) // mmap.PAGESIZE):
            at = page * mmap.PAGESIZE
            for place in (at, at + mmap.PAGESIZE - STAMP.size):
                if turn and STAMP.unpack_from(memory, place) != (page, turn - 1):
                    sys.exit(f'page {page} holds {STAMP.unpack_from(memory, place)}, '
                             f'not what round {turn - 1} has written')
                STAMP.pack_into(memory, place, page, turn)


if __name__ == '__main__':
    main()
