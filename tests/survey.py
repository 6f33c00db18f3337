#!/usr/bin/python3
"""What can be read of a device some of whose main has gone bad.

survey.py NAME DISK SPARE STATE [restore]

DISK is the good disk beneath main, and STATE the file in which failing.py keeps what of it
fails.  Reads the mapped device where ranges are bad, and around them.  Each sector must hold
what DISK or SPARE have for it, or be an error if, and only if, it lives on main and is bad for
reading.  With restore, each error is written with what was there.  Prints how many errors there
are.
"""

import errno
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import direct  # noqa: E402
import failing  # noqa: E402
import places  # noqa: E402

STRETCH = 64
READ_ERRORS = (errno.EIO, errno.ENODATA)


def read(device, first, count):
    """The content of each sector; None for those that cannot be read."""
    try:
        data = device.read(first, count)
    except OSError as error:
        if error.errno not in READ_ERRORS:
            raise
        if count == 1:
            return [None]
        return [sector for at in range(count) for sector in read(device, first + at, 1)]
    return [data[at:at + direct.SECTOR] for at in range(0, len(data), direct.SECTOR)]


def stretches(ranges, size):
    """Where to look: the stretches that have something bad."""
    touched = set()
    for first, count, _ in ranges:
        touched.update(range(first // STRETCH, (first + count - 1) // STRETCH + 1))
    for stretch in sorted(touched):
        yield stretch * STRETCH, min(STRETCH, size - stretch * STRETCH)


def survey(name, disk, spare, ranges):
    """The sectors that are errors, with what was there."""
    bad = {at for first, count, kind in ranges if kind != 'writes'
           for at in range(first, first + count)}
    device = direct.Device(f'/dev/mapper/{name}')
    found = {}
    for first, count in stretches(ranges, failing.sectors_of(disk)):
        found.update(enumerate(read(device, first, count), first))
    # What had to move for that has moved.
    beneath, errors = places.Places(name, disk, [spare]), {}
    for sector, data in found.items():
        truth = beneath.read(sector, 1)
        is_bad = sector in bad and not beneath.is_live(sector)
        if data is None and not is_bad:
            sys.exit(f'sector {sector} is an error, but nothing is wrong with it')
        if data is not None and is_bad:
            sys.exit(f'sector {sector} cannot have been read, but it is no error')
        if data not in (None, truth):
            sys.exit(f'sector {sector} holds something else than what was written there')
        if data is None:
            errors[sector] = truth
    return errors


def main():
    name, disk, spare, state, *restore = sys.argv[1:]
    with open(state, encoding='ascii') as file:
        ranges = [failing.read_range(line) for line in file]
    errors = survey(name, disk, spare, ranges)
    print(len(errors))
    if restore:
        device = direct.Device(f'/dev/mapper/{name}')
        for sector, data in errors.items():
            device.write(sector, data)


if __name__ == '__main__':
    main()
