#!/usr/bin/python3
"""A disk that fails where and when it is told.

failing.py make NAME DISK            makes /dev/mapper/NAME, which is DISK as it is
failing.py set NAME DISK RANGE...    from now on these ranges of it fail, and no others
failing.py decay NAME DISK KIND SHARE SECONDS SEED STATE

A RANGE is KIND:FIRST:COUNT, in sectors, where KIND is reads, writes or all: plain I/O errors
for these.  Whoever uses the disk meanwhile only waits for a moment.

decay lets SHARE percent of the sectors go bad, in ranges of 1 to 24 sectors, at random moments
of that many seconds.  It goes on from the ranges in the file STATE, if there is one, and first
adds to it those that will be bad when it ends.
"""

import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import dm  # noqa: E402

LONGEST = 24
MOMENTS = 30


def sectors_of(disk):
    with open(disk, 'rb') as file:
        return file.seek(0, os.SEEK_END) // 512


def number_of(disk):
    """The disk as device mapper names it."""
    device = os.stat(disk).st_rdev
    return f'{os.major(device)}:{os.minor(device)}'


def table(disk, ranges):
    """The table of the disk with ranges that fail: (first, count, kind), of which none overlap."""
    size, name = sectors_of(disk), number_of(disk)
    lines, at = [], 0
    for first, count, kind in sorted(ranges):
        if first < at or first + count > size:
            sys.exit(f'{first} {count}: the range overlaps another one or the end of the disk')
        if first > at:
            lines.append(f'{at} {first - at} linear {name} {at}')
        if kind == 'all':
            lines.append(f'{first} {count} error')
        else:
            lines.append(f'{first} {count} flakey {name} {first} 0 1 1 error_{kind}')
        at = first + count
    if at < size:
        lines.append(f'{at} {size - at} linear {name} {at}')
    return '\n'.join(lines)


def put(mapped, disk, ranges):
    mapped.load(table(disk, ranges))
    mapped.suspend(noflush=True, lockfs=False)
    mapped.resume()


def read_range(text):
    kind, first, count = text.split(':')
    return int(first), int(count), kind


def show_range(range_):
    first, count, kind = range_
    return f'{kind}:{first}:{count}\n'


def choose(size, share, kind, taken, seed):
    """Ranges of that share of a disk, none of which touches another one."""
    chance = random.Random(seed)
    marks = bytearray(size + 1)
    for first, count, _ in taken:
        marks[first:first + count] = b'\1' * count
    left, ranges = size * share // 100, []
    while left > 0:
        count = min(left, chance.randint(1, LONGEST))
        first = chance.randrange(1, size - count)
        if not any(marks[first - 1:first + count + 1]):
            marks[first:first + count] = b'\1' * count
            ranges.append((first, count, kind))
            left -= count
    return ranges


def decay(name, disk, kind, share, seconds, seed, state):
    ranges = []
    if os.path.exists(state):
        with open(state, encoding='ascii') as file:
            ranges = [read_range(line) for line in file]
    new = choose(sectors_of(disk), int(share), kind, ranges, seed)
    with open(state, 'w', encoding='ascii') as file:
        file.writelines(map(show_range, ranges + new))
    mapped, chance = dm.Mapped(name), random.Random(seed)
    begun, seconds = time.monotonic(), float(seconds)
    # Several at a time: bad sectors come in clusters, and to change the table takes a while.
    moments = sorted(chance.uniform(0, seconds) for _ in range(min(MOMENTS, len(new))))
    for number, moment in enumerate(moments, 1):
        time.sleep(max(0, begun + moment - time.monotonic()))
        put(mapped, disk, ranges + new[:len(new) * number // len(moments)])


def main():
    verb, name, disk, *rest = sys.argv[1:]
    if verb == 'make':
        subprocess.run(['dmsetup', 'create', name], input=table(disk, []), text=True, check=True)
    elif verb == 'set':
        put(dm.Mapped(name), disk, [read_range(text) for text in rest])
    else:
        decay(name, disk, *rest)


if __name__ == '__main__':
    main()
