#!/usr/bin/python3
"""boundaries.py NAME MAIN SPARE reads|writes|long|unreadable

Sends requests of every size, at every alignment, across the boundaries of relocated
blocks of the mapped device NAME, and compares what they find and leave on it, on its
main device and on its spare, byte by byte, with a model.

    reads        of sectors on main and on the spare
    writes       to them
    long         reads and writes of many blocks, of which every second is relocated
    unreadable   reads of and writes to blocks with sectors that cannot be read, on
                 a null_blk disk

reads and writes want a device with relocations among its last blocks, the others one
without any.  Each begins with sectors of its own making.
"""

import os
import sys

import dm
from sectors import Device, SECTOR, Wrong, compare, stamps

# The blocks at the end of the device that reads and writes are about.
REGION_BLOCKS = 14
LONGEST = 130
# null_blk keeps no more ranges of bad sectors than fit into a page.
MOST_BAD_RANGES = 500
# How many sectors are made and compared at a time.
CHUNK = 2048


class Disk(Device):
    """A disk, and how many requests it has served."""

    def __init__(self, path):
        super().__init__(path, CHUNK)
        self.statistics = os.open(f'/sys/class/block/{os.path.basename(path)}/stat', os.O_RDONLY)

    def served(self):
        """The reads and the writes so far."""
        words = os.pread(self.statistics, 512, 0).split()
        return int(words[0]), int(words[4])


class Mapped(Device):
    """The mapped device, and where its sectors live."""

    def __init__(self, name, main, spare):
        super().__init__(f'/dev/mapper/{name}', CHUNK)
        self.target = dm.Mapped(name)
        self.main = Disk(main)
        self.spare = Disk(spare)
        self.block = int(self.target.value('block'))
        self.sectors = int(self.target.table().split()[1])
        self.dead = set()
        self.on_spare = {}
        self.row_ends = {}
        self.learn()

    def learn(self):
        """Asks which sectors live on the spare, and where, and which of relocated blocks do not."""
        self.dead, self.on_spare, self.row_ends = set(), {}, {}
        for first, count, _, place, live, *_ in self.target.list():
            for at in range(int(count)):
                if int(live, 16) >> at & 1:
                    self.on_spare[int(first) + at] = int(place) + at
                else:
                    self.dead.add(int(first) + at)

    def place(self, sector):
        """The disk on which a sector lives, and where."""
        at = self.on_spare.get(sector)
        return (self.main, sector) if at is None else (self.spare, at)

    def row_end(self, first):
        """Where the sectors end that lie in a row on one disk with this one."""
        if first not in self.row_ends:
            end = first + 1
            disk, at = self.place(first)
            while end < self.sectors and self.place(end) == (disk, at + end - first):
                end += 1
            self.row_ends.update(dict.fromkeys(range(first, end), end))
        return self.row_ends[first]

    def parts(self, first, count):
        """The parts of a range that each lie in a row on one disk: that, the sector there, the length."""
        end = first + count
        while first < end:
            disk, at = self.place(first)
            length = min(self.row_end(first), end) - first
            yield disk, at, length
            first += length


class Model:
    """What the sectors of a device hold, from one of them on."""

    def __init__(self, path, first, data):
        self.path = path
        self.first = first
        self.data = bytearray(data)

    def set(self, sector, data):
        at = (sector - self.first) * SECTOR
        self.data[at:at + len(data)] = data

    def part(self, first, count):
        at = (first - self.first) * SECTOR
        return self.data[at:at + count * SECTOR]

    def check(self, device, first, count):
        compare(self.path, first, device.read(first, count), self.part(first, count))

    def chunks(self):
        """The sectors in parts that can be read or written at once."""
        end = self.first + len(self.data) // SECTOR
        for start in range(self.first, end, CHUNK):
            yield start, min(CHUNK, end - start)

    def check_all(self, device):
        for first, count in self.chunks():
            self.check(device, first, count)

    def write_all(self, device):
        for first, count in self.chunks():
            device.write(first, self.part(first, count))


class NewData:
    """Data for writes, every time something else."""

    SECTORS = 4096

    def __init__(self):
        self.stock = stamps('new', 0, self.SECTORS + LONGEST)
        self.next = 0

    def take(self, count):
        # A step that is prime to their number, so that the same sectors come back late.
        self.next = (self.next + 1373) % self.SECTORS
        return self.stock[self.next * SECTOR:(self.next + count) * SECTOR]


def requests(edges, lengths, end, first=0):
    """Every request of the lengths that ends or begins at an edge, crosses it, or nearly touches it."""
    for length in lengths:
        starts = {start for edge in edges for start in range(edge - length - 1, edge + 2)}
        for start in sorted(starts):
            if first <= start and start + length <= end:
                yield start, length


