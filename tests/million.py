#!/usr/bin/python3
"""Very many relocated blocks, made by a message, and found again by the next activation.

million.py BLOCKS SEED LINE...

The device remap is made with the table LINE, on a main that is all zero, in blocks of a sector.
Says how much memory a relocation takes.
"""

import os
import pathlib
import random
import subprocess
import sys
import time

import direct
import dm
from churn import Wrong, number_in, stamp

SAMPLES = 4000
LISTED = 1 << 16
LINE_BYTES = 64


def memory_used():
    """Bytes of memory that the kernel uses for itself."""
    for _ in range(2):
        pathlib.Path('/proc/sys/vm/drop_caches').write_text('3', encoding='ascii')
    lines = pathlib.Path('/proc/meminfo').read_text(encoding='ascii').splitlines()
    kibibytes = {name: int(rest.split()[0]) for name, rest in (line.split(':') for line in lines)}
    return 1024 * sum(kibibytes[name] for name in ('Slab', 'VmallocUsed', 'Percpu', 'PageTables'))


class Device:
    """The device remap, with samples of its sectors."""

    def __init__(self, line, blocks, seed):
        self.line = line
        self.blocks = blocks
        self.mapped = dm.Mapped('remap')
        self.chance = random.Random(seed)
        self.numbers = dict.fromkeys(self.chance.sample(range(blocks), SAMPLES), 0)

    def create(self):
        """Activates the device; returns how much memory that has taken."""
        subprocess.run(['dmsetup', 'create', 'remap', '--notable'], check=True)
        self.mapped.load(self.line)
        before = memory_used()
        self.mapped.resume()
        subprocess.run(['dmsetup', 'mknodes'], check=True)
        self.device = direct.Device('/dev/mapper/remap')
        return memory_used() - before

    def remove(self):
        os.close(self.device.file)
        subprocess.run(['dmsetup', 'remove', 'remap'], check=True)

    def write(self, count):
        """Writes so many of the samples."""
        for sector in self.chance.sample(sorted(self.numbers), count):
            self.numbers[sector] += 1
            self.device.write(sector, stamp(sector, self.numbers[sector]))

    def compare(self):
        for sector, number in self.numbers.items():
            found = number_in(self.device.read(sector, 1), sector)
            if found != number:
                raise Wrong(f'sector {sector} holds number {found} instead of {number}')

    def list(self):
        """The whole list, as text."""
        parts = [self.mapped.message(f'list {first} {LISTED}', LISTED * LINE_BYTES)
                 for first in range(0, self.blocks, LISTED)]
        return ''.join(parts)


def check_list(text, blocks):
    """Each block is there once, and has a place for itself."""
    lines = text.splitlines()
    places = set()
    for sector, line in enumerate(lines):
        words = line.split()
        if int(words[0]) != sector or words[4] != '1':
            raise Wrong(f'the list has "{line}" instead of block {sector}')
        places.add((words[2], words[3]))
    if len(lines) != blocks or len(places) != blocks:
        raise Wrong(f'{len(lines)} blocks are listed, in {len(places)} places')


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    blocks, seed, line = int(sys.argv[1]), sys.argv[2], ' '.join(sys.argv[3:])
    device = Device(line, blocks, seed)
    empty = device.create()
    device.write(SAMPLES)
    begun = time.monotonic()
    device.mapped.message(f'add 0 {blocks}')
    print(f'{blocks} blocks were relocated in {time.monotonic() - begun:.0f} s', flush=True)
    device.compare()
    device.write(SAMPLES // 2)
    device.compare()
    before = device.list()
    check_list(before, blocks)
    device.remove()
    used = device.create() - empty
    if device.list() != before:
        raise Wrong('the list is another one after the activation')
    device.compare()
    device.write(SAMPLES // 2)
    device.compare()
    print(f'a relocation takes {used / blocks:.1f} bytes of memory')
    if used > 24 * blocks + (1 << 16):
        raise Wrong('that is more than 24 bytes')


if __name__ == '__main__':
    try:
        main()
    except Wrong as wrong:
        sys.exit(str(wrong))
