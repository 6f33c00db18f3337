"""States that a crash may leave on a set of disks, put on other disks and activated."""

import errno
import os
import struct

import direct
import dm
from churn import Wrong, number_in
from crash_work import MAIN, UNKNOWN, UNREADABLE, number_at, scan_rate

SECTOR = direct.SECTOR
CHUNK = 8

# What dmremap check says: nothing is wrong, it can be mended, or there is no whole set.
CLEAN, MENDABLE, NO_SET = 0, 1, 8

PAGE_MAGIC = b'dm-remap'
# Where a page has its class, and that of a witness page.
CLASS, WITNESS = 14, 3
# Offsets in a superblock, see docs/metadata.md.
DATA_START, BLOCK_SIZE, SLOTS = 104, 120, 128


class Media:
    """What is on the disks for sure, and what has been sent since and may be there or not."""

    def __init__(self, initial, bad):
        self.initial = initial
        self.bad = bad
        # For each sector the request that has written it, or 0.
        self.stable = [0] * (len(initial) // SECTOR)
        self.pending = []
        # The sectors that a replay has not yet seen change.
        self.changed = set()
        # What the disks hold for sure, as a number, and what the pages of metadata hold.
        self.mark = self.pages = 0

    def issue(self, request):
        if request.is_flush():
            # It is about what was answered before it was sent.
            request.covers = [write for write in self.pending
                              if write.answered and write.disk == request.disk]
            return
        request.answered = False
        request.left = set(range(request.first, request.first + request.count)) - self.bad
        self.pending.append(request)

    def done(self, request):
        """What has failed may be there all the same, and nothing makes it stable."""
        if request.failed:
            return
        if request.is_flush():
            for write in request.covers:
                self.make_stable(write)
        elif request.fua:
            self.make_stable(request)
        else:
            request.answered = True

    def make_stable(self, request):
        if request not in self.pending:
            return
        for earlier in self.pending[:self.pending.index(request)]:
            earlier.left -= request.left
        for sector in request.left:
            other = difference(sector, self.stable[sector], request)
            self.mark ^= other
            self.pages ^= other * is_page(request)
            self.stable[sector] = request
        self.changed |= request.left
        self.pending = [write for write in self.pending if write is not request and write.left]

    def state(self, parts):
        """A state in which parts of pending writes are there: each a write and its sectors."""
        return State(self, {sector: write for write, sectors in parts for sector in sectors})

    def states(self, chance, tries):
        """States with all that is pending, nothing, only the last, and random parts of it; and, where
        those are several, with all of it torn behind its first sectors, either way."""
        yield self.state((write, write.left) for write in self.pending)
        if not self.pending:
            return
        yield self.state([])
        last = self.pending[-1]
        yield self.state([(last, last.left)])
        if tries > 1:
            yield self.state((write, sorted(write.left)[:1]) for write in self.pending)
            yield self.state((write, sorted(write.left)[1:]) for write in self.pending)
        for _ in range(tries):
            yield self.state((write, some_of(write, chance)) for write in self.pending)

    def content(self, sector, write):
        if write == 0:
            return self.initial[sector * SECTOR:(sector + 1) * SECTOR]
        at = (sector - write.first) * SECTOR
        return write.data[at:at + SECTOR]

    def image(self, state):
        """All that the disks hold in a state."""
        return b''.join(self.content(sector, state.written.get(sector, write))
                        for sector, write in enumerate(self.stable))


def some_of(write, chance):
    """All of a write, nothing of it, or some of its sectors."""
    kept = chance.choice([0, 0.5, 1])
    return [sector for sector in sorted(write.left) if chance.random() < kept]


def difference(sector, before, after):
    return hash((sector, before)) ^ hash((sector, after))


def is_page(write):
    """Whether a write is of a page of metadata."""
    return write != 0 and write.data.startswith(PAGE_MAGIC)


class State:
    """What differs from what is stable: for each sector the request that has written it."""

    def __init__(self, media, written):
        self.media = media
        self.written = {sector: write for sector, write in written.items()
                        if media.stable[sector] is not write}
        self.mark, self.pages = media.mark, media.pages
        for sector, write in self.written.items():
            other = difference(sector, media.stable[sector], write)
            self.mark ^= other
            self.pages ^= other * is_page(write)

    def with_blank(self, part):
        """The same with a disk, which is these sectors, as it was at the beginning."""
        return State(self.media, self.written | dict.fromkeys(part, 0))

    def tears_witness(self):
        """Whether there is a part of a witness page.  There is one copy of it, so a spare that is lost in the
        crash that tears it cannot be done without."""
        for write in self.media.pending:
            there = sum(self.written.get(sector) is write for sector in write.left)
            if 0 < there < len(write.left) and is_page(write) and write.data[CLASS] == WITNESS:
                return True
        return False


class Seen:
    """What an activation showed: where blocks live, what sectors hold, an option, and whether
    it had to write."""

    def __init__(self, places, numbers, rate, wrote):
        self.places = places
        self.numbers = numbers
        self.rate = rate
        self.wrote = wrote


class Refused(Exception):
    """The set is not activated."""


class Replay:
    """Disks for the states, and the mapped device replay on them."""

    def __init__(self, options, slices, media):
        self.options = options
        self.slices = slices
        self.media = media
        self.mapped = dm.Mapped('replay')
        self.names = ['replaymain', *(f'replayspare{at}' for at in range(len(slices) - 1))]
        self.disks = [direct.Device(f'/dev/mapper/{name}') for name in self.names]
        self.stats = [os.open(f'/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat', os.O_RDONLY)
                      for number in (os.stat(disk.path).st_rdev for disk in self.disks)]
        self.device = direct.Device('/dev/mapper/replay')
        # For each sector who has written it, and the sectors where that is not what is stable.
        self.there = [''] * slices[-1].stop
        self.other = set(range(slices[-1].stop))
        self.numbers = {}
        self.activations = 0

    def close(self):
        """Leaves the disks to others."""
        self.mapped.load(f'0 {self.options.main} linear /dev/mapper/replaymain 0')
        self.mapped.resume()
        for file in [*self.stats, *(device.file for device in [self.device, *self.disks])]:
            os.close(file)

    # --- Putting ---

    def put(self, state):
        """Writes what differs from what is there."""
        media = self.media
        touched = (self.other | media.changed | state.written.keys()) - media.bad
        different = []
        for sector in sorted(touched):
            write = state.written.get(sector, media.stable[sector])
            if self.there[sector] is not write:
                different.append((sector, write))
                self.there[sector] = write
        for disk, part in zip(self.disks, self.slices):
            for first, writes in runs([pair for pair in different if pair[0] in part]):
                data = b''.join(media.content(sector, write) for sector, write in enumerate(writes, first))
                for start, count in direct.pieces(0, len(writes)):
                    disk.write(first - part.start + start, data[start * SECTOR:(start + count) * SECTOR])
        self.other = set(state.written)
        media.changed.clear()

    def forget_metadata(self):
        """An activation has repaired something."""
        for disk, part in list(zip(self.disks, self.slices))[1:]:
            superblock = disk.read(0, 1)
            start, = struct.unpack_from('<Q', superblock, DATA_START)
            block, = struct.unpack_from('<I', superblock, BLOCK_SIZE)
            slots, = struct.unpack_from('<I', superblock, SLOTS)
            for at in [*range(start), *range(start + slots * block, len(part))]:
                self.there[part.start + at] = ''
                self.other.add(part.start + at)

    def writes(self):
        """How much was written to each disk."""
        return [os.pread(stat, 4096, 0).split()[4] for stat in self.stats]

    # --- Looking ---

    def verify(self, state, spares):
        """The status of the tool that verifies metadata without the module."""
        self.put(state)
        command = ['dmremap', 'check', '-q', '--main', str(self.options.main),
                   *(f'/dev/mapper/{name}' for name in self.names[1:1 + spares])]
        process = os.posix_spawnp(command[0], command, os.environ)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def activate(self, state, spares, missing=None):
        """Has a state used, with so many spares; shows what is found."""
        self.put(state)
        paths = ['-' if at == missing else f'/dev/mapper/{name}'
                 for at, name in enumerate(self.names[1:1 + spares])]
        line = (f'0 {self.options.main} remap /dev/mapper/replaymain {spares} {" ".join(paths)} '
                f'3 manual block_size {self.options.block}')
        seen = self.look(line, missing)
        if seen.wrote:
            # What was repaired is to be found by the next activation, too.
            again = self.look(line, missing)
            self.forget_metadata()
            if again.wrote:
                raise Wrong('what an activation has repaired, the next one repairs again')
            if (again.places, again.numbers) != (seen.places, seen.numbers):
                raise Wrong('a second activation finds something else than the first one')
        return seen

    def look(self, line, missing):
        self.activations += 1
        before = self.writes()
        self.mapped.load(line)
        try:
            self.mapped.resume()
        except OSError as error:
            if self.writes() != before:
                raise Wrong('something was written before the set was refused') from error
            raise Refused(f'the set is refused: {error.strerror}') from error
        wrote = [one != other for one, other in zip(before, self.writes())]
        if wrote[0]:
            raise Wrong('an activation has written to main')
        status = self.mapped.status()
        mode = 'manual' if missing is None else 'ro'
        if f' mode={mode} ' not in status:
            raise Wrong(f'the mode is another one than {mode}: {status}')
        if missing is not None and any(wrote):
            raise Wrong('something was written while a spare was missing')
        block = self.options.block
        listed = self.mapped.list()
        places = {int(words[0]) // block: int(words[2]) for words in listed}
        slots = {(words[2], words[3]) for words in listed if words[3] != '-'}
        if len(places) != len(listed) or len(slots) != sum(words[3] != '-' for words in listed):
            raise Wrong('two blocks share a place, or one has two')
        if f' used={len(places)}/' not in status and f' used={len(places)} ' not in status:
            raise Wrong('the status and the list count different blocks')
        lost = {at * block + offset for at, spare in places.items() if spare == missing
                for offset in range(block)}
        return Seen(places, self.read_all(lost | self.options.bad_set), scan_rate(self.mapped), any(wrote))

    def read_all(self, doubtful):
        """The number in each sector; the doubtful ones are read one by one."""
        numbers = []
        for sector in sorted(doubtful | {self.options.main}):
            for first, count in direct.pieces(len(numbers), sector - len(numbers)):
                try:
                    data = self.device.read(first, count)
                except OSError as error:
                    raise Wrong(f'sectors {first} + {count}: {error.strerror}') from error
                self.decode(numbers, first, data)
            if sector < self.options.main:
                numbers.append(number_at(self.device, sector))
        return numbers

    def decode(self, numbers, first, data):
        """Adds the numbers in some sectors, which are mostly the same in many states."""
        for at in range(0, len(data), CHUNK * SECTOR):
            key = first + at // SECTOR, data[at:at + CHUNK * SECTOR]
            if key not in self.numbers:
                self.numbers[key] = [number_in(key[1][part:part + SECTOR], key[0] + part // SECTOR)
                                     for part in range(0, len(key[1]), SECTOR)]
            numbers += self.numbers[key]


def runs(pairs):
    """Pairs of a sector and something, in ascending order, put together: where each run begins,
    and its somethings."""
    run = []
    for at, (sector, what) in enumerate(pairs):
        if at and sector != pairs[at - 1][0] + 1:
            yield pairs[at - len(run)][0], run
            run = []
        run.append(what)
    if run:
        yield pairs[len(pairs) - len(run)][0], run


def compare(model, seen, missing=None):
    """Fails unless what was seen is what was promised; of a missing spare no data is."""
    for block, place in enumerate(model.places):
        found = seen.places.get(block, MAIN)
        if place is not UNKNOWN and place != found:
            raise Wrong(f'block {block} is on {name_of(found)} instead of {name_of(place)}')
    if seen.rate not in model.rates:
        raise Wrong(f'scan_rate is {seen.rate}, not one of {model.rates}')
    for sector, number in enumerate(seen.numbers):
        if number != UNREADABLE:
            model.must_hold(sector, number)
        elif missing is None or seen.places.get(sector // model.block) != missing:
            if sector not in model.bad or model.least[sector]:
                raise Wrong(f'sector {sector} cannot be read, but {model.least[sector]} is there')


def name_of(place):
    return 'main' if place == MAIN else f'spare {place}'
