#!/usr/bin/python3
"""Crash safety, proved by replaying what was written.

replay.py work NAME LOG NOTES [--block SECTORS] [--bad FIRST-LAST] [--seed N] [--steps N]
replay.py check NOTES RECORD FLUSHES INITIAL REPLAY MAIN SPARE [--seed N] [--tries N]

work writes to /dev/mapper/NAME, flushes, relocates blocks and brings them back, and
reloads the table.  In the device /dev/mapper/LOG beneath, which is a dm-log-writes, it marks
when it began and ended what, and it notes in the file NOTES what that was.

check reads what dm-log-writes recorded on the disk RECORD.  The file FLUSHES has a line
for each flush, which says whether it was for "main" or for the "spare".  INITIAL is what was there
before it: a file with main, and behind it the spare.  For each flush, each write with FUA and
each write of metadata it makes states that the disks may have after a crash before that has
ended: what was written since the last flush is there, or not, or torn.  It puts each
state on the disks MAIN and SPARE, activates the set on them as /dev/mapper/REPLAY, and compares:

 - a sector holds what was last flushed there, or something that was written later;
 - a block is relocated or not as the last message that was answered left it;
 - no two blocks share a place.

At last it makes states that no crash may leave, and must find each of them wrong.

	--block SECTORS		the size of a block (8)
	--bad FIRST-LAST	the sectors of main that can be neither read nor written
	--steps N		how many things are done (30)
	--tries N		how many random states for each point of time (2)
"""

import argparse
import concurrent.futures
import errno
import json
import os
import random
import struct
import sys
import threading

import direct
import dm
from churn import ON_MAIN, ON_SPARE, UNKNOWN, Wrong, number_in, stamp

SECTOR = direct.SECTOR
CHUNK = 8

# What dm-log-writes writes, see drivers/md/dm-log-writes.c.
LOG_MAGIC = 0x6a736677736872
LOG_SUPER = struct.Struct('<3QI')
LOG_ENTRY = struct.Struct('<4Q')
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8

# Offsets in a superblock, see docs/metadata.md.
DATA_START, BLOCK_SIZE, SLOTS = 104, 120, 128


def bad_sectors(text):
    """A range written as FIRST-LAST."""
    first, last = text.split('-') if text else (0, -1)
    return range(int(first), int(last) + 1)


# --- The work ---

