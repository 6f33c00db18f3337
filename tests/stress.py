#!/usr/bin/python3
"""Everything at once, at random, against a model of what every sector may hold.

stress.py [--seconds S] [--seed N]

Plays episodes of some seconds each until the time is over (25 s).  An episode is made from a
seed: which disks there are, what is read and written, relocated and brought back, suspended
and reloaded, which sectors fail and when.  The seeds follow each other, so --seed with the one
of an episode that went wrong plays that one first: each of its actors does the same in the same
order again, and begins a step when as many requests have been sent as then; what meets what on the
way is up to the machine.

Each sector holds a number.  A write that was acknowledged is what is read from then on; one that
is under way, or has failed, may be read or not.  A request may fail only where the faults
that are injected explain it.  When something else is seen, all that is known of it is printed.
"""

import argparse
import contextlib
import errno
import faulthandler
import fcntl
import os
import random
import struct
import sys
import threading
import time
import traceback

sys.path.insert(0, '/tests')

import churn  # noqa: E402
import direct  # noqa: E402
import dm  # noqa: E402
import places  # noqa: E402
from aio import DEPTH, LONGEST, MOST, Queue  # noqa: E402
from stress_disks import MappedDisk, NullDisk, ScsiDisk, Wrong, run, within  # noqa: E402
from stress_model import (FOREVER, LAST_OPERATIONS, NEVER, WRITES, Model, clear_of,  # noqa: E402
                          number_after, result_of)

SECTOR = direct.SECTOR
NAME = 'stress'
MAIN_MIB, SPARE_MIB = 2, 4
REQUESTS, PHASES, WORKERS = 800, 3, 3
# A line of list for each sector.
LONGEST_REPLY = 64 * MAIN_MIB * 2048
# A request, or all of them together, may take this long on the slowest machine.
PATIENCE = 300
IOCTLS = {'zero': 0x127f, 'discard': 0x1277}


def own(chance):
    """The chance of a step, so that the next ones do not depend on how much of it this one needs."""
    return random.Random(chance.getrandbits(64))


