#!/usr/bin/python3
"""Requests that are counted, and what the statistics say of them.

counted.py NAME MAIN SPARE... [--requests N] [--jobs N] [--seed N]

Lets so many jobs read and write as many times each, 1 to 64 sectors at random places of
/dev/mapper/NAME, and counts by itself how many parts go to which disk, and how many sectors
each has.  The reply to the message stats must say exactly that, key by key, and so must
the status and the statistics that the disks keep themselves, which must not merge requests.
Blocks must not move meanwhile, and all of their sectors must live.
"""

import argparse
import collections
import multiprocessing
import os
import pathlib
import random
import sys

import direct
import dm
import places

LARGEST = 64
PERIOD, CLASSES = 64, 28
KINDS = ('read', 'write')
MAIN = -1

# The fields of a disk's statistics: requests and sectors, of reads and of writes.
FIELDS = {'read': (0, 2), 'write': (4, 6)}


class Tally:
    """What was counted: parts and sectors by kind and disk, and those that may have been timed."""

    def __init__(self):
        self.parts = collections.Counter()
        self.sectors = collections.Counter()
        # Those in one block are looked up the short way, others maybe.
        self.surely_timed = self.maybe_timed = 0

    def add(self, other):
        self.parts += other.parts
        self.sectors += other.sectors
        self.surely_timed += other.surely_timed
        self.maybe_timed += other.maybe_timed

    def of(self, kind, only_spares=False):
        return sum(number for (what, disk), number in self.parts.items()
                   if what == kind and not (only_spares and disk == MAIN))


def parts_of(where, first, count):
    """Where a request goes: for each part of it the disk, the first sector there and the one behind it."""
    parts = []
    for sector in range(first, first + count):
        spare, place, live = where.relocated.get(sector - sector % where.block, (MAIN, 0, 0))
        at = place + sector % where.block if live else sector
        if parts and parts[-1][0] == spare and parts[-1][2] == at:
            parts[-1][2] += 1
        else:
            parts.append([spare, at, at + 1])
    return parts


def job(options, number):
    """Sends requests, and counts them."""
    chance, tally = random.Random(f'{options.seed} {number}'), Tally()
    where = places.Places(options.name, options.main, options.spares)
    device = direct.Device(f'/dev/mapper/{options.name}', LARGEST)
    size = int(where.mapped.status().split()[1])
    around = sorted(where.relocated) or [0]
    for _ in range(options.requests):
        kind, count = chance.choice(KINDS), 1 << chance.randrange(7)
        count = chance.randint(1, count)
        # Half of them where something is relocated.
        first = chance.choice([chance.randrange(size), chance.choice(around) + chance.randint(-32, 8)])
        first = max(0, min(first, size - count))
        if kind == 'read':
            device.read(first, count)
        else:
            device.write(first, bytes(count * direct.SECTOR))
        parts = parts_of(where, first, count)
        for disk, start, end in parts:
            tally.parts[kind, disk] += 1
            tally.sectors[kind, disk] += end - start
        tally.maybe_timed += len(parts)
        tally.surely_timed += len(parts) == 1 and first % where.block + count <= where.block
    return tally


def values(text):
    return dict(word.split('=') for word in text.split() if '=' in word)


def disk_numbers(path):
    """What a disk says of itself: requests and sectors by kind."""
    numbers = pathlib.Path('/sys/block', os.path.basename(path), 'stat').read_text(encoding='ascii').split()
    return {kind: [int(numbers[field]) for field in fields] for kind, fields in FIELDS.items()}


class Snapshot:
    """What everybody says at a moment."""

    def __init__(self, options, mapped):
        self.status = values(mapped.status())
        self.stats = values(mapped.message('stats'))
        self.disks = {number: disk_numbers(path)
                      for number, path in enumerate([options.main, *options.spares], MAIN)}


def compare(before, after, tally, processors):
    """Says where the statistics are wrong."""
    wanted = dict.fromkeys(after.stats, 0)
    for kind in KINDS:
        wanted[f'{kind}s'] = tally.of(kind)
        wanted[f'spare_{kind}s'] = tally.of(kind, only_spares=True)
        wanted[f'{kind}_sectors'] = sum(number for (what, _), number in tally.sectors.items() if what == kind)
    histograms = {f'{place}_{kind}_us' for place in ('main', 'spare') for kind in KINDS}
    for key, text in after.stats.items():
        if key == 'latency_sample':
            yield key, PERIOD, int(text)
        elif key in histograms:
            histograms.remove(key)
            yield f'classes of {key}', CLASSES, len(text.split(','))
        else:
            yield key, wanted[key], int(text)
            if key in after.status:
                yield f'{key} of the status', wanted[key], int(after.status[key]) - int(before.status[key])
    yield 'missing histograms', set(), histograms
    for disk, numbers in after.disks.items():
        for kind, (requests, sectors) in numbers.items():
            earlier = before.disks[disk][kind]
            yield f'{kind} requests of disk {disk}', tally.parts[kind, disk], requests - earlier[0]
            yield f'{kind} sectors of disk {disk}', tally.sectors[kind, disk], sectors - earlier[1]
    timed = sum(int(number) for key, text in after.stats.items() if key.endswith('_us')
                for number in text.split(','))
    least, most = tally.surely_timed // PERIOD - processors, tally.maybe_timed // PERIOD + processors
    yield f'timed requests, {timed}, are from {least} to {most}', True, least <= timed <= most


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in 'name', 'main':
        parser.add_argument(name)
    parser.add_argument('spares', nargs='+')
    for name, value in {'requests': 2000, 'jobs': 1, 'seed': 0}.items():
        parser.add_argument(f'--{name}', type=int, default=value)
    options = parser.parse_args()
    mapped = dm.Mapped(options.name)
    mapped.message('stats reset')
    before, tally = Snapshot(options, mapped), Tally()
    with multiprocessing.Pool(options.jobs) as pool:
        for counted in pool.starmap(job, [(options, number) for number in range(options.jobs)]):
            tally.add(counted)
    after = Snapshot(options, mapped)
    wrong = [f'{what}: {found} instead of {wanted}'
             for what, wanted, found in compare(before, after, tally, os.cpu_count()) if found != wanted]
    parts = sum(tally.parts.values())
    print(f'{options.jobs * options.requests} requests, {parts} parts')
    if parts == options.jobs * options.requests:
        wrong.append('no request was split')
    if wrong:
        sys.exit('\n'.join(wrong))


if __name__ == '__main__':
    main()
