#!/usr/bin/python3 -IS
"""Tries one request, and says how it ended: "ok", or the name of the error.

attempt.py read|write|nowait|readahead|flush|discard DEVICE SECTOR

It is about the 8 sectors from SECTOR on.  nowait is a read that must not wait; readahead is
one that nobody waits for, so it is always ok.
"""

import errno
import fcntl
import mmap
import os
import struct
import sys

BYTES = 8 * 512
BLKDISCARD = 0x1277


def attempt(verb, path, at):
    flags = os.O_RDWR | (0 if verb == 'readahead' else os.O_DIRECT)
    file = os.open(path, flags)
    buffer = mmap.mmap(-1, BYTES)
    if verb == 'read':
        os.preadv(file, [buffer], at)
    elif verb == 'write':
        os.pwritev(file, [buffer], at)
    elif verb == 'nowait':
        os.preadv(file, [buffer], at, os.RWF_NOWAIT)
    elif verb == 'readahead':
        os.posix_fadvise(file, at, BYTES, os.POSIX_FADV_WILLNEED)
    elif verb == 'flush':
        os.fsync(file)
    elif verb == 'discard':
        fcntl.ioctl(file, BLKDISCARD, struct.pack('QQ', at, BYTES))
    else:
        sys.exit(__doc__)


def main():
    verb, path, sector = sys.argv[1:]
    try:
        attempt(verb, path, int(sector) * 512)
        print('ok')
    except OSError as error:
        # That one has two names.
        print('EOPNOTSUPP' if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno])


if __name__ == '__main__':
    main()
