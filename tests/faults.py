#!/usr/bin/python3 -IS
"""Fails what dm-remap asks of the kernel: first the first thing, then the second one, up to the last.

    faults.py memory|requests [REGEX]    fails allocations, or requests to main and the spares

It does so for each part of the life of a device whose name matches, by fail-nth of the task that
does the work, and counts only what has the module in its call chain.  It needs the debug kernel,
the disks main, first and second, which must be of null_blk, and the mapped device remap.  What is
printed is what damage.py prints.
"""

import errno
import glob
import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from damage import BACK, BAD, FRONT, PAGE, SPARE_SECTORS, SUPERBLOCK, UUID, Media, Scene, Target, Wrong, table  # noqa: E402
from hostile import rescuers, tell  # noqa: E402
from messages import STATUS  # noqa: E402
from sectors import SECTOR, Device, stamps  # noqa: E402

DISKS = 'main', 'first', 'second'
FACILITIES = {'memory': ('failslab', 'fail_page_alloc'), 'requests': ('fail_make_request',)}
# What is looked at of the device: the sectors before the bad one, without its neighbours.
LOOKED_AT = 896
# How the log says why something failed.
EXPLANATION = 'dm_remap: .*( failed |refused)|device-mapper: table: .*: remap: '
PATIENCE = 60
MOST_TOLD = 3


def put(path, value):
    with open(path, 'w', encoding='ascii') as file:
        file.write(f'{value}\n')


def threads(*names):
    """The threads of the kernel whose names begin so."""
    found = []
    for process in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{process}/comm', encoding='ascii', errors='replace') as comm:
                if comm.read().startswith(names):
                    found.append(process)
        except OSError:
            pass
    return found


class Faults:
    """The kernel's way to fail things."""

    def __init__(self, kind):
        first, last = self.module('dm_remap')
        # What the driver of the disks needs memory for is its own affair, and a request that fails for it is one of the others.
        below, end = self.module('null_blk') if kind == 'memory' else (0, 0)
        for facilities in FACILITIES.values():
            for facility in facilities:
                # What is in the range of no code is never failed, nor counted.
                wanted = facility in FACILITIES[kind]
                for name, value in ('stacktrace-depth', 32), ('require-start', first if wanted else 1), \
                        ('require-end', last if wanted else 2), ('reject-start', below), ('reject-end', end), ('verbose', 0):
                    put(f'/sys/kernel/debug/{facility}/{name}', value)
        for facility, name, value in ('failslab', 'ignore-gfp-wait', 'N'), ('failslab', 'cache-filter', 'Y'), \
                ('fail_page_alloc', 'ignore-gfp-wait', 'N'), ('fail_page_alloc', 'ignore-gfp-highmem', 'N'), \
                ('fail_page_alloc', 'min-order', 1):
            put(f'/sys/kernel/debug/{facility}/{name}', value)
        # The checks of this kernel allocate for each allocation, too, and have caches of their own for that.
        for cache in glob.glob('/sys/kernel/slab/kmalloc-*/failslab'):
            put(cache, 1)
        for disk in DISKS:
            put(f'/sys/block/{disk}/make-it-fail', 1)
            # Disks of null_blk have more such faults, which are not wanted at all.
            for fault in glob.glob(f'/sys/kernel/config/nullb/{disk}/*_inject'):
                for name, value in ('stacktrace-depth', 32), ('require-start', 1), ('require-end', 2), ('verbose', 0):
                    put(f'{fault}/{name}', value)
        self.armed = []

    @staticmethod
    def module(name):
        """Where the code of a module is."""
        with open('/proc/kallsyms', encoding='ascii') as file:
            symbols = (line.split() for line in file)
            places = [int(symbol[0], 16) for symbol in symbols if symbol[3:] == [f'[{name}]'] and symbol[1] in 'tT']
        return min(places), (max(places) | PAGE - 1) + 1

    def arm(self, number, workers):
        """Has the thing fail with this number that this task, or one of those that work for us, asks for."""
        self.number = number
        tasks = threads('kworker/u', 'kworker/R-dm-re') if workers else [str(os.getpid())]
        self.armed = [f'/proc/{task}/task/{task}/fail-nth' for task in tasks]
        for path in self.armed:
            put(path, number)

    def disarm(self):
        """No more of that; returns how many things failed, and how many were asked for."""
        failed = asked = 0
        for path in self.armed:
            try:
                with open(path, encoding='ascii') as file:
                    left = int(file.read())
                put(path, 0)
            except OSError:
                # A worker has gone.
                continue
            failed += left == 0
            asked += self.number - left
        self.armed = []
        return failed, asked