class Work:
    """Things done in a row, of which each is noted, and marked in the log when it begins
    and ends.  Messages may run beside the others."""

    def __init__(self, options):
        self.random = random.Random(options.seed)
        self.mapped = dm.Mapped(options.name)
        self.log = dm.Mapped(options.log)
        path = f'/dev/mapper/{options.name}'
        self.plain = direct.Device(path)
        self.fua = direct.Device(path, flags=os.O_DSYNC)
        self.sectors = int(self.mapped.status().split()[1])
        self.block = options.block
        self.bad = bad_sectors(options.bad)
        self.versions = [0] * self.sectors
        self.unflushed = set()
        self.mover = concurrent.futures.ThreadPoolExecutor(1)
        self.moving = None
        self.lock = threading.Lock()
        self.notes = []

    def mark(self, kind, number):
        self.log.message(f'mark {kind}{number}')

    def do(self, note, action):
        """Does and notes something; what fails must need the bad sectors."""
        with self.lock:
            number = len(self.notes)
            self.notes.append(note)
        self.mark('begins', number)
        note['done'] = True
        try:
            action()
        except OSError as error:
            first = note.get('first', 0)
            touched = set(range(first, first + note.get('count', 0)))
            if error.errno != errno.EIO or not touched & set(self.bad):
                raise
            note['done'] = False
        self.mark('ends', number)

    def step(self):
        actions = [self.write_some, self.flush, self.add, self.remove, self.reload]
        self.random.choices(actions, [11, 3, 5, 4, 0.5])[0]()

    def end(self):
        """Has something there of all that is looked at."""
        # What was written to the spare must be stable on main before its place is freed.
        self.move('add', (0, self.block))
        self.join()
        self.write(0, self.block)
        self.flush()
        self.move('remove', (0, self.block))
        self.join()
        self.move('add', (0, self.block))
        self.join()
        self.move('remove', (self.sectors - self.block, self.block))
        self.join()
        self.write(self.sectors - 1, 1)
        self.flush()

    def area(self, largest):
        """Some sectors in a row, often the ones beside the bad ones."""
        count = self.random.randint(1, self.random.randint(1, largest))
        around = self.random.choice([self.bad or range(64), range(64), range(self.sectors)])
        first = self.random.choice(around) - self.random.randrange(count)
        return min(max(first, 0), self.sectors - count), count

    def write_some(self):
        self.write(*self.area(12))

    def write(self, first, count):
        written = range(first, first + count)
        # What was written without FUA reaches the log with the next flush, so there it would
        # stand behind what was written later with FUA.
        durable = self.random.random() < 0.4 and not self.unflushed & set(written)
        for sector in written:
            self.versions[sector] += 1
        data = b''.join(stamp(sector, self.versions[sector]) for sector in written)
        note = {'did': 'write', 'first': first, 'count': count, 'durable': durable,
                'versions': self.versions[first:first + count]}
        device = self.fua if durable else self.plain
        self.do(note, lambda: device.write(first, data))
        if not durable:
            self.unflushed.update(written)

    def flush(self):
        self.do({'did': 'flush'}, self.plain.flush)
        self.unflushed.clear()

    def add(self):
        self.move('add', self.area(5 * self.block))

    def remove(self):
        self.move('remove', self.area(10 * self.block))

    def move(self, verb, area):
        first, count = area
        note = {'did': verb, 'first': first, 'count': count}
        self.join()
        self.moving = self.mover.submit(
            self.do, note, lambda: self.mapped.message(f'{verb} {first} {count}'))
        if self.random.random() < 0.5:
            self.join()

    def join(self):
        if self.moving:
            self.moving.result()
            self.moving = None

    def reload(self):
        self.join()
        self.do({'did': 'reload'}, self.load_and_resume)

    def load_and_resume(self):
        self.mapped.load(self.mapped.table())
        self.mapped.resume()


def work(options):
    doing = Work(options)
    for _ in range(options.steps):
        doing.step()
    doing.end()
    with open(options.notes, 'w', encoding='ascii') as file:
        json.dump({'sectors': doing.sectors, 'block': options.block, 'bad': options.bad,
                   'notes': doing.notes}, file)
    done = [note['did'] for note in doing.notes]
    print(', '.join(f'{done.count(did)} times {did}' for did in sorted(set(done))))


# --- What was promised ---

