"""Work on a set of disks, and what it was promised by those that carried it out.

Each thing that is done is noted, and marked in the record of the disks when it begins
and when it has ended.  The model takes the marks in order, and knows at each point of time
what a crash must leave.
"""

import concurrent.futures
import copy
import ctypes
import errno
import fcntl
import os
import random
import struct
import threading

import direct
import dm
from churn import Wrong, number_in, stamp

SECTOR = direct.SECTOR
MAIN, UNKNOWN = -1, None
UNREADABLE = -1
DEFAULT_SCAN_RATE = 32768
POPULATED = 24
# How a request says that it has failed: for an I/O error, and for an error of the medium.
FAILED = errno.EIO, errno.ENODATA

BLKDISCARD, BLKZEROOUT = 0x1277, 0x127f
IO_SETUP, IO_GETEVENTS, IO_SUBMIT = 206, 208, 209
IOCB = struct.Struct('=QIIHhIQQqQII')
IO_EVENT = struct.Struct('=QQqq')
PWRITE, RWF_DSYNC = 1, 2

# Where null_blk is told which sectors fail; main is at the beginning of this disk.
BADBLOCKS = '/sys/kernel/config/nullb/base/badblocks'

libc = ctypes.CDLL(None, use_errno=True)


class Forced:
    """Writes with FUA that no flush follows.  A synchronous write would be followed by one."""

    def __init__(self, device):
        self.device = device
        self.context = ctypes.c_ulong(0)
        self.call(IO_SETUP, 1, ctypes.byref(self.context))

    @staticmethod
    def call(number, *arguments):
        result = libc.syscall(number, *arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def write(self, first, data):
        part = self.device.view[:len(data)]
        part[:] = data
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.device.view))
        iocb = ctypes.create_string_buffer(IOCB.pack(
            0, 0, RWF_DSYNC, PWRITE, 0, self.device.file, address, len(data), first * SECTOR, 0, 0, 0))
        self.call(IO_SUBMIT, self.context, 1, (ctypes.c_void_p * 1)(ctypes.addressof(iocb)))
        event = ctypes.create_string_buffer(IO_EVENT.size)
        self.call(IO_GETEVENTS, self.context, 1, 1, event, None)
        result = IO_EVENT.unpack(event)[2]
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        self.device.complete(result, part)