class Stage:
    """The disks, and a device on them, before a part of its life."""

    def __init__(self, kind):
        self.kind = kind
        self.media = Media(list(DISKS))
        self.target = Target(self.media)
        self.log = self.target.log
        put('/sys/kernel/config/nullb/main/badblocks', f'+{BAD}-{BAD}')
        self.target.let_go()
        self.scenes = {}
        for spares in ['first'], ['first', 'second']:
            scene = self.scenes[len(spares)] = Scene(spares, self.target, self.media)
            scene.make(UUID)
        self.faults = Faults(kind)
        self.bad = []

    # --- What there is before ---

    def fresh(self, spares=1):
        """A device whose spares hold nothing yet."""
        self.scene = self.scenes[spares]
        self.media.restore(self.scene.good | {name: bytes(SPARE_SECTORS * SECTOR) for name in self.scene.spares})
        self.line = self.scene.line
        self.data = [{stamp} for stamp in cut(stamps('main', 0, LOOKED_AT))]

    def whole(self, spares=1, damage=()):
        """A set with relocated blocks, and maybe with some damage that an activation mends."""
        self.scene = self.scenes[spares]
        self.put(damage)
        self.data = [{stamp} for stamp in cut(stamps('spare', 0, 128) + stamps('main', 128, LOOKED_AT - 128))]

    def put(self, damage):
        self.scene.put(damage)
        self.line = self.scene.line

    def torn(self):
        """One copy of each kind of page is bad."""
        scene = self.scenes[2]
        zero = bytes(PAGE)
        self.whole(2, [('first', scene.superblock(FRONT), zero), ('second', scene.slots(1, FRONT), zero),
                       ('first', scene.slots(2, BACK), zero), ('second', scene.witness(1), zero)])

    def grown(self):
        """A spare is added to a set."""
        self.whole(1)
        self.media.restore(self.media.contents() | {'second': bytes(SPARE_SECTORS * SECTOR)})
        self.line = table('first', 'second')

    def unfinished(self):
        """A set whose making was interrupted before any page for its slots was written."""
        self.whole(1, self.scenes[1].both('first', [self.scenes[1].superblock(end) for end in (FRONT, BACK)],
                                          (SUPERBLOCK['slot_mark'], 0)))
        self.data = [{stamp} for stamp in cut(stamps('main', 0, LOOKED_AT))]

    def active(self, before, *arguments):
        """The device is used."""
        before(*arguments)
        self.scene.must_be_up(self.line)

    def make_bad(self, disk, first, last):
        put(f'/sys/kernel/config/nullb/{disk}/badblocks', f'+{first}-{last}')
        self.bad.append((disk, first, last))

    def make_good(self):
        for disk, first, last in self.bad:
            put(f'/sys/kernel/config/nullb/{disk}/badblocks', f'-{first}-{last}')
        self.bad = []

    # --- What is done ---

    def load(self):
        self.target.load(self.line)

    def load_and_resume(self):
        self.target.load(self.line)
        self.target.resume()

    def write(self, first, count, text):
        """Writes some sectors, which hold one or the other when that fails."""
        new = cut(stamps(text, first, count))
        with Device('/dev/mapper/remap', 256) as device:
            try:
                device.write(first, b''.join(new))
            except OSError:
                self.data[first:first + count] = [old | {stamp} for old, stamp in zip(self.data[first:first + count], new)]
                raise
        self.data[first:first + count] = [{stamp} for stamp in new]

    def read(self, first, count):
        with Device('/dev/mapper/remap', 256) as device:
            data = device.read(first, count)
        if data is None:
            raise OSError(errno.EIO, 'it cannot be read')
        self.compare(first, data)

    def read_around(self):
        """Reads over two sectors that cannot be read, and then what lies beside them."""
        try:
            self.read(506, 12)
        except OSError:
            pass
        self.read(506, 6)
        self.read(514, 6)

    def scan(self):
        """A pass over main, from its begin to its end."""
        self.target.message('scan start')
        end = time.monotonic() + PATIENCE
        # Without metadata it stays where it was.
        while self.target.value('scan') != 'idle' and self.target.value('mode') not in ('ro', 'fail'):
            if time.monotonic() > end:
                raise Wrong(f'the pass does not end: {self.target.status()}')
            time.sleep(0.01)

    def say(self, text):
        self.target.message(text, 1 << 16)

    def look(self):
        """Whether the device says everything that it can."""
        for verb in 'list', 'stats', 'health', 'lookup 8', 'scan status', 'help':
            self.target.message(verb, 1 << 16)
        if not STATUS.fullmatch(self.target.status()):
            raise Wrong(f'the status is {self.target.status()}')
        self.target.table()

    # --- What there is after ---

    def compare(self, first, data):
        for number, found in enumerate(cut(data), first):
            if number < LOOKED_AT and found not in self.data[number]:
                raise Wrong(f'sector {number} holds {found[:20]}')

    def check_data(self):
        with Device('/dev/mapper/remap', 256) as device:
            for first in range(0, LOOKED_AT, 128):
                data = device.read(first, 128)
                if data is None:
                    raise Wrong(f'sector {first} or one behind it cannot be read')
                self.compare(first, data)

    def check_without(self, spare):
        """When a spare is missing, what it has is an error, nothing else is found in its place, and nothing written there."""
        up, _ = self.target.activate(table(*('-' if other == spare else other for other in self.scene.spares)))
        if up:
            with Device('/dev/mapper/remap', 256) as device:
                for first in range(0, LOOKED_AT, 8):
                    data = device.read(first, 8)
                    if data is not None:
                        self.compare(first, data)
            for first in range(96, 128, 8):
                try:
                    self.write(first, 8, 'without')
                except OSError:
                    pass
        self.target.let_go()

    def settle(self, writes):
        """Whatever has happened: now that nothing fails, all is well again, and remains so."""
        self.make_good()
        if self.media.writes() == writes:
            # As nothing was written, nothing of what follows can go otherwise than ever.
            self.target.let_go()
            self.target.clear()
            return
        if ' remap ' in self.target.table():
            self.check_data()
        self.target.let_go()
        if not self.scene.is_blank() and self.line == self.scene.line:
            status = self.scene.dmremap('check', '--main', '4096')
            if status not in (0, 1):
                raise Wrong(f'dmremap check ends with {status}')
            for spare in self.scene.spares[:-1]:
                self.check_without(spare)
        self.scene.must_be_up(self.line)
        if self.target.value('mode') != 'rw':
            raise Wrong(f'after another activation the mode is {self.target.value("mode")}')
        self.check_data()
        for message in 'add 640 16', 'remove 640 16', 'sync':
            self.target.message(message)
        self.check_data()
        self.target.let_go()
        self.target.clear()

    def explained(self, lines):
        """The log says why something failed."""
        if not lines or any('Unknown error' in line for line in lines):
            raise Wrong(f'it failed, and the log says {lines}')