class Worker:
    """Sends requests of all kinds, and compares what they find with the model."""

    def __init__(self, episode, number):
        self.episode, self.model = episode, episode.model
        self.name = f'worker {number}'

    def run(self, chance, phase):
        self.queue = Queue(f'/dev/mapper/{NAME}')
        hot = [chance.randrange(self.model.sectors) for _ in range(4)]
        while not phase.is_over():
            step = own(chance)
            turn = step.random()
            if turn < 0.1:
                self.change(step, hot)
                phase.did(1)
            elif turn < 0.12:
                phase.did(self.batch(step, hot, MOST))
            else:
                phase.did(self.batch(step, hot))
        self.queue.close()

    def place(self, chance, hot, longest=None):
        """A range: mostly a short one, near others."""
        unit = self.episode.unit
        longest = longest or chance.choice([1, 1, 8, 8, 24, LONGEST])
        count = chance.randint(1, max(1, longest // unit)) * unit
        first = chance.randrange(self.model.sectors)
        if chance.random() < 0.7:
            first = chance.choice(hot) + chance.randrange(128)
        elif (bad := self.episode.bad) and chance.random() < 0.5:
            first = chance.choice(bad)[0] + chance.randrange(-16, 24)
        first = max(0, min(first - first % unit, self.model.sectors - count))
        return first, count

    def change(self, chance, hot):
        """Writes zeroes, or discards."""
        what = chance.choice(sorted(IOCTLS))
        first, count = self.place(chance, hot)
        operation = self.model.begin(self.name, what, first, count)
        error = 0
        try:
            fcntl.ioctl(self.queue.file, IOCTLS[what], struct.pack('=2Q', first * SECTOR, count * SECTOR))
        except OSError as failure:
            error = failure.errno
        self.model.end_write(operation, error)

    def batch(self, chance, hot, longest=None):
        """Sends some requests at once, or a single one that has up to so many sectors."""
        model, operations, before = self.model, [], []
        kinds = ['read'] * 9 + ['read NOWAIT', 'write NOWAIT', 'flush'] + ['write'] * 9 + ['write FUA'] * 2
        for slot in range(1 if longest else chance.choice([1, 2, 4, 8, DEPTH])):
            what = chance.choice(kinds)
            first, count = self.place(chance, hot, longest) if what != 'flush' else (0, 0)
            operation = model.begin(self.name, what, first, count)
            if what in WRITES:
                self.queue.buffer(slot, count)[:] = b''.join(
                    churn.stamp(sector, operation.number) for sector in range(first, first + count))
            operations.append(operation)
            before.append(model.expected(first, count))
        errors = self.queue.send(operations)
        for slot, (operation, error) in enumerate(zip(operations, errors)):
            if operation.what in WRITES:
                model.end_write(operation, error)
            elif operation.what == 'flush':
                self.end_flush(operation, error)
            else:
                data = bytes(self.queue.buffer(slot, operation.count))
                model.end_read(operation, error, data, before[slot])
        return len(operations)

    def end_flush(self, flush, error):
        self.model.end(flush, result_of(error))
        if error and not self.model.holds_since(flush, 'flush', 'spares'):
            raise Wrong(f'{flush}, but nothing explains that')


# --- Those who do other things meanwhile ---

class Actor:
    """Does a step each time when some more requests have been sent."""

    def __init__(self, episode):
        self.episode, self.model = episode, episode.model
        self.name = type(self).__name__.lower()

    def run(self, chance, phase):
        next_step = 0
        while True:
            next_step += chance.randint(1, self.pause)
            if not phase.reaches(next_step):
                return
            step = own(chance)
            getattr(self, step.choice(self.steps))(step)

    def message(self, text, *allowed):
        """Sends a message, which may fail with these errors."""
        operation = self.model.begin(self.name, text)
        try:
            self.episode.mapped.message(text, LONGEST_REPLY)
            self.model.end(operation)
        except OSError as error:
            self.model.end(operation, result_of(error.errno))
            if error.errno not in (errno.EBUSY, *allowed) and not self.explains(operation, error.errno):
                raise Wrong(f'{operation}, but nothing explains that') from error
        return operation.result == 'done'

    def explains(self, operation, number):
        """Whether faults explain that a message failed."""
        if self.model.holds_since(operation, 'spares', 'gone'):
            return number in (errno.EIO, errno.EROFS, errno.ENOSPC)
        if number == errno.ENOSPC:
            return self.model.holds_since(operation, 'full')
        return (number == errno.EIO and operation.what.startswith('remove')
                and (self.model.holds_since(operation, 'main') or self.model.was_lost_since(
                    operation, range(self.model.sectors))))


class Mover(Actor):
    """Sends messages."""

    pause = 25
    steps = ['add', 'add', 'add', 'remove', 'remove', 'scan', 'options', 'look']

    def range(self, chance):
        block, sectors = self.model.block, self.model.sectors
        first = chance.randrange(sectors)
        count = chance.randint(1, chance.choice([1, 4, 16, 200]) * block)
        return range(first, min(first + count, sectors))

    def add(self, chance):
        sectors = self.range(chance)
        self.model.leaves(sectors)
        self.message(f'add {sectors.start} {len(sectors)}')

    def remove(self, chance):
        sectors = self.range(chance) if chance.random() < 0.8 else range(self.model.sectors)
        self.message(f'remove {sectors.start} {len(sectors)}')

    def scan(self, chance):
        verb = chance.choice(['start', 'start', 'pause', 'resume', 'stop', 'status'])
        self.message(f'scan {verb}', errno.EINVAL)

    def options(self, chance):
        name, values = chance.choice([('read_retries', [0, 1, 5]), ('scan_rate', [1000, 1000000]),
                                      ('scan_interval', [0, 1, 604800])])
        self.message(f'set {name} {chance.choice(values)}')

    def look(self, chance):
        self.message(chance.choice([f'lookup {chance.randrange(self.model.sectors)}', 'list', 'stats', 'stats reset',
                                    'health', 'sync', 'help']))


class Cycler(Actor):
    """Suspends, resumes and reloads."""

    pause = 80
    steps = ['suspend', 'suspend', 'reload', 'reload', 'clear', 'refused', 'manual', 'spare']

    def suspend(self, chance):
        with self.episode.cycling:
            self.episode.cycle(self.name, None, chance)

    def reload(self, chance):
        with self.episode.cycling:
            if self.episode.missing is None and self.episode.activatable():
                self.episode.features = chance.choice(
                    ['', f'block_size {self.model.block}', 'read_retries 2 scan_rate 100000', 'scan_interval 0'])
                self.episode.cycle(self.name, self.episode.line(), chance)

    def clear(self, _chance):
        with self.episode.cycling:
            operation = self.model.begin(self.name, 'load and clear')
            self.episode.mapped.load(self.episode.line())
            self.episode.mapped.clear()
            self.model.end(operation)

    def refused(self, chance):
        """Loads a table that is refused at the latest when it is resumed."""
        with self.episode.cycling:
            if not self.episode.activatable():
                return
            other = self.model.block * 2 if self.model.block < 64 else 32
            operation = self.model.begin(self.name, f'reload with block_size {other}')
            self.episode.mapped.load(self.episode.line(f'block_size {other}'))
            self.episode.mapped.suspend(noflush=chance.random() < 0.5)
            try:
                self.episode.mapped.resume()
                raise Wrong(f'{operation} was accepted')
            except OSError:
                pass
            self.episode.mapped.load(self.episode.line())
            self.episode.mapped.resume()
            self.model.end(operation, 'refused')

    def manual(self, chance):
        """Does without automatic relocation, and ends that again."""
        with self.episode.cycling:
            if self.model.reasons['manual'] == FOREVER:
                if self.message('set auto 1', *([errno.EROFS, errno.EIO] if not self.episode.sound() else [])):
                    self.model.stop('manual')
                return
            self.model.start('manual')
            if chance.random() < 0.5 and self.episode.activatable():
                self.episode.cycle(self.name, self.episode.line('manual'), chance)
            else:
                self.message('set auto 0')

    def spare(self, chance):
        """Adds a spare."""
        with self.episode.cycling:
            if self.episode.sound() and len(self.episode.used) < len(self.episode.spares):
                self.episode.used = self.episode.spares[:len(self.episode.used) + 1]
                self.episode.cycle(self.name, self.episode.line(), chance)


class Fate(Actor):
    """Lets main and the spares fail, and recover."""

    pause = 80
    steps = ['worse', 'worse', 'worse', 'better', 'heal', 'gone', 'spare', 'spare', 'mend']

    def ranges(self, chance, sectors, kinds):
        unit = self.episode.unit
        count = chance.randint(1, max(1, chance.choice([1, 3, 12, 40]) // unit)) * unit
        first = chance.randrange(sectors - count) // unit * unit
        return first, count, chance.choice(kinds)

    def set_main(self, ranges, what):
        operation = self.model.begin(self.name, what)
        episode = self.episode
        with self.model.main_fails(episode.bad, ranges):
            if episode.main.flush_fails:
                self.model.start('flush')
            episode.main.fail(ranges)
            if not any(kind != 'reads' for _, _, kind in ranges):
                self.model.stop('flush')
        episode.bad = ranges
        self.model.end(operation)

    def worse(self, chance):
        new = self.ranges(chance, self.model.sectors, self.episode.main.kinds)
        first, count, kind = new
        kept = [] if self.episode.main.kinds == ScsiDisk.kinds else self.episode.bad
        if all(first + count < other or first > other + length for other, length, _ in kept) and len(kept) < 12:
            self.set_main([*kept, new], f'{kind} of main fail at {first}+{count}')

    def better(self, chance):
        if self.episode.bad:
            healed = chance.choice(self.episode.bad)
            self.set_main([range_ for range_ in self.episode.bad if range_ != healed],
                          f'main is good again at {healed[0]}+{healed[1]}')

    def heal(self, _chance):
        if self.episode.bad:
            self.set_main([], 'all of main is good')

    def gone(self, chance):
        """All of main is gone for a while."""
        if chance.random() < 0.5 or self.episode.main.kinds == ScsiDisk.kinds:
            return
        before = self.episode.bad
        self.model.start('gone')
        self.set_main([(0, self.model.sectors, 'all')], 'main is gone')
        time.sleep(chance.uniform(0, 0.3))
        self.set_main(before, 'main is back')
        self.episode.answers()
        self.model.stop('gone')

    def spare(self, chance):
        """Parts of a spare, or all of it, fail."""
        episode = self.episode
        with episode.cycling:
            spare = chance.choice(episode.used)
            if episode.missing is not None:
                return
            ranges = episode.spare_bad.get(spare, [])
            kind = chance.choice(spare.kinds)
            listed = [line for line in episode.mapped.list() if episode.used[int(line[2])] is spare]
            if chance.random() < 0.2:
                ranges = [(0, spare.sectors, kind)]
            elif listed and chance.random() < 0.8:
                place = int(chance.choice(listed)[3])
                ranges = joined(ranges, (place, max(episode.unit, self.model.block), kind))
            else:
                ranges = joined(ranges, self.ranges(chance, spare.sectors, [kind]))
            operation = self.model.begin(self.name, f'spare {episode.used.index(spare)} fails at {ranges}')
            self.model.start('spares')
            spare.fail(ranges)
            episode.spare_bad[spare] = ranges
            self.model.end(operation)
            # A set goes on without one of its spares.
            if len(episode.used) > 1 and chance.random() < 0.3 and episode.activatable(besides=spare):
                episode.missing = spare
                episode.cycle(self.name, episode.line(), chance)

    def mend(self, chance):
        with self.episode.cycling:
            self.episode.mend(self.name, chance)


def joined(ranges, new):
    """The ranges with another one, if that does not touch them."""
    first, count, _ = new
    if all(first + count <= other or first >= other + length for other, length, _ in ranges):
        return [*ranges, new]
    return ranges


# --- Episodes ---

class Phase:
    """Some threads that work until enough requests were sent, or one of them fails."""

    def __init__(self, requests):
        self.sent, self.requests = 0, requests
        self.lock = threading.Lock()
        self.failures = []

    def did(self, count):
        with self.lock:
            self.sent += count

    def is_over(self):
        return self.sent >= self.requests or self.failures

    def reaches(self, count):
        """Waits until that many requests were sent; tells whether the phase goes on then."""
        while self.sent < count and not self.is_over():
            time.sleep(0.001)
        return not self.is_over()

    def attempt(self, work, *arguments):
        try:
            work(*arguments)
        except BaseException as failure:  # pylint: disable=broad-except
            self.failures.append(failure)

    def play(self, works):
        """Lets all of them work."""
        threads = [threading.Thread(target=self.attempt, args=(work, chance, self), daemon=True)
                   for work, chance in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            # When something was wrong others may never end.
            while thread.is_alive():
                thread.join(1)
                if self.failures:
                    time.sleep(2)
                    break
        if self.failures:
            raise self.failures[0]


class Episode:
    """Disks, a device over them, and what is done to these."""

    def __init__(self, seed):
        self.seed = seed
        self.chance = chance = random.Random(seed)
        self.unit = chance.choice([1, 1, 1, 8])
        block = chance.choice([size for size in (1, 8, 8, 8, 16, 64) if size >= self.unit])
        disks = [NullDisk, MappedDisk]
        self.main = chance.choice([*disks, MappedDisk, ScsiDisk])('main', MAIN_MIB, self.unit)
        size = chance.choice([1, SPARE_MIB, SPARE_MIB])
        self.spares = [chance.choice(disks)(f'spare{at}', size, self.unit) for at in range(chance.randint(1, 3))]
        self.used = self.spares[:chance.randint(1, len(self.spares))]
        self.missing, self.bad, self.spare_bad, self.features = None, [], {}, ''
        self.sectors = self.main.sectors - chance.choice([0, 0, self.unit, 5 * self.unit])
        self.model = Model(self.sectors, block, self.main.merges)
        # Held by whoever changes what the device is made of.
        self.cycling = threading.RLock()
        self.workers = [Worker(self, number) for number in range(WORKERS)]
        self.actors = [Mover(self), Cycler(self), Fate(self)]
        self.mapped = None

    def __str__(self):
        kinds = [type(disk).__name__ for disk in (self.main, *self.spares)]
        return (f'block {self.model.block}, logical block {self.unit}, disks {" ".join(kinds)}, '
                f'spares of {self.spares[0].sectors // 2048} MiB, {len(self.used)} used')

    def line(self, features=None):
        spares = ' '.join('-' if spare is self.missing else spare.path for spare in self.used)
        features = (self.features if features is None else features).split()
        count = f' {len(features)} ' if features else ''
        return f'0 {self.sectors} remap {self.main.path} {len(self.used)} {spares}{count}{" ".join(features)}'

    def sound(self):
        """Whether no spare fails."""
        return not self.spare_bad

    def activatable(self, besides=None):
        """Whether a table can be activated: all metadata of the spares but one can be read and written."""
        return all(spare is besides for spare in self.spare_bad)

    def stale(self):
        """Puts onto the spares what must never be seen."""
        for spare in self.spares:
            device = direct.Device(spare.path)
            device.write(0, bytes(8 * SECTOR))
            device.write(spare.sectors - 8, bytes(8 * SECTOR))
            for first, count in direct.pieces(8, spare.sectors - 16):
                device.write(first, b'stale   ' * (count * SECTOR // 8))
            os.close(device.file)

    def create(self, features=''):
        if not os.path.isdir('/sys/module/dm_remap'):
            run('insmod', '/dm-remap.ko')
        operation = self.model.begin('episode', f'create "{self.line(features)}"')
        run('dmsetup', 'create', NAME, '--table', self.line(features))
        self.model.end(operation)
        self.mapped = dm.Mapped(NAME)

    def remove(self):
        operation = self.model.begin('episode', 'remove')
        os.close(self.mapped.control)
        self.mapped = None
        run('dmsetup', 'remove', '--retry', NAME)
        self.model.end(operation)

    def cycle(self, who, line, chance):
        """Suspends and resumes, maybe with another table."""
        noflush, lockfs = chance.random() < 0.5, chance.random() < 0.5
        operation = self.model.begin(who, f'{"re" if line else "no "}load{" noflush" * noflush} {line or ""}')
        if line:
            self.mapped.load(line)
        self.mapped.suspend(noflush, lockfs)
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0, 0.05))
        try:
            self.mapped.resume()
        except OSError as error:
            raise Wrong(f'{operation}: not resumed: {error}') from error
        self.model.end(operation)

    def answers(self):
        """Waits until the device knows that main is there."""
        if not within(PATIENCE, lambda: self.mapped.value('mode') != 'suspect'):
            raise Wrong('main is good, but still suspect')

    def mend(self, who, chance):
        """All spares are good again, and the device is told."""
        if self.sound() and self.missing is None:
            return
        operation = self.model.begin(who, 'the spares are good')
        for spare in self.spare_bad:
            spare.fail([])
        self.spare_bad, self.missing = {}, None
        self.cycle(who, self.line(), chance)
        self.model.end(operation)
        self.check_mode()
        self.model.loses(self.mapped.list())
        self.check_room()
        self.model.stop('spares')

    def check_mode(self):
        wanted = ['manual'] if self.model.reasons['manual'] == FOREVER else ['rw']
        if self.model.reasons['manual'] != NEVER:
            wanted = ['manual', 'rw']
        if self.model.reasons['gone'] == FOREVER:
            wanted.append('suspect')
        if self.mapped.value('mode') not in wanted:
            raise Wrong(f'the mode is {self.mapped.value("mode")}, not {" or ".join(wanted)}')

    def check_room(self):
        """The spares have no room for all blocks, or may have none soon."""
        blocks = -(-self.sectors // self.model.block)
        if int(self.mapped.value('total')) < blocks:
            self.model.start('full')
        else:
            self.model.stop('full')

    # --- What must be so when nothing is under way ---

    @contextlib.contextmanager
    def still(self):
        """While the device is suspended: nothing changes by itself."""
        self.mapped.suspend()
        yield
        self.mapped.resume()

    def check(self):
        """Reads everything."""
        before = self.mapped.list()
        failed = set()
        device = direct.Device(f'/dev/mapper/{NAME}')
        self.look(device, range(self.sectors), direct.REQUEST_SECTORS, failed)
        os.close(device.file)
        with self.still():
            after, counted = self.mapped.list(), int(self.mapped.value('unreadable'))
        if self.sound() and self.missing is None:
            for line in before:
                if line in after:
                    clear = set(clear_of(line))
                    for sector in range(int(line[0]), int(line[0]) + int(line[1]), self.unit):
                        if sector in failed and sector not in clear:
                            raise Wrong(f'sector {sector} lives on a spare, which is good, but cannot be read')
        unreadable = sum(len(clear_of(line)) for line in after)
        if unreadable != counted:
            raise Wrong(f'the list has {unreadable} unreadable sectors, the status {counted}')
        if self.sound() and self.missing is None:
            self.model.learn(after, self.bad)

    def look(self, device, sectors, step, failed):
        """Reads sectors, and adds those that cannot be read to the ones that have failed."""
        for first in range(sectors.start, sectors.stop, step):
            part = range(first, min(first + step, sectors.stop))
            read = self.model.begin('check', 'read', first, len(part))
            before = self.model.expected(first, len(part))
            data, error = b'', 0
            try:
                data = device.read(first, len(part))
            except OSError as failure:
                error = failure.errno
            self.model.end_read(read, error, data, before)
            if error and step > self.unit:
                self.look(device, part, self.unit if step <= 16 else 16, failed)
            elif error:
                failed.add(first)

    def check_disks(self):
        """Looks at the disks beneath, none of which fails."""
        lost = self.model.lost_now()
        disks = places.Places(NAME, self.main.raw, [spare.raw for spare in self.used])
        wrong = disks.complaint()
        if wrong:
            raise Wrong(wrong)
        for first, count in direct.pieces(0, self.sectors):
            read = self.model.begin('check', 'look at the disks', first, count)
            data = disks.read(first, count)
            for at in range(count):
                if first + at not in lost:
                    self.model.compare(read, first + at, data[at * SECTOR:(at + 1) * SECTOR], ())
        for device in disks.main, *disks.spares:
            os.close(device.file)
        os.close(disks.mapped.control)

    # --- The story ---

    def play(self):
        self.stale()
        self.create(f'block_size {self.model.block}')
        self.check_room()
        sent = 0
        for number in range(PHASES):
            phase = Phase(REQUESTS)
            works = [(actor.run, random.Random(f'{self.seed} {number} {actor.name}'))
                     for actor in (*self.workers, *self.actors)]
            phase.play(works)
            sent += phase.sent
            self.check()
            if self.activatable(besides=self.missing) and self.chance.random() < 0.6:
                self.remove()
                if self.chance.random() < 0.5:
                    run('rmmod', 'dm_remap')
                self.create()
                self.check()
        self.finish()
        return sent

    def finish(self):
        """Everything is good again: all data is there, and goes back to main."""
        fate = Fate(self)
        fate.mend(self.chance)
        fate.set_main([], 'all of main is good')
        self.answers()
        self.check()
        with self.still():
            self.check_disks()
        lost = self.model.lost_now()
        operation = self.model.begin('episode', f'remove 0 {self.sectors}')
        try:
            self.mapped.message(f'remove 0 {self.sectors}')
        except OSError as error:
            if error.errno != errno.EIO or not lost:
                raise Wrong(f'{operation}: {error}') from error
        self.model.end(operation)
        for line in self.mapped.list():
            if lost.isdisjoint(clear_of(line)):
                raise Wrong(f'sector {line[0]} is not brought back to a good main')
        self.check()
        with self.still():
            self.check_disks()
        self.remove()
        run('dmremap', 'check', '--main', str(self.main.sectors), *(spare.path for spare in self.used))
        for disk in self.main, *self.spares:
            disk.remove()

    def tell(self, failure):
        """Prints all that is known of a failure."""
        text = str(failure)
        print(f'seed {self.seed} failed: {text}')
        kernel = next((f' KERNEL={name}' for name in ('debug', 'kcsan') if f'-{name}-' in os.uname().release), '')
        print(f'to play it again: make stress STRESS_TIME=1 SEED={self.seed}{kernel}')
        if not isinstance(failure, Wrong):
            traceback.print_exception(failure)
        print(self)
        sector = number_after('sector ', text)
        print(*self.model.tell(sector), sep='\n')
        if self.mapped:
            show(self.mapped.table)
            show(self.mapped.status)
            if sector is not None:
                show(lambda: f'lookup: {self.mapped.message(f"lookup {sector}")}')
                show(lambda: f'list: {self.mapped.message(f"list {sector} 1")}')
        print(f'main fails at {self.bad}, spares fail: {list(self.spare_bad.values())}')
        print(*run('dmesg').splitlines()[-LAST_OPERATIONS:], sep='\n')
        sys.stdout.flush()
        # No request may wait for a resume any more, or this program does not end.
        show(self.mapped.clear)
        show(self.mapped.resume)


def show(text):
    try:
        print(text())
    except OSError as error:
        print(error)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument('--seconds', type=int, default=25)
    parser.add_argument('--seed', type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    begun, seed, sent = time.monotonic(), options.seed, 0
    print(f'seed {seed}', flush=True)
    run('modprobe', 'null_blk', 'nr_devices=0')
    run('modprobe', 'dm_flakey')
    while time.monotonic() - begun < options.seconds:
        # A machine that hangs says where.
        faulthandler.dump_traceback_later(4 * PATIENCE, exit=True)
        episode, start = Episode(seed), time.monotonic()
        try:
            sent += episode.play()
        except BaseException as failure:  # pylint: disable=broad-except
            episode.tell(failure)
            # What is stuck stays so.
            os._exit(1)
        print(f'seed {seed}: {episode}: {len(episode.model.log)} operations in '
              f'{time.monotonic() - start:.1f} s', flush=True)
        seed += 1
    print(f'{seed - options.seed} episodes, {sent} requests, {time.monotonic() - begun:.0f} s')


if __name__ == '__main__':
    main()
