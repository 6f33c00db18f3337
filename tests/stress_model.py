"""The model of stress.py: what every sector may hold, and which requests may fail."""

import collections
import contextlib
import errno
import itertools
import threading

import churn
from stress_disks import SECTOR, Wrong, sectors_of

NEVER, FOREVER = -1, 1 << 62
WRITES = {'write', 'write FUA', 'write NOWAIT', 'zero', 'discard'}
ZEROING = {'zero', 'discard'}
# What is written about a failure.
LAST_OPERATIONS = 25


class Operation:
    """Something that was done: what, where, when, and what came of it."""

    __slots__ = 'number', 'who', 'what', 'first', 'count', 'result', 'ended'

    def __init__(self, number, who, what, first, count):
        self.number, self.who, self.what, self.first, self.count = number, who, what, first, count
        self.result, self.ended = 'under way', None

    def __str__(self):
        where = f' {self.first}+{self.count}' if self.count else ''
        return f'{self.number:7} to {self.ended or "-":>7}  {self.who:8} {self.what}{where}: {self.result}'

    def touches(self, sector):
        return self.count > 0 and (sector is None or self.first <= sector < self.first + self.count)


class Model:
    """What every sector may hold, and which requests may fail.

    Moments and operations are numbered together.  A write puts its own number into its sectors.
    Of a fault is kept when it ended; a request may fail if it began before that."""

    def __init__(self, sectors, block, merges):
        self.lock = threading.RLock()
        self.sectors, self.block = sectors, block
        # Whether main may merge requests, of which then all fail when one touches a bad sector.
        self.merges = merges
        self.moments = itertools.count(1)
        self.log = []
        self.zeroing = {0}
        # For each sector the writes that it may hold, and when these ended, those that are under way, and
        # the last one that writes zeroes.
        self.may = [{0: 0} for _ in range(sectors)]
        self.flying = [set() for _ in range(sectors)]
        self.zeroed = [NEVER] * sectors
        # When sectors of main could be read again; since when they fail for reads and writes.
        self.unreadable = [NEVER] * sectors
        self.dead_since = [FOREVER] * sectors
        # When sectors that a spare had lost were written again.
        self.lost = [NEVER] * sectors
        # Blocks that may live on a spare.
        self.away = set()
        # When other reasons to fail ended.
        self.reasons = collections.defaultdict(lambda: NEVER)

    def moment(self):
        return next(self.moments)

    def begin(self, who, what, first=0, count=0):
        """An operation begins."""
        with self.lock:
            operation = Operation(self.moment(), who, what, first, count)
            self.log.append(operation)
            if what in WRITES:
                for sector in range(first, first + count):
                    self.flying[sector].add(operation.number)
                if what in ZEROING:
                    self.zeroing.add(operation.number)
                    for sector in range(first, first + count):
                        self.zeroed[sector] = operation.number
            return operation

    def end(self, operation, result='done'):
        """It has ended."""
        with self.lock:
            operation.ended = self.moment()
            operation.result = result

    def expected(self, first, count):
        """What sectors may hold now."""
        with self.lock:
            return [(*self.may[sector], *self.flying[sector]) for sector in range(first, first + count)]

    def end_write(self, write, error):
        """A write has ended.  When it was acknowledged, its sectors hold it, or what was written at the same time."""
        with self.lock:
            self.end(write, result_of(error))
            if error and not self.may_write_fail(write):
                raise Wrong(f'{write}, but nothing explains that')
            sure = not error and write.what != 'discard'
            for sector in range(write.first, write.first + write.count):
                may = self.may[sector]
                self.flying[sector].discard(write.number)
                if sure:
                    for old in [old for old, ended in may.items() if ended < write.number]:
                        del may[old]
                    self.lost[sector] = min(self.lost[sector], write.ended)
                    if self.dead_since[sector] < write.number:
                        # It lives on a spare now, and main cannot get it back.
                        self.unreadable[sector] = write.ended
                may[write.number] = write.ended

    def end_read(self, read, error, data, before):
        """A read has ended, before which the sectors may have held these."""
        with self.lock:
            self.end(read, result_of(error))
            if error:
                if not self.may_read_fail(read):
                    raise Wrong(f'{read}, but nothing explains that')
                return
            for at, sector in enumerate(range(read.first, read.first + read.count)):
                self.compare(read, sector, data[at * SECTOR:(at + 1) * SECTOR], before[at])

    def compare(self, read, sector, data, before):
        """What a read found must be what was there before, or what was written since."""
        number = churn.number_in(data, sector)
        may = {*before, *self.may[sector], *self.flying[sector]}
        if number in may or number > read.number:
            return
        if number == 0 and (not self.zeroing.isdisjoint(may) or self.zeroed[sector] > read.number):
            return
        raise Wrong(f'{read}: sector {sector} has number {number}, not one of {sorted(may)} '
                    f'(zero: one of {sorted(self.zeroing & may)})')

    # --- What explains a failure ---

    def holds_since(self, operation, *reasons):
        """Whether there was one of these reasons while an operation was under way."""
        return any(self.reasons[reason] > operation.number for reason in reasons)

    def may_write_fail(self, write):
        if is_impatient(write):
            return True
        sectors = range(write.first, write.first + write.count)
        if write.what == 'discard' and self.holds_since(write, 'main', 'spares'):
            return True
        if self.holds_since(write, 'spares') and self.is_away(sectors):
            return True
        return self.is_passed_on(write)

    def may_read_fail(self, read):
        if is_impatient(read):
            return True
        sectors = range(read.first, read.first + read.count)
        return (self.holds_since(read, 'spares') and self.is_away(sectors)
                or self.is_passed_on(read) or self.was_lost_since(read, sectors)
                or any(self.unreadable[sector] > read.number for sector in sectors))

    def is_passed_on(self, request):
        """Whether the errors of main were passed on."""
        return (self.holds_since(request, 'main')
                and self.holds_since(request, 'spares', 'manual', 'gone', 'full'))

    def was_lost_since(self, operation, sectors):
        """Whether one of these sectors was lost while an operation was under way."""
        return any(self.lost[sector] > operation.number for sector in sectors)

    def lost_now(self):
        return {sector for sector, until in enumerate(self.lost) if until == FOREVER}

    def loses(self, relocated):
        """What list says is lost."""
        with self.lock:
            for line in relocated:
                for sector in clear_of(line) if line[5] == 'spare' else []:
                    self.lost[sector] = FOREVER

    def is_away(self, sectors):
        return any(block in self.away
                   for block in range(sectors.start // self.block, (sectors.stop - 1) // self.block + 1))

    def leaves(self, sectors):
        """The blocks of these sectors may live on a spare from now on."""
        with self.lock:
            self.away.update(range(sectors.start // self.block, (sectors.stop - 1) // self.block + 1))

    def may_leave(self, bad):
        """The blocks that main fails, or may seem to fail, may live on a spare from now on."""
        for first, count, _ in bad:
            self.leaves(range(self.sectors) if self.merges else range(first, first + count))

    def start(self, reason):
        with self.lock:
            self.reasons[reason] = FOREVER

    def stop(self, reason):
        with self.lock:
            self.reasons[reason] = self.moment()

    @contextlib.contextmanager
    def main_fails(self, old, new):
        """While main gets the ranges that fail: each change is known before it is true, and no longer than it is."""
        with self.lock:
            self.may_leave(set(new) - set(old))
            for sector in sectors_of(new, ('reads', 'all')) - sectors_of(old, ('reads', 'all')):
                self.unreadable[sector] = FOREVER
            for sector in sectors_of(old, ('all',)) - sectors_of(new, ('all',)):
                self.dead_since[sector] = FOREVER
            if new:
                self.start('main')
        yield
        with self.lock:
            for sector in sectors_of(old, ('reads', 'all')) - sectors_of(new, ('reads', 'all')):
                self.unreadable[sector] = self.moment()
            for sector in sectors_of(new, ('all',)) - sectors_of(old, ('all',)):
                self.dead_since[sector] = self.moment()
            if not new:
                self.stop('main')

    def learn(self, relocated, bad):
        """What is known when nothing is under way: what list says, and the ranges of main that are bad."""
        with self.lock:
            self.away = {int(first) // self.block for first, *_ in relocated}
            self.may_leave(bad)
            now = self.moment()
            self.lost = [min(until, now) for until in self.lost]
            self.loses(relocated)

    def tell(self, sector):
        """What was done last: to a sector, if there is one, and else."""
        with self.lock:
            requests = [operation for operation in self.log if operation.touches(sector)]
            others = [operation for operation in self.log if operation.count == 0]
            last = requests[-LAST_OPERATIONS:] + others[-LAST_OPERATIONS:]
            return map(str, sorted(last, key=lambda operation: operation.number))


def clear_of(line):
    """The sectors of a line of list that do not live on the spare."""
    first, count, live = int(line[0]), int(line[1]), int(line[4], 16)
    return [first + at for at in range(count) if not live >> at & 1]


def number_after(word, text):
    _, found, rest = text.partition(word)
    digits = ''.join(itertools.takewhile(str.isdigit, rest))
    return int(digits) if found and digits else None


def is_impatient(request):
    """Whether it failed because it would have had to wait.  A table with dm-flakey, when that is put
    beneath a device, does not know such requests."""
    return request.what.endswith('NOWAIT') and request.result in ('EAGAIN', 'EOPNOTSUPP', 'ENOTSUP')


def result_of(error):
    return errno.errorcode.get(error, str(error)) if error else 'done'