def cut(data):
    return [data[at:at + SECTOR] for at in range(0, len(data), SECTOR)]


# --- The parts of the life of a device ---

# Each has a name, what there is before, what is done, and whether workers do that.  What they do for others must succeed,
# as far as memory is concerned.
def parts(stage):
    fresh, whole, active = stage.fresh, stage.whole, stage.active

    def loaded(before, *arguments):
        before(*arguments)
        stage.load()

    def with_bad(disk, first, last, before, *arguments):
        active(before, *arguments)
        stage.make_bad(disk, first, last)

    def with_bad_slot():
        active(whole, 2)
        _, _, spare, place, *_ = stage.target.list()[2]
        stage.make_bad(stage.scene.spares[int(spare)], int(place), int(place) + 1)

    def with_dead():
        with_bad('main', 508, 515, fresh)
        stage.target.message('add 508 8')
        stage.make_good()

    def heal():
        stage.read(508, 1)
        # The rest is saved by itself, or not.
        time.sleep(0.3)

    def suspended():
        # What the model has learned is to be written.
        with_bad('main', 512, 512, fresh, 2)
        stage.write(512, 1, 'new')

    def beside_relocated():
        with_bad('main', 512, 527, fresh, 2)
        stage.target.message('add 520')
        stage.write(520, 8, 'newer')

    yield 'the constructor', lambda: whole(2), stage.load, False
    yield 'the activation of a new set', lambda: loaded(fresh), stage.target.resume, False
    yield 'the activation of a new set of two spares', lambda: loaded(fresh, 2), stage.target.resume, False
    yield 'the activation of a set', lambda: loaded(whole, 2), stage.target.resume, False
    yield 'the activation of a set that has to be mended', lambda: loaded(stage.torn), stage.target.resume, False
    yield 'the activation of an unfinished set', lambda: loaded(stage.unfinished), stage.target.resume, False
    yield 'the activation with an added spare', lambda: loaded(stage.grown), stage.target.resume, False
    yield 'a reload', lambda: active(whole, 2), stage.load_and_resume, False
    yield 'a suspend', suspended, stage.target.suspend, False
    yield 'the destructor', lambda: active(whole, 2), stage.target.let_go, False
    yield 'questions', lambda: active(whole, 2), stage.look, False
    yield 'the message add to a new set', lambda: active(fresh), lambda: stage.say('add 512 16'), False
    yield 'the message add to a set', lambda: active(whole, 2), lambda: stage.say('add 3500 16'), False
    yield 'the message remove', lambda: active(whole, 2), lambda: stage.say('remove 100 16'), False
    yield 'the message set', lambda: active(whole, 2), lambda: stage.say('set read_retries 5'), False
    yield 'the message scan', lambda: active(whole, 2), lambda: [stage.say(f'scan {verb}') for verb in ('start', 'stop')], False
    yield 'a write to a bad block', lambda: with_bad('main', 512, 513, fresh), lambda: stage.write(510, 12, 'new'), True
    yield 'a write to a bad block beside a relocated one', beside_relocated, lambda: stage.write(510, 20, 'new'), True
    yield 'a read of a bad block', lambda: with_bad('main', 512, 513, fresh), stage.read_around, True
    yield 'a write to a bad slot', with_bad_slot, lambda: stage.write(16, 8, 'new'), True
    yield 'a write to unreadable sectors', with_dead, lambda: stage.write(506, 12, 'new'), True
    yield 'a read of sectors that were unreadable', with_dead, heal, True
    yield 'a background pass', lambda: with_bad('main', 512, 513, whole, 2), stage.scan, True