class Model:
    """What must be found after a crash, from the marks in the log."""

    def __init__(self, notes):
        self.notes = notes['notes']
        self.block = notes['block']
        self.bad = bad_sectors(notes['bad'])
        self.sectors = notes['sectors']
        self.written = [0] * self.sectors
        self.flushed = [0] * self.sectors
        self.places = [ON_MAIN] * (self.sectors // self.block)
        self.snapshots = {}

    def mark(self, text):
        kind = text.rstrip('0123456789')
        if kind not in ('begins', 'ends'):
            return
        number = int(text[len(kind):])
        note = self.notes[number]
        did = note['did']
        if did == 'write' and kind == 'ends' and note['done']:
            self.wrote(note)
        elif did == 'flush':
            self.flush(number, kind)
        elif did in ('add', 'remove'):
            self.move(note, kind, ON_SPARE if did == 'add' else ON_MAIN)

    def wrote(self, note):
        part = slice(note['first'], note['first'] + note['count'])
        self.written[part] = note['versions']
        if note['durable']:
            self.flushed[part] = note['versions']

    def flush(self, number, kind):
        """A flush is about what was written when it began."""
        if kind == 'begins':
            self.snapshots[number] = self.written[:]
        else:
            self.flushed = list(map(max, self.flushed, self.snapshots.pop(number)))

    def move(self, note, kind, place):
        last = (note['first'] + note['count'] - 1) // self.block
        for block in range(note['first'] // self.block, last + 1):
            if kind == 'ends' and note['done']:
                self.places[block] = place
            elif kind == 'begins' and self.places[block] != place:
                self.places[block] = UNKNOWN


# --- What was written ---

def record(path):
    """The entries of a log: flags, sector and data of each; of a mark, its text."""
    with open(path, 'rb') as file:
        magic, version, count, size = LOG_SUPER.unpack_from(file.read(SECTOR))
        if (magic, version, size) != (LOG_MAGIC, 1, SECTOR):
            raise Wrong(f'{path} is no log of version 1 with sectors of {SECTOR} bytes')
        for _ in range(count):
            head = file.read(SECTOR)
            sector, sectors, flags, length = LOG_ENTRY.unpack_from(head)
            if flags & DISCARD:
                raise Wrong('the log has a discard, but nothing was discarded')
            data = file.read(sectors * SECTOR)
            if flags & MARK:
                data = head[LOG_ENTRY.size:LOG_ENTRY.size + length]
            yield flags, sector, data


def as_sectors(first, data):
    """A write, as a dictionary of the sectors that it writes."""
    return {first + at: data[at * SECTOR:(at + 1) * SECTOR] for at in range(len(data) // SECTOR)}


class Media:
    """What is durable, and what has been written since the last flush."""

    def __init__(self, initial):
        self.durable = bytearray(initial)
        self.pending = []

    def wrote(self, write, durable):
        if not durable:
            self.pending.append(write)
            return
        put(self.durable, write)
        for earlier in self.pending:
            for sector in write:
                earlier.pop(sector, None)

    def flush(self, sectors):
        """Makes durable what was written to some sectors."""
        for write in self.pending:
            if min(write, default=-1) in sectors:
                put(self.durable, write)
                write.clear()
        self.pending = [write for write in self.pending if write]

    def with_writes(self, writes):
        """The state with some writes on top of what is durable."""
        image = bytearray(self.durable)
        for write in writes:
            put(image, write)
        return bytes(image)

    def states(self, writes, chance, tries):
        """States with all of the writes, none, only the last, and random parts of them."""
        yield self.with_writes(writes)
        if not writes:
            return
        yield self.durable
        yield self.with_writes(writes[-1:])
        for _ in range(tries):
            yield self.with_writes([part(write, chance) for write in writes])


def put(image, write):
    for sector, data in write.items():
        image[sector * SECTOR:(sector + 1) * SECTOR] = data


def part(write, chance):
    """All of a write, nothing of it, or some of its sectors."""
    kept = chance.choice([0, 0.5, 1])
    return {sector: data for sector, data in write.items() if chance.random() < kept}


# --- The replay ---

class Replay:
    """States of the media, put on disks and activated."""

    def __init__(self, options, notes, initial):
        self.mapped = dm.Mapped(options.replay)
        self.device = direct.Device(f'/dev/mapper/{options.replay}')
        self.disks = direct.Device(options.main), direct.Device(options.spare)
        self.sectors = notes['sectors']
        self.bad = bad_sectors(notes['bad'])
        self.good = [*direct.pieces(0, self.bad.start),
                     *direct.pieces(self.bad.stop, self.sectors - self.bad.stop)]
        self.idle = f'0 {self.sectors} linear {options.main} 0'
        # Nothing but what is looked at may change the disks.
        self.table = f'0 {self.sectors} remap {options.main} 1 {options.spare} 1 manual'
        self.on_disks = [None] * (len(initial) // SECTOR // CHUNK)
        self.known = {}
        self.count = 0

    def put(self, image):
        """Writes what differs from what is there."""
        for chunk, old in enumerate(self.on_disks):
            first = chunk * CHUNK
            data = bytes(image[first * SECTOR:(first + CHUNK) * SECTOR])
            if data == old:
                continue
            self.on_disks[chunk] = data
            if first >= self.sectors:
                self.disks[1].write(first - self.sectors, data)
                continue
            for sector, content in as_sectors(first, data).items():
                if sector not in self.bad:
                    self.disks[0].write(sector, content)

    def forget(self, metadata):
        """An activation repairs metadata, so it must be written anew."""
        for chunk in metadata:
            self.on_disks[chunk] = None

    def compare(self, image, model, metadata):
        """Fails unless the state is one that a crash may leave."""
        self.put(image)
        self.count += 1
        # A second activation finds what the first one has repaired.
        for _ in range(2 if self.count % 8 == 0 else 1):
            self.mapped.load(self.table)
            try:
                self.mapped.resume()
            except OSError as error:
                raise Wrong(f'the set is refused: {error.strerror}') from error
            self.forget(metadata)
            try:
                self.look(model)
            finally:
                self.mapped.load(self.idle)
                self.mapped.resume()

    def look(self, model):
        places = {int(words[0]): (words[2], words[3]) for words in self.mapped.list()}
        if len(set(places.values())) != len(places):
            raise Wrong('two blocks share a place')
        if len(places) != int(self.mapped.value('used')):
            raise Wrong('the status and the list count different blocks')
        for block, place in enumerate(model.places):
            sector = block * model.block
            if place != UNKNOWN and (place == ON_SPARE) != (sector in places):
                raise Wrong(f'the block at {sector} is {"not " * (sector not in places)}relocated')
        for first, count in self.good:
            self.compare_sectors(first, self.device.read(first, count), model)
        for sector in self.bad:
            self.compare_bad(sector, model)

    def compare_bad(self, sector, model):
        """A bad sector cannot be read before it is written."""
        try:
            data = self.device.read(sector, 1)
        except OSError as error:
            if error.errno != errno.EIO or model.flushed[sector]:
                raise Wrong(f'sector {sector}: {error.strerror}') from error
            return
        if data == stamp(sector, 0):
            raise Wrong(f'sector {sector} was never written, but can be read')
        self.compare_sectors(sector, data, model)

    def compare_sectors(self, first, data, model):
        for at in range(0, len(data) // SECTOR, CHUNK):
            chunk = data[at * SECTOR:(at + CHUNK) * SECTOR]
            flushed = model.flushed[first + at:first + at + CHUNK]
            for sector, (found, least) in enumerate(
                    zip(self.numbers(first + at, chunk), flushed), first + at):
                if found < least:
                    raise Wrong(f'sector {sector} holds number {found}, but {least} was flushed')

    def numbers(self, first, data):
        """The numbers in some sectors, which are mostly the same in many states."""
        if (first, data) not in self.known:
            self.known[first, data] = [number_in(data[at:at + SECTOR], first + at // SECTOR)
                                       for at in range(0, len(data), SECTOR)]
        return self.known[first, data]


class Crashes:
    """All the points of time at which there may be a crash."""

    def __init__(self, options):
        with open(options.notes, encoding='ascii') as file:
            notes = json.load(file)
        with open(options.initial, 'rb') as file:
            self.initial = file.read()
        self.entries = list(record(options.record))
        self.model = Model(notes)
        self.replay = Replay(options, notes, self.initial)
        self.sectors = notes['sectors']
        parts = {'main': range(self.sectors),
                 'spare': range(self.sectors, len(self.initial) // SECTOR)}
        with open(options.flushes, encoding='ascii') as file:
            self.flushes = [parts[line.strip()] for line in file]
        recorded = sum(bool(flags & FLUSH) for flags, _, _ in self.entries)
        if len(self.flushes) != recorded:
            raise Wrong(f'{recorded} flushes are recorded, but {len(self.flushes)} were traced')
        self.chance = random.Random(options.seed)
        self.tries = options.tries
        self.metadata, self.slots = self.layout()
        self.points = 0

    def layout(self):
        """The chunks that hold metadata, and the sectors of the slots."""
        for flags, sector, data in self.entries:
            if not flags & MARK and sector == self.sectors and data:
                start, = struct.unpack_from('<Q', data, DATA_START)
                block, = struct.unpack_from('<I', data, BLOCK_SIZE)
                slots, = struct.unpack_from('<I', data, SLOTS)
                break
        else:
            raise Wrong('the log has no superblock')
        held = range(self.sectors + start, self.sectors + start + slots * block)
        chunks = range(self.sectors // CHUNK, len(self.initial) // SECTOR // CHUNK)
        return [chunk for chunk in chunks if chunk * CHUNK not in held], held

    def is_metadata(self, sector):
        return sector >= self.sectors and sector not in self.slots

    def run(self):
        media = Media(self.initial)
        flushes = iter(self.flushes)
        for at, (flags, sector, data) in enumerate(self.entries):
            if flags & MARK:
                self.model.mark(data.decode())
                continue
            write = as_sectors(sector, data)
            if flags & (FLUSH | FUA) or self.is_metadata(sector):
                self.crash(at, media, media.pending + [write] * bool(write))
            if flags & FLUSH:
                media.flush(next(flushes))
            if write:
                media.wrote(write, flags & FUA)
        self.crash(len(self.entries), media, media.pending)
        return media.durable

    def crash(self, at, media, writes):
        """A crash before an entry of the log was finished."""
        self.points += 1
        seen = set()
        for number, image in enumerate(media.states(writes, self.chance, self.tries)):
            image = bytes(image)
            if image in seen:
                continue
            seen.add(image)
            try:
                self.replay.compare(image, self.model, self.metadata)
            except Wrong as wrong:
                raise Wrong(f'{wrong}, in state {number} with parts of {len(writes)} writes, '
                            f'before entry {at} of {len(self.entries)}') from wrong

    def must_be_wrong(self, what, image):
        """A state that no crash may leave."""
        try:
            self.replay.compare(image, self.model, self.metadata)
        except Wrong as wrong:
            print(f'{what}: {wrong}')
            return
        raise Wrong(f'{what}: this was not found wrong')

    def doctored(self, final):
        """States in which the order of writes was not kept."""
        slots = slice(self.slots.start * SECTOR, self.slots.stop * SECTOR)
        early = bytearray(final)
        early[slots] = self.initial[slots]
        self.must_be_wrong('metadata before the data that it points to', early)
        late = bytearray(final)
        for chunk in self.metadata:
            place = slice(chunk * CHUNK * SECTOR, (chunk + 1) * CHUNK * SECTOR)
            late[place] = self.initial[place]
        self.must_be_wrong('a message answered before its metadata', late)
        sector = next(at for at, place in enumerate(self.model.flushed)
                      if place and self.model.places[at // self.model.block] == ON_MAIN)
        lost = bytearray(final)
        put(lost, {sector: stamp(sector, self.model.flushed[sector] - 1)})
        self.must_be_wrong('a flush answered before what it flushes', lost)


def check(options):
    crashes = Crashes(options)
    final = crashes.run()
    count = crashes.replay.count
    crashes.doctored(final)
    print(f'{crashes.points} points of time, {count} states')


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    verbs = parser.add_subparsers(required=True)
    checked = ['notes', 'record', 'flushes', 'initial', 'replay', 'main', 'spare']
    for verb, words in {work: ['name', 'log', 'notes'], check: checked}.items():
        under = verbs.add_parser(verb.__name__)
        under.set_defaults(verb=verb)
        for word in words:
            under.add_argument(word)
        under.add_argument('--seed', type=int, default=0)
        if verb is work:
            under.add_argument('--block', type=int, default=8)
            under.add_argument('--bad', default='')
            under.add_argument('--steps', type=int, default=30)
        else:
            under.add_argument('--tries', type=int, default=2)
    options = parser.parse_args()
    try:
        options.verb(options)
    except Wrong as wrong:
        sys.exit(f'{wrong} (--seed {options.seed})')


if __name__ == '__main__':
    main()
