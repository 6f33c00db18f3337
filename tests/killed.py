#!/usr/bin/python3
"""Work that ends when the machine loses its power, and what must be there after it.

killed.py [--seed N] [--stop] MAIN JOURNAL SPARE...

Looks at what an earlier run has left on the disks: each sector must hold a number between the
last one that was flushed and the last one that was sent, and each block must be where the last
message that was answered has put it; first with a spare missing, then with all of them.  Then it
writes, with FUA and without, flushes, and moves blocks until the machine is gone.  What it
does goes to the disk JOURNAL, which loses nothing, before it is begun and when it has ended.

With --stop it only looks.
"""

import argparse
import errno
import multiprocessing
import os
import random
import struct
import subprocess
import sys

import direct
import dm
import places
from churn import Wrong, number_in, stamp
from crash_work import Forced

SECTOR = direct.SECTOR
BLOCK = 8
WRITERS = 3
# The sectors of main that are written belong to the writers in turn, so many in a row, and a
# sector of the journal has room for the numbers of one.
SPAN, SPANS = 3, 21
NUMBERS = struct.Struct(f'<{SPAN * SPANS}Q8x')
WRITTEN = WRITERS * SPAN * SPANS
MOVED = SECTOR
ON_MAIN, ON_SPARE, UNKNOWN = range(3)


class Journal:
    """The numbers of each writer that were sent and flushed, and where blocks are."""

    def __init__(self, path):
        self.device = direct.Device(path)

    def numbers(self, writer, flushed):
        return list(NUMBERS.unpack(self.device.read(2 * writer + flushed, 1)))

    def put_numbers(self, writer, flushed, numbers):
        self.device.write(2 * writer + flushed, NUMBERS.pack(*numbers))

    def places(self):
        return bytearray(self.device.read(2 * WRITERS, 1))

    def put_places(self, table):
        self.device.write(2 * WRITERS, bytes(table))


