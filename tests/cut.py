#!/usr/bin/python3
"""Puts on a disk what would be there after a power cut.

cut.py LOG FIRST LAST DISK

LOG is the disk to which dm-log-writes has written what happened to another one.  DISK, which
has what was durable on that one when it was marked with FIRST, gets what became durable from
then on until it was marked with LAST.  What had not been flushed by then is lost.  When
FIRST is empty, that is the beginning.
"""

import sys

import direct
import replay


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    log, first, last, path = sys.argv[1:]
    disk = direct.Device(path)
    begun = not first
    for flags, sector, data in replay.record(log):
        if flags & replay.MARK:
            if data.decode() == last:
                return
            begun = begun or data.decode() == first
        elif begun:
            write(disk, sector, data)
    sys.exit(f'{log} has no mark {last}')


def write(disk, sector, data):
    for start, count in direct.pieces(0, len(data) // direct.SECTOR):
        part = data[start * direct.SECTOR:(start + count) * direct.SECTOR]
        disk.write(sector + start, part)


if __name__ == '__main__':
    main()
