#!/usr/bin/python3 -IS
"""Sectors that say what they are.

Reads commands from standard input, one a line, and answers each with one line, which is
"ok" or says what is wrong.

    write DEVICE FIRST COUNT TEXT [AS]   fills the sectors, each with TEXT and its number
    holds DEVICE FIRST COUNT TEXT [AS]   they hold exactly that, byte for byte
    zero DEVICE FIRST COUNT              they hold zeroes
    lost DEVICE FIRST COUNT              each of them, asked for by itself, cannot be read

AS is the number of the first sector when it is not FIRST, as on a spare.  Nothing of this
goes through the page cache.
"""

import errno
import fcntl
import os
import struct
import sys

# Python does not look where the script is by itself when it is told to ignore what the
# machine has, which makes it start faster.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import direct  # noqa: E402
from direct import SECTOR, pieces  # noqa: E402

BLKSSZGET = 0x1268

# How a read says that it failed: for an I/O error, and for an error of the medium.
READ_ERRORS = (errno.EIO, errno.ENODATA)


class Wrong(Exception):
    """What was found is not what was promised."""


def stamp(text, number):
    """The content of a sector."""
    line = b'%s %d\n' % (text.encode(), number)
    return (line * (SECTOR // len(line) + 1))[:SECTOR]


def stamps(text, first, count):
    """The content of several sectors in a row."""
    return b''.join(stamp(text, number) for number in range(first, first + count))


class Device(direct.Device):
    """A block device of which sectors may be unreadable."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.file)

    def read(self, first, count):
        """The sectors, read in one request; None when that fails."""
        try:
            return super().read(first, count)
        except OSError as error:
            if error.errno in READ_ERRORS:
                return None
            raise

    def logical_sectors(self):
        """The size of a logical block in sectors."""
        size = fcntl.ioctl(self.file, BLKSSZGET, struct.pack('i', 0))
        return struct.unpack('i', size)[0] // SECTOR


def show(sector):
    """The beginning of a sector, for a message."""
    return repr(sector.split(b'\n')[0][:40].decode('ascii', 'replace'))


def compare(path, first, found, expected):
    """Fails unless what was found in the sectors from first on is as expected."""
    if found == expected:
        return
    if found is None:
        raise Wrong(f'{path}: sector {first} or one behind it cannot be read')
    for at in range(0, len(expected), SECTOR):
        is_there, should_be = found[at:at + SECTOR], expected[at:at + SECTOR]
        if is_there != should_be:
            raise Wrong(f'{path}: sector {first + at // SECTOR} is {show(is_there)}, '
                        f'not {show(should_be)}')


def write(device, first, count, text, number=None):
    offset = first - int(number or first)
    for start, length in pieces(first, count):
        device.write(start, stamps(text, start - offset, length))


def holds(device, first, count, text, number=None):
    offset = first - int(number or first)
    for start, length in pieces(first, count):
        compare(device.path, start, device.read(start, length), stamps(text, start - offset, length))


def zero(device, first, count):
    for start, length in pieces(first, count):
        compare(device.path, start, device.read(start, length), bytes(length * SECTOR))


def lost(device, first, count):
    unit = device.logical_sectors()
    for start in range(first, first + count, unit):
        found = device.read(start, unit)
        if found is not None:
            raise Wrong(f'{device.path}: sector {start} is {show(found)}, not unreadable')


VERBS = {verb.__name__: verb for verb in (write, holds, zero, lost)}


def answer(verb, path, first, count, *rest):
    """Carries out a command."""
    with Device(path) as device:
        VERBS[verb](device, int(first), int(count), *rest)


def main():
    for line in sys.stdin:
        try:
            answer(*line.split())
            print('ok', flush=True)
        except Exception as error:
            print(f'{type(error).__name__}: {error}', flush=True)


if __name__ == '__main__':
    main()