def sector_of(writer, at):
    """The sector that has a number of a writer."""
    return (at // SPAN * WRITERS + writer) * SPAN + at % SPAN


# --- The work ---

class Writer:
    """Writes sectors of its own."""

    def __init__(self, options, number):
        self.number = number
        self.random = random.Random(f'{options.seed} {number}')
        self.journal = Journal(options.journal)
        self.plain = direct.Device('/dev/mapper/remap')
        self.forced = Forced(self.plain)
        self.sent = self.journal.numbers(number, False)
        self.flushed = self.journal.numbers(number, True)

    def step(self):
        parts = []
        for _ in range(self.random.randint(1, 4)):
            span = self.random.randrange(SPANS) * SPAN
            first = span + self.random.randrange(SPAN)
            parts.append(range(first, self.random.randint(first, span + SPAN - 1) + 1))
        acknowledged = self.flushed[:]
        for part in parts:
            for at in part:
                self.sent[at] += 1
            self.journal.put_numbers(self.number, False, self.sent)
            self.write(part, acknowledged)
        if self.random.random() < 0.5:
            self.plain.flush()
            self.flushed = acknowledged
            self.journal.put_numbers(self.number, True, self.flushed)

    def write(self, part, acknowledged):
        device = self.forced if self.random.random() < 0.3 else self.plain
        data = b''.join(stamp(sector_of(self.number, at), self.sent[at]) for at in part)
        device.write(sector_of(self.number, part.start), data)
        for at in part:
            acknowledged[at] = self.sent[at]
        if device is self.forced:
            self.flushed[part.start:part.stop] = self.sent[part.start:part.stop]
            self.journal.put_numbers(self.number, True, self.flushed)


class Mover:
    """Relocates blocks, mostly those that are written, and brings them back."""

    def __init__(self, options, number):
        self.random = random.Random(f'{options.seed} {number}')
        self.journal = Journal(options.journal)
        self.mapped = dm.Mapped('remap')
        self.places = self.journal.places()

    def step(self):
        blocks = self.random.choice([WRITTEN // BLOCK, WRITTEN // BLOCK, MOVED])
        first = self.random.randrange(blocks)
        count = min(self.random.randint(1, self.random.randint(1, 32)), MOVED - first)
        place, verb = self.random.choice([(ON_MAIN, 'remove'), (ON_SPARE, 'add')])
        for block in range(first, first + count):
            if self.places[block] != place:
                self.places[block] = UNKNOWN
        self.journal.put_places(self.places)
        self.mapped.message(f'{verb} {first * BLOCK} {count * BLOCK}')
        self.places[first:first + count] = bytes([place]) * count
        self.journal.put_places(self.places)
        if self.random.random() < 0.1:
            self.mapped.message(f'set scan_rate {self.random.randint(1, 1000)}')


def run(kind, options, number):
    worker = kind(options, number)
    while True:
        worker.step()


def work(options):
    kinds = [Writer] * WRITERS + [Mover]
    workers = [multiprocessing.Process(target=run, args=(kind, options, number))
               for number, kind in enumerate(kinds)]
    for worker in workers:
        worker.start()
    print('works', flush=True)
    for worker in workers:
        worker.join()
    raise Wrong('a part of the work has ended')


# --- The look ---

def look(options):
    """Looks at what is there, and has it as the least that must be there from now on."""
    paths = [options.main, *options.spares]
    journal, mapped = Journal(options.journal), dm.Mapped('remap')
    made = any(number for writer in range(WRITERS) for number in journal.numbers(writer, True))
    line = f'0 {MOVED * BLOCK} remap {options.main} {{}} {{}}'.format
    if made:
        verify(options)
        missing = random.Random(options.seed).randrange(len(options.spares))
        names = ['-' if at == missing else spare for at, spare in enumerate(options.spares)]
        mapped.load(line(len(names), ' '.join(names)))
        mapped.resume()
        compare(journal, mapped, missing)
    mapped.load(line(len(options.spares), ' '.join(options.spares)))
    mapped.resume()
    behind = compare(journal, mapped)
    wrong = places.Places('remap', *paths[:1], paths[1:]).complaint()
    if wrong:
        raise Wrong(wrong)
    blocks = [int(words[0]) // BLOCK for words in mapped.list()]
    journal.put_places(bytes(ON_SPARE if block in blocks else ON_MAIN for block in range(MOVED)))
    return f'{len(blocks)} blocks are relocated, {behind} sectors have lost what was not flushed'


def verify(options):
    check = subprocess.run(['dmremap', 'check', *options.spares], stdout=subprocess.PIPE, text=True, check=False)
    if check.returncode not in (0, 1):
        raise Wrong(f'dmremap check ends with status {check.returncode}: {check.stdout}')


def compare(journal, mapped, missing=None):
    """Compares the sectors and the blocks with the journal; returns how many sectors are not what was
    sent last."""
    device = direct.Device('/dev/mapper/remap')
    where = {int(words[0]) // BLOCK: int(words[2]) for words in mapped.list()}
    for block, place in enumerate(journal.places()):
        if place != UNKNOWN and (place == ON_SPARE) != (block in where):
            raise Wrong(f'block {block} is {"not " * (block not in where)}relocated')
    behind = 0
    for writer in range(WRITERS):
        sent, flushed = (journal.numbers(writer, which) for which in (False, True))
        for at in range(SPAN * SPANS):
            sector = sector_of(writer, at)
            try:
                number = number_in(device.read(sector, 1), sector)
            except OSError as error:
                if missing is None or error.errno != errno.EIO or where.get(sector // BLOCK) != missing:
                    raise Wrong(f'sector {sector}: {error.strerror}') from error
                continue
            if not flushed[at] <= number <= sent[at]:
                raise Wrong(f'sector {sector} holds number {number}, not one from {flushed[at]} to {sent[at]}')
            behind += number != sent[at]
            flushed[at] = number
        if missing is None:
            journal.put_numbers(writer, True, flushed)
    os.close(device.file)
    return behind


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument('main')
    parser.add_argument('journal')
    parser.add_argument('spares', nargs='+')
    parser.add_argument('--seed', default='0')
    parser.add_argument('--stop', action='store_true')
    options = parser.parse_args()
    try:
        print('right:', look(options), flush=True)
        if not options.stop:
            work(options)
    except Wrong as wrong:
        sys.exit(f'wrong: {wrong}')


if __name__ == '__main__':
    main()