def attempt(stage, number, before, do, workers):
    """Has the thing with this number fail; returns whether one did, and whether more are to come."""
    before()
    writes = stage.media.writes()
    stage.log.new('')
    stage.faults.arm(number, workers)
    error = None
    try:
        do()
    except OSError as failure:
        error = failure
    finally:
        failed, asked = stage.faults.disarm()
    stage.media.forget()
    lines = stage.log.new(EXPLANATION, least=1 if error and not workers else 0)
    if error and not failed:
        raise Wrong(f'nothing was failed, and it failed: {error}, the log says {lines}')
    if error and workers and stage.kind == 'memory':
        raise Wrong(f'what waits for memory failed: {error}, the log says {lines}')
    if error and not workers:
        stage.explained(lines)
    if not error and stage.kind == 'memory' and ' remap ' in stage.target.table() and stage.target.value('mode') != 'rw':
        raise Wrong(f'the mode is {stage.target.value("mode")}')
    if stage.target.is_suspended() or error and do == stage.target.resume:
        # It can be tried again.
        stage.target.resume()
    stage.settle(writes)
    return failed, asked


def try_part(stage, name, before, do, workers):
    """Has each thing fail that a part asks for, and says what came of it."""
    total, told, number, idle = 0, 0, 0, 0
    while told < MOST_TOLD:
        number += 1
        try:
            failed, asked = attempt(stage, number, before, do, workers)
        except (Wrong, OSError, LookupError) as error:
            tell(False, f'{stage.kind} {number} of {name}', ' '.join(f'{type(error).__name__}: {error}'.split())[:2000])
            told += 1
            stage.faults.disarm()
            stage.make_good()
            stage.target.let_go()
            continue
        total += failed
        if failed:
            idle = 0
            continue
        # A worker that was made just now is not one of those that were told.
        idle += 1
        if not workers or asked or idle == 3:
            break
        number -= 1
    tell(not told, f'{name}: {total} of {total} {stage.kind} failed, one after the other, and nothing was lost')
    return total


def main(kind, wanted=''):
    stage = Stage(kind)
    before, counts = rescuers(), {}
    for name, *part in parts(stage):
        if re.search(wanted, name):
            counts[name] = try_part(stage, name, *part)
    tell(rescuers() == before, 'nothing is left of the devices that were made', f'{rescuers() - before} threads are')
    print('total', kind, sum(counts.values()), sep='\t', flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