def region_start(mapped):
    return (mapped.sectors // mapped.block - REGION_BLOCKS + 1) * mapped.block


def region_requests(mapped):
    """The requests for the last blocks, of all lengths up to 40."""
    first = region_start(mapped)
    lengths = range(1, 41)
    if mapped.block > 8:
        # Such a block is longer than that, and most requests lie in one, far from its ends.
        lengths = [1, 2, 7, 8, 40, 63, 64, 65, LONGEST]
    edges = range(first, mapped.sectors + mapped.block, mapped.block)
    return requests(edges, lengths, mapped.sectors, first)


def check_served(mapped, which, first, count, before):
    """Fails unless each disk served as many requests as the range has parts there."""
    parts = [disk for disk, _, _ in mapped.parts(first, count)]
    for disk, old in zip((mapped.main, mapped.spare), before):
        found = disk.served()[which] - old[which]
        if found != parts.count(disk):
            raise Wrong(f'{count} sectors from {first} on were {found} requests to {disk.path}, '
                        f'not {parts.count(disk)}')


def served(mapped):
    return mapped.main.served(), mapped.spare.served()


def reads(mapped):
    """Every read returns what was written, in as few parts as it lies in."""
    first = region_start(mapped)
    count = mapped.sectors - first
    expected = Model(mapped.path, first, stamps('read', first, count))
    # What lies on main beneath relocated sectors is something else.
    Model(mapped.main.path, first, stamps('beneath', first, count)).write_all(mapped.main)
    for sector in range(first, mapped.sectors):
        disk, at = mapped.place(sector)
        disk.write(at, expected.part(sector, 1))
    for start, length in region_requests(mapped):
        before = served(mapped)
        found = mapped.read(start, length)
        check_served(mapped, 0, start, length, before)
        compare(f'{length} sectors from {start} on', start, found, expected.part(start, length))


def writes(mapped):
    """Every write goes where its sectors live and nowhere else, in as few parts as they lie in."""
    first = region_start(mapped)
    main = Model(mapped.main.path, first, stamps('main', first, mapped.sectors - first))
    main.write_all(mapped.main)
    # On the spare, the blocks and a block on either side of them.
    begin = min(mapped.on_spare.values()) - mapped.block
    end = max(mapped.on_spare.values()) + 1 + mapped.block
    spare = Model(mapped.spare.path, begin, stamps('spare', begin, end - begin))
    spare.write_all(mapped.spare)
    models = {mapped.main: main, mapped.spare: spare}
    new = NewData()
    for start, length in region_requests(mapped):
        data = new.take(length)
        before = served(mapped)
        mapped.write(start, data)
        check_served(mapped, 1, start, length, before)
        at = 0
        for disk, sector, count in mapped.parts(start, length):
            models[disk].set(sector, data[at:at + count * SECTOR])
            at += count * SECTOR
        if mapped.block > 8:
            look_around(mapped, models, start, length)
        else:
            main.check_all(mapped.main)
            spare.check_all(mapped.spare)
    main.check_all(mapped.main)
    spare.check_all(mapped.spare)


def look_around(mapped, models, start, length):
    """Checks main beneath a write, and where its sectors live, with some more on either side."""
    begin = max(region_start(mapped), start - 9)
    count = min(mapped.sectors, start + length + 9) - begin
    models[mapped.main].check(mapped.main, begin, count)
    for disk, sector, part in mapped.parts(begin, count):
        models[disk].check(disk, sector, part)


def long(mapped):
    """A request across many boundaries is split at each of them, and its data is where it belongs."""
    for sector in range(0, CHUNK, 2 * mapped.block):
        mapped.target.message(f'add {sector}')
    mapped.learn()
    for text in 'one', 'two':
        expected = Model(mapped.path, 0, stamps(text, 0, CHUNK))
        before = served(mapped)
        mapped.write(0, expected.data)
        check_served(mapped, 1, 0, CHUNK, before)
        start = 0
        for disk, at, count in mapped.parts(0, CHUNK):
            compare(disk.path, at, disk.read(at, count), expected.part(start, count))
            start += count
        before = served(mapped)
        expected.check_all(mapped)
        check_served(mapped, 0, 0, CHUNK, before)
    mapped.target.message(f'remove 0 {CHUNK}')
    expected.check_all(mapped.main)


def group_of_bad(block):
    """The bad sectors of a group of six blocks, of which the first and the last two are healthy."""
    if block == 1:
        return {1, 3}
    first, second, third = block, 2 * block, 3 * block
    middle = first + block // 2
    return {middle - 2, middle - 1, *range(second, third + 1), third + 3, third + block - 1}


def unreadable(mapped):
    """Reads and writes of relocated sectors that cannot be read."""
    bad = group_of_bad(mapped.block)
    size = 6 * mapped.block
    edges = {edge for sector in bad for edge in (sector, sector + 1) if not {edge - 1, edge} <= bad}
    lengths = range(1, min(size, 40) + 1)
    if mapped.block == 8:
        lengths = [1, 2, 5, 8, 9, 17, 40]
    if mapped.block > 8:
        edges = {edge for edge in edges if edge % mapped.block in (0, 1)}
        lengths = [1, 64, 65]
    wanted = list(requests(edges | {mapped.block, 4 * mapped.block}, lengths, size))
    ranges = sum(sector - 1 not in bad for sector in bad)
    groups = min(MOST_BAD_RANGES // ranges, mapped.sectors // size)
    for at in range(0, len(wanted), groups):
        Round(mapped, bad, size, wanted[at:at + groups]).run()


class Round:
    """As many groups of blocks as there are requests, each with bad sectors of its own."""

    def __init__(self, mapped, bad, size, wanted):
        self.mapped = mapped
        self.bad = bad
        self.size = size
        self.wanted = wanted
        self.bases = range(0, size * len(wanted), size)
        self.expected = Model(mapped.path, 0, stamps('old', 0, size * len(wanted)))
        self.main = Model(mapped.main.path, 0, self.expected.data)
        self.dead = {base + sector for base in self.bases for sector in bad}
        self.new = NewData()

    def run(self):
        self.relocate()
        for base, (offset, length) in zip(self.bases, self.wanted):
            self.read(base + offset, length)
            self.write(base + offset, length)
            self.look(base)
        self.check_places()
        self.bring_back()

    def set_bad(self, sign):
        """Makes the sectors of all groups bad with +, good with -."""
        name = os.path.basename(self.mapped.main.path)
        file = os.open(f'/sys/kernel/config/nullb/{name}/badblocks', os.O_WRONLY)
        for sector in sorted(self.dead if sign == '+' else self.all_bad()):
            os.pwrite(file, f'{sign}{sector}-{sector}'.encode(), 0)
        os.close(file)

    def all_bad(self):
        return {base + sector for base in self.bases for sector in self.bad}

    def relocate(self):
        """Relocates the blocks with bad sectors, while these are bad."""
        mapped = self.mapped
        self.main.write_all(mapped.main)
        self.set_bad('+')
        for base in self.bases:
            mapped.target.message(f'add {base + mapped.block} {3 * mapped.block}')
        self.check_dead()

    def check_dead(self):
        """Fails unless list and status tell of the unreadable sectors as they must be."""
        self.mapped.learn()
        if self.mapped.dead != self.dead:
            raise Wrong(f'these sectors should be unreadable: {sorted(self.dead - self.mapped.dead)}, '
                        f'and these should not: {sorted(self.mapped.dead - self.dead)}')
        counted = int(self.mapped.target.value('unreadable'))
        if counted != len(self.dead):
            raise Wrong(f'unreadable={counted}, but there are {len(self.dead)}')

    def read(self, start, length):
        """A read gets the data, or an error when it needs an unreadable sector."""
        found = self.mapped.read(start, length)
        if self.dead.isdisjoint(range(start, start + length)):
            compare(f'{length} sectors', start, found, self.expected.part(start, length))
        elif found is not None:
            raise Wrong(f'{length} sectors from {start} on were read, with unreadable ones among them')

    def write(self, start, length):
        """A write brings the unreadable sectors that it touches to life, and no other ones."""
        data = self.new.take(length)
        self.mapped.write(start, data)
        self.expected.set(start, data)
        for at in range(length):
            sector = start + at
            if sector not in self.dead and sector not in self.mapped.on_spare:
                self.main.set(sector, data[at * SECTOR:(at + 1) * SECTOR])
        self.dead.difference_update(range(start, start + length))

    def look(self, base):
        """Every unreadable sector of the group, and every range between them, is what the model says."""
        start, end = base, base + self.size
        for sector in sorted(self.dead.intersection(range(base, end))) + [end]:
            if start < sector:
                self.read(start, sector - start)
            if sector < end:
                self.read(sector, 1)
            start = sector + 1

    def check_places(self):
        """The data is where list says."""
        self.check_dead()
        for disk, at, count, start in self.rows():
            if disk is self.mapped.spare:
                compare(disk.path, at, disk.read(at, count), self.expected.part(start, count))

    def rows(self):
        start = 0
        for disk, at, count in self.mapped.parts(0, self.size * len(self.wanted)):
            yield disk, at, count, start
            start += count

    def bring_back(self):
        """Main has got nothing that belongs to a relocated block; then everything goes back to it."""
        self.set_bad('-')
        self.main.check_all(self.mapped.main)
        for sector in self.dead:
            # What could not be read is on main still.
            self.expected.set(sector, self.main.part(sector, 1))
        self.mapped.target.message(f'remove 0 {self.mapped.sectors}')
        self.expected.check_all(self.mapped.main)
        self.expected.check_all(self.mapped)


def main():
    verbs = {'reads': reads, 'writes': writes, 'long': long, 'unreadable': unreadable}
    if len(sys.argv) != 5 or sys.argv[4] not in verbs:
        sys.exit(__doc__)
    try:
        verbs[sys.argv[4]](Mapped(*sys.argv[1:4]))
    except Wrong as wrong:
        sys.exit(f'{wrong}')


if __name__ == '__main__':
    main()