def relocated_in(mapped, first, count, block):
    """The relocated blocks that a range of sectors touches: block and spare."""
    touched = range(first // block, (first + count - 1) // block + 1)
    found = {int(words[0]) // block: int(words[2]) for words in mapped.list()}
    return {at: found[at] for at in touched if at in found}


class Work:
    """Things done in a row, each of which is noted, and marked when it begins and ends.
    Messages may run beside the others."""

    def __init__(self, options, recorder, begun, spares, seed):
        self.options = options
        self.random = random.Random(seed)
        self.recorder = recorder
        self.mapped = dm.Mapped('remap')
        self.sectors = options.main
        self.block = options.block
        self.bad = options.bad
        # Sectors that fail for a while only, until the work is done.
        self.worn = range(0)
        self.versions = begun
        self.spares = spares
        self.mover = concurrent.futures.ThreadPoolExecutor(1)
        self.moving = None
        self.lock = threading.Lock()
        self.notes = []

    def do(self, note, action):
        """Does and notes something; what fails must need the bad sectors, or more room."""
        with self.lock:
            number = len(self.notes)
            self.notes.append(note)
        note['done'] = True
        self.recorder.mark(f'begins {number}')
        try:
            action()
        except OSError as error:
            first = note.get('first', 0)
            touched = set(range(first, first + note.get('count', 0)))
            if not (error.errno in FAILED and touched & set(self.bad)
                    or error.errno == errno.ENOSPC and note['did'] == 'add'):
                raise
            note['done'] = False
        self.recorder.mark(f'ends {number}')

    # --- The device ---

    def line(self):
        """The table line, with features for a new set."""
        paths = [f'/dev/mapper/{name}' for name in self.recorder.names[:1 + self.spares]]
        features = f'3 manual block_size {self.block}' if self.options.manual else f'2 block_size {self.block}'
        return f'0 {self.sectors} remap {paths[0]} {self.spares} {" ".join(paths[1:])} {features}'

    def create(self):
        """Makes the device, and looks at what it has, as from then on that cannot become less."""
        note = {'did': 'create', 'spares': self.spares}
        self.do(note, lambda: self.load_and_look(note))
        self.plain = direct.Device('/dev/mapper/remap')
        self.forced = Forced(self.plain)

    def load_and_look(self, note):
        self.mapped.load(self.line())
        self.mapped.resume()
        device = direct.Device('/dev/mapper/remap')
        note['numbers'] = [number_at(device, sector) for sector in range(self.sectors)]
        os.close(device.file)
        note['found'] = relocated_in(self.mapped, 0, self.sectors, self.block)
        note['rate'] = scan_rate(self.mapped)

    def close(self):
        self.join()
        os.close(self.plain.file)

    # --- The work ---

    def populate(self):
        """Takes up more entries than the first sector of a page has room for: a page of which only that
        sector changes cannot be torn."""
        count = POPULATED * self.block
        for turn in range(self.spares):
            self.move('add', (self.sectors - (turn + 1) * count, count))
            self.join()

    def step(self):
        actions = {self.write_some: 8, self.write_forced: 4, self.zero_some: 1, self.discard_some: 1,
                   self.flush: 3, self.add: 5, self.remove: 4, self.set_rate: 0.5, self.reload: 0.5}
        self.random.choices(list(actions), list(actions.values()))[0]()

    def area(self, largest):
        """Some sectors in a row, often the ones beside the bad ones."""
        count = self.random.randint(1, self.random.randint(1, largest))
        around = self.random.choice([self.bad or range(64), range(64), range(self.sectors)])
        first = self.random.choice(around) - self.random.randrange(count)
        return min(max(first, 0), self.sectors - count), count

    def write_some(self):
        self.write(self.area(12 if self.random.random() < 0.8 else 40), 'write')

    def write_forced(self):
        self.write(self.area(12), 'forced')

    def zero_some(self):
        self.write(self.area(12), 'zero')

    def discard_some(self):
        self.write(self.area(24), 'discard')

    def write(self, area, kind):
        first, count = area
        written = range(first, first + count)
        for sector in written:
            self.versions[sector] += 1
        note = {'did': kind, 'first': first, 'count': count,
                'versions': self.versions[first:first + count]}
        if self.options.manual or not set(written) & {*self.bad, *self.worn}:
            self.do(note, lambda: self.send(note))
            return
        # Blocks move by themselves.
        self.join()
        note['moves'] = True
        self.do(note, lambda: self.send_and_look(note))

    def send_and_look(self, note):
        try:
            self.send(note)
        finally:
            note['found'] = relocated_in(self.mapped, note['first'], note['count'], self.block)

    def send(self, note):
        first, kind = note['first'], note['did']
        data = b''.join(stamp(sector, version) for sector, version in
                        enumerate(note['versions'], first))
        if kind == 'write':
            self.plain.write(first, data)
        elif kind == 'forced':
            self.forced.write(first, data)
        else:
            number = BLKZEROOUT if kind == 'zero' else BLKDISCARD
            part = struct.pack('=QQ', first * SECTOR, note['count'] * SECTOR)
            fcntl.ioctl(self.plain.file, number, part)

    def flush(self):
        self.do({'did': 'flush'}, self.plain.flush)

    def add(self):
        self.move('add', self.area(5 * self.block))

    def remove(self):
        self.move('remove', self.area(8 * self.block))

    def move(self, verb, area):
        self.join()
        first, count = area
        note = {'did': verb, 'first': first, 'count': count}
        self.moving = self.mover.submit(self.do, note, lambda: self.send_move(note))
        if self.random.random() < 0.5:
            self.join()

    def send_move(self, note):
        first, count = note['first'], note['count']
        try:
            self.mapped.message(f'{note["did"]} {first} {count}')
        finally:
            note['found'] = relocated_in(self.mapped, first, count, self.block)

    def join(self):
        if self.moving:
            self.moving.result()
            self.moving = None

    def set_rate(self):
        self.join()
        rate = self.random.randint(1, 100000)
        self.do({'did': 'set', 'rate': rate}, lambda: self.mapped.message(f'set scan_rate {rate}'))

    def reload(self):
        self.load('reload', self.spares)

    def grow(self):
        """Adds a spare to the set."""
        self.load('grow', self.spares + 1)

    def load(self, did, spares):
        self.join()
        words = self.mapped.table().split()
        last = 5 + self.spares
        more = [f'/dev/mapper/{name}' for name in self.recorder.names[1 + self.spares:1 + spares]]
        line = ' '.join([*words[:4], str(spares), *words[5:last], *more, *words[last:]])
        self.spares = spares
        self.do({'did': did, 'spares': spares}, lambda: self.load_and_resume(line))

    def load_and_resume(self, line):
        self.mapped.load(line)
        self.mapped.resume()

    # --- What must be there in any case ---

    def end(self):
        """Has something there of all that is looked at."""
        near = 2 * self.block
        self.flush()
        # Nothing but the removal makes this stable on main.
        self.move('add', (0, near))
        self.join()
        self.write((0, near), 'write')
        self.flush()
        self.move('remove', (0, near))
        self.join()
        self.write((0, near), 'forced')
        if self.bad:
            # A block with sectors that cannot be read, which come to life.
            self.move('add', (self.bad.start, len(self.bad)))
            self.join()
            self.write((self.bad.start, 1), 'write')
            self.write((self.bad.stop - 2, 2), 'forced')
            self.flush()
        self.write((near, near), 'write')
        self.flush()
        self.move('add', (near, self.block))
        self.join()
        self.flush()
        if not self.options.manual:
            self.wear()

    def wear(self):
        """Has a block of main fail, and writes it together with a part of the next one, which does not."""
        first = self.on_main(2)
        self.worn = range(first, first + self.block)
        set_bad('+', self.worn)
        try:
            self.write((first, self.block + max(1, self.block // 2)), 'forced')
        finally:
            set_bad('-', self.worn)
        if not relocated_in(self.mapped, first, 1, self.block):
            raise Wrong(f'sector {first} has failed, but is not relocated')

    def on_main(self, count):
        """The first sector of so many blocks in a row that are on main, and can be read there."""
        found = relocated_in(self.mapped, 0, self.sectors, self.block)
        away = {*found, *(sector // self.block for sector in self.bad)}
        return next(first for first in range(0, self.sectors, self.block)
                    if not away & set(range(first // self.block, first // self.block + count)))


def set_bad(sign, sectors):
    """Has sectors of main fail from now on, or no longer."""
    with open(BADBLOCKS, 'w', encoding='ascii') as bad:
        bad.write(f'{sign}{sectors.start}-{sectors.stop - 1}')


def number_at(device, sector):
    """The number in a sector, or that it cannot be read."""
    try:
        return number_in(device.read(sector, 1), sector)
    except OSError as error:
        if error.errno not in FAILED:
            raise
        return UNREADABLE


def scan_rate(mapped):
    """What the table says of an option that is kept in the metadata."""
    words = mapped.table().split()
    if 'scan_rate' not in words:
        return DEFAULT_SCAN_RATE
    return int(words[words.index('scan_rate') + 1])


class Model:
    """What must be found after a crash, from the marks in the record."""

    def __init__(self, options):
        self.block = options.block
        self.bad = options.bad
        self.manual = options.manual
        # The least number that a sector must have, the highest that it may have, and the highest
        # with which it was zeroed.
        self.least = [0] * options.main
        self.begun = [0] * options.main
        self.zeroed = [0] * options.main
        self.written = [0] * options.main
        self.places = [MAIN] * (options.main // options.block)
        self.rates = {DEFAULT_SCAN_RATE}
        # How many spares the table line may have: several while one is being added.
        self.spares = {options.spares}
        # Whether the set is complete: a new one can be made anew until then.
        self.made = False
        self.snapshots = {}
        # It is counted how often this has changed.
        self.revision = 0

    def after_crash(self):
        """The promises that outlive a crash, with nothing under way."""
        model = copy.deepcopy(self)
        model.written = model.least[:]
        model.snapshots = {}
        return model

    def mark(self, text, notes):
        kind, number = text.split()
        note = notes[int(number)]
        self.revision += 1
        did = note['did']
        if did == 'flush':
            self.flush(number, kind)
        elif did in ('add', 'remove'):
            self.move(note, kind)
        elif did == 'set':
            self.rates = {note['rate']} if kind == 'ends' else self.rates | {note['rate']}
        elif did in ('reload', 'grow'):
            self.spares = {note['spares']} if kind == 'ends' else self.spares | {note['spares']}
        elif did == 'create':
            if kind == 'ends':
                self.created(note)
            elif not self.manual:
                # What cannot be read is looked at, so its blocks move.
                for block in {sector // self.block for sector in self.bad}:
                    self.places[block] = UNKNOWN
        elif did in ('write', 'forced', 'zero', 'discard'):
            self.write(note, kind)
            if 'moves' in note:
                self.move(note, kind)

    def created(self, note):
        """From now on what was found cannot become less."""
        self.made = True
        self.rates, self.spares = {note['rate']}, {note['spares']}
        self.places = [note['found'].get(block, MAIN) for block in range(len(self.places))]
        for sector, number in enumerate(note['numbers']):
            if number != UNREADABLE:
                self.must_hold(sector, number)
                self.least[sector] = self.written[sector] = number or self.zeroed[sector]

    def write(self, note, kind):
        part = slice(note['first'], note['first'] + note['count'])
        if kind == 'begins':
            self.begun[part] = note['versions']
            if note['did'] in ('zero', 'discard'):
                self.zeroed[part] = note['versions']
        elif note['done'] and note['did'] != 'discard':
            self.written[part] = note['versions']
            if note['did'] == 'forced':
                self.least[part] = note['versions']
            for sector, version in enumerate(note['versions'], part.start):
                # A sector that cannot be read comes to life durably.  It may have done so in an
                # earlier write, also in one that failed elsewhere.
                if sector in self.bad and version == 1:
                    self.least[sector] = version

    def flush(self, number, kind):
        """A flush is about what was written when it began."""
        if kind == 'begins':
            self.snapshots[number] = self.written[:]
        else:
            self.least = list(map(max, self.least, self.snapshots.pop(number)))

    def move(self, note, kind):
        did, last = note['did'], (note['first'] + note['count'] - 1) // self.block
        for block in range(note['first'] // self.block, last + 1):
            if kind == 'begins':
                if (self.places[block] == MAIN) == (did != 'remove'):
                    self.places[block] = UNKNOWN
                continue
            place = note['found'].get(block, MAIN)
            if note['done'] and did in ('add', 'remove') and (place == MAIN) == (did == 'add'):
                raise Wrong(f'{did} was answered, but block {block} is not moved')
            self.places[block] = place

    def must_hold(self, sector, number):
        """Fails unless a sector may hold this number."""
        newest = number or self.zeroed[sector]
        if not self.least[sector] <= newest <= self.begun[sector]:
            raise Wrong(f'sector {sector} holds number {number}, '
                        f'not one from {self.least[sector]} to {self.begun[sector]}')
