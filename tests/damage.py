#!/usr/bin/python3 -IS
"""Damages the metadata of sets, and looks at what becomes of them.

    damage.py COUNT [SEED]    tries all cases, COUNT random changes of pages, and a quarter as many bytes of each

It needs the disks main, first, second, smaller and larger, which must be of null_blk, and
the mapped device remap.  For each case it prints a line with tabs between
its parts: "ok" or "not ok", what is promised, and what happened instead.

The pages are made by the generator of the test vectors, which shares nothing with the
implementation.
"""

import importlib.machinery
import importlib.util
import os
import random
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from dm import TABLE_LOAD, Mapped  # noqa: E402
from refusals import Log  # noqa: E402
from sectors import Device, stamps  # noqa: E402


def load_generator():
    """tests/vectors/generate, which has no suffix that Python knows."""
    loader = importlib.machinery.SourceFileLoader('generate', f'{HERE}/vectors/generate')
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader('generate', loader))
    loader.exec_module(module)
    return module


generate = load_generator()

SECTOR, PAGE, PAGE_SECTORS, BLOCK = 512, 4096, 8, 8
MAIN_SECTORS, SPARE_SECTORS = 4096, 2048
ENTRIES, ENTRY_BYTES = 168, 24
# A sector of main that cannot be read, in a block that is relocated.
BAD = 1003
UUID = '01234567-89ab-cdef-0123-456789abcdef'
READONLY_FLAG = 1
FRONT, BACK = 0, 1
# What dmremap ends with: nothing is wrong, it can be mended, it is damaged, these spares are refused.
CLEAN, MENDABLE, DAMAGED, FAILED = 0, 1, 4, 8

# Where the fields of a page are, and how they are packed.
HEADER = {
    'magic': (0, '8s'), 'checksum': (8, 'I'), 'version': (12, 'H'), 'class': (14, 'H'), 'uuid': (16, '16s'),
    'sequence': (32, 'Q'), 'page': (40, 'I'), 'spare': (44, 'H'), 'reserved in the header': (46, 'B'),
}
SUPERBLOCK = HEADER | {
    'compat': (64, 'Q'), 'ro_compat': (72, 'Q'), 'incompat': (80, 'Q'), 'main_sectors': (88, 'Q'),
    'spare_sectors': (96, 'Q'), 'data_start': (104, 'Q'), 'created': (112, 'Q'), 'block_size': (120, 'I'),
    'state': (124, 'H'), 'spares': (126, 'H'), 'slots': (128, 'I'), 'slot_pages': (132, 'I'),
    'witness_pages': (136, 'I'), 'slot_mark': (140, 'I'), 'witness_mark': (144, 'I'), 'auto': (148, 'I'),
    'scan_interval': (152, 'I'), 'scan_rate': (156, 'I'), 'read_retries': (160, 'I'),
    'slots of spare 0': (164, 'I'), 'slots of spare 1': (168, 'I'), 'slots of spare 2': (172, 'I'),
    'main_id': (224, 'B'), 'end of main_id': (287, 'B'), 'scan_position': (288, 'Q'), 'scan_passes': (296, 'Q'),
    'scan_errors': (304, 'Q'), 'scan_ended': (312, 'Q'), 'scan_pass': (320, 'I'),
    'reserved': (324, 'Q'), 'health': (1016, 'Q'),
    'end of the page': (4088, 'Q'),
}
MOVES = {'relocated': (48, 'I'), 'relocated_auto': (52, 'I'), 'removed': (56, 'I')}
SLOTS = HEADER | MOVES | {'reserved behind the moves': (60, 'I')}
ENTRY = {'live': (0, 'Q'), 'time': (8, 'Q'), 'block': (16, 'I'), 'state': (20, 'B'), 'reserved in the entry': (21, 'B')}
SUPERBLOCKS = {'initialising': 1, 'ready': 2}


class Wrong(Exception):
    """What was found is not what was promised."""


def entry_field(at, name):
    offset, form = ENTRY[name]
    return 64 + at * ENTRY_BYTES + offset, form


def get(page, field):
    offset, form = field
    return struct.unpack_from('<' + form, page, offset)[0]


def changed(page, *changes):
    """A page with other values of some fields, and the checksum that it must have."""
    page = bytearray(page)
    for (offset, form), value in changes:
        struct.pack_into('<' + form, page, offset, value)
    struct.pack_into('<I', page, 8, generate.crc32c(page[12:]))
    return bytes(page)


def entry_of(page, at):
    """An entry: its state, live mask, time and block."""
    return tuple(get(page, entry_field(at, name)) for name in ('state', 'live', 'time', 'block'))


def with_entry(page, at, state, live, time, block):
    values = {'state': state, 'live': live, 'time': time, 'block': block}
    return changed(page, *((entry_field(at, name), value) for name, value in values.items()))


def different(some, others):
    """Which pages are not the same: the disk, and where on it."""
    return [(name, at) for name, content in some.items() if content != others[name]
            for at in range(0, len(content), PAGE) if content[at:at + PAGE] != others[name][at:at + PAGE]]


class Media:
    """The disks: what is on them, and how often they were written."""

    def __init__(self, names):
        self.devices = {name: Device(f'/dev/{name}', SPARE_SECTORS) for name in names}
        # What is on the disks, while nobody else may have written them.
        self.known = None

    def forget(self):
        """From now on somebody else may write the disks."""
        self.known = None

    def contents(self):
        """All of the spares, and of main the part before the sector that cannot be read."""
        if self.known is None:
            sectors = {'main': BAD // BLOCK * BLOCK}
            self.known = {name: device.read(0, sectors.get(name, SPARE_SECTORS))
                          for name, device in self.devices.items()}
        return self.known

    def write(self, name, sector, page):
        self.devices[name].write(sector, page)
        at, content = sector * SECTOR, self.contents()[name]
        self.known = self.known | {name: content[:at] + page + content[at + len(page):]}

    def restore(self, contents):
        """Makes the disks hold the contents; writes only the pages that are others, and neighbours together."""
        runs = []
        for name, at in different(self.contents(), contents):
            if runs and runs[-1][0] == name and runs[-1][2] == at:
                runs[-1][2] = at + PAGE
            else:
                runs.append([name, at, at + PAGE])
        for name, first, end in runs:
            self.devices[name].write(first // SECTOR, contents[name][first:end])
        self.known = self.known | contents

    def writes(self):
        """How many writes, discards and flushes each disk has had."""
        counts = []
        for name in self.devices:
            with open(f'/sys/block/{name}/stat', encoding='ascii') as stat:
                numbers = stat.read().split()
            counts.append((numbers[4], numbers[11], numbers[15]))
        return counts


class Target(Mapped):
    """The device, with a table that uses the spares or with one that does not."""

    def __init__(self, media):
        super().__init__('remap')
        self.media = media
        self.load_flags = 0
        self.log = Log()

    def request(self, number, data=b'', flags=0, **rest):
        return super().request(number, data, flags | (self.load_flags if number == TABLE_LOAD else 0), **rest)

    def activate(self, line, read_only=False):
        """Has a table used; returns whether it is, and what the log says of it."""
        self.log.new('dm_remap: ')
        self.media.forget()
        self.load_flags = READONLY_FLAG if read_only else 0
        self.load(line)
        self.load_flags = 0
        try:
            self.resume()
        except OSError as error:
            return False, f'{error.strerror}: ' + '; '.join(self.log.new('dm_remap: ', least=1))
        return True, '; '.join(self.log.new('dm_remap: ', least=1))

    def let_go(self):
        """Has a table used that touches no spare."""
        self.load('0 8 linear /dev/main 0')
        self.resume()
        self.media.forget()


def table(*spares, main='main', sectors=MAIN_SECTORS, features=''):
    paths = ' '.join(spare if spare == '-' else f'/dev/{spare}' for spare in spares)
    return f'0 {sectors} remap /dev/{main} {len(spares)} {paths} {features}'.rstrip()


class Scene:
    """A set on some spares as it should be, and what it can be made into."""

    def __init__(self, spares, target, media):
        self.spares, self.target, self.media = spares, target, media
        self.line = table(*spares)
        self.name = f'{len(spares)} spare' + 's' * (len(spares) > 1)

    def make(self, uuid):
        """Makes the set, with relocated blocks on every page, and keeps an older state of it."""
        target, media = self.target, self.media
        media.restore({name: bytes(SPARE_SECTORS * SECTOR) for name in self.spares}
                      | {name: content for name, content in media.contents().items() if name not in self.spares})
        self.must_be_up(table(*self.spares, features=f'2 uuid {uuid}'))
        with Device('/dev/mapper/remap', 256) as device:
            for first in range(0, MAIN_SECTORS, 128):
                if not first <= BAD < first + 128:
                    device.write(first, stamps('main', first, 128))
        half = 80 * len(self.spares) * BLOCK
        target.message(f'add 0 {half}')
        # The pages that are ahead of these are of one update each.
        media.forget()
        self.older = media.contents()
        media.forget()
        target.message(f'add {half} {120 * len(self.spares) * BLOCK}')
        target.message('set scan_rate 5000')
        with Device('/dev/mapper/remap', 256) as device:
            device.write(0, stamps('spare', 0, 128))
        self.list = target.list()
        target.let_go()
        self.good = media.contents()
        first = self.page(self.spares[0], 0)
        self.slot_pages = get(first, SUPERBLOCK['slot_pages'])
        self.witness_pages = get(first, SUPERBLOCK['witness_pages'])
        self.data_start = get(first, SUPERBLOCK['data_start'])

    def must_be_up(self, line, read_only=False):
        up, said = self.target.activate(line, read_only)
        if not up:
            raise Wrong(f'it was refused: {said}')
        return said

    def page(self, disk, sector, contents=None):
        return (contents or self.good)[disk][sector * SECTOR:sector * SECTOR + PAGE]

    def superblock(self, end):
        return (0, SPARE_SECTORS - PAGE_SECTORS)[end]

    def slots(self, number, end):
        back = SPARE_SECTORS - PAGE_SECTORS * (self.slot_pages + 1)
        return (PAGE_SECTORS * number, back + PAGE_SECTORS * (number - 1))[end]

    def witness(self, number):
        return PAGE_SECTORS * (self.slot_pages + number)

    def put(self, damage):
        """Restores the set, and then puts other pages in it: (disk, sector, page)."""
        self.media.restore(self.good)
        for disk, sector, page in damage:
            self.media.write(disk, sector, page)

    def both(self, spare, sectors, *changes):
        """Both copies of a page, changed."""
        page = changed(self.page(spare, sectors[0]), *changes)
        return [(spare, sector, page) for sector in sectors]

    def dmremap(self, *words):
        """The status with which dmremap ends for the spares."""
        command = ['dmremap', *words, *(f'/dev/{spare}' for spare in self.spares)]
        silent = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
        process = os.posix_spawnp(command[0], command, os.environ, file_actions=silent)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    def is_blank(self):
        """There is nothing of a set."""
        blank, contents = bytes(PAGE), self.media.contents()
        return all(self.page(spare, self.superblock(end), contents) == blank
                   for spare in self.spares for end in (FRONT, BACK))

    def activate(self, line=None, read_only=False):
        """Has the set used, which must end as dmremap says of the same spares."""
        # It does not know what else a table line says, and makes nothing of nothing.
        alike = line in (None, self.line) and not read_only and not self.is_blank()
        status = self.dmremap('check', '--main', str(MAIN_SECTORS)) if alike else None
        up, said = self.target.activate(line or self.line, read_only)
        if alike and status not in ((CLEAN, MENDABLE) if up else (DAMAGED, FAILED)):
            self.target.let_go()
            raise Wrong(f'dmremap check ends with {status}, but it was {"used" if up else f"refused: {said}"}')
        return up, said

    def activated(self, damage):
        """What an activation makes of the damage."""
        self.use(damage)
        self.target.let_go()
        return self.media.contents()

    def mends(self, damage, expected):
        """What dmremap makes of the damage is that, byte for byte; two spares show all that one does."""
        self.put(damage)
        if self.is_blank() or len(self.spares) == 1:
            return
        status = self.dmremap('repair')
        self.media.forget()
        if status not in (CLEAN, MENDABLE):
            raise Wrong(f'dmremap repair ends with {status}')
        self.differs(expected, self.media.contents())

    def use(self, damage, line=None, read_only=False):
        """Puts the damage, and activates the set; returns what was there before."""
        self.put(damage)
        before, writes = self.media.contents(), self.media.writes()
        up, said = self.activate(line, read_only)
        if not up:
            raise Wrong(f'it was refused: {said}')
        return before, writes, said

    def heals(self, damage, words=()):
        """The set is usable as it was, and every page of it is afterwards; the log has the words."""
        _, _, said = self.use(damage)
        try:
            self.is_whole()
        finally:
            self.target.let_go()
        self.differs(self.good, self.media.contents())
        self.says(said, words)
        self.mends(damage, self.good)

    @staticmethod
    def says(said, words):
        missing = [word for word in words if word not in said]
        if missing:
            raise Wrong(f'{missing} is not in: {said}')

    def stays(self):
        """The set is used, and no disk is written or flushed for it."""
        before, writes, said = self.use([])
        self.target.let_go()
        self.untouched(before, writes)
        if 'page' in said:
            raise Wrong(f'the log has: {said}')

    def is_whole(self, mode='rw'):
        if self.target.list() != self.list:
            raise Wrong('the list has changed')
        if self.target.value('mode') != mode:
            raise Wrong(f'the mode is {self.target.value("mode")}')
        if mode == 'rw':
            with Device('/dev/mapper/remap', 256) as device:
                if device.read(0, 256) != stamps('spare', 0, 128) + stamps('main', 128, 128):
                    raise Wrong('the data is not what was written')

    def differs(self, expected, found):
        for disk, at in different(expected, found):
            raise Wrong(f'sector {at // SECTOR} of {disk} is not as it should be')

    def reads_only(self, damage):
        """A read-only table uses the set, and writes nothing."""
        before, writes, _ = self.use(damage, read_only=True)
        try:
            self.is_whole('ro')
        finally:
            self.target.let_go()
        self.untouched(before, writes)

    def untouched(self, before, writes):
        if self.media.writes() != writes:
            raise Wrong('a disk was written, or flushed')
        self.differs(before, self.media.contents())

    def refused(self, damage, words, line=None, read_only=False):
        """The set is refused with these words in the log, and nothing is written."""
        self.put(damage)
        before, writes = self.media.contents(), self.media.writes()
        up, said = self.activate(line, read_only)
        self.target.let_go()
        if up:
            raise Wrong('it was not refused')
        self.untouched(before, writes)
        if not said.startswith('Invalid argument'):
            raise Wrong(f'it was refused for another reason: {said}')
        self.says(said, words)


def case(promise, command, *arguments, **options):
    """Tries a case, and prints what came of it."""
    try:
        command(*arguments, **options)
        print('ok', promise, sep='\t', flush=True)
    except (Wrong, OSError) as error:
        print('not ok', promise, ' '.join(f'{type(error).__name__}: {error}'.split()), sep='\t', flush=True)


def is_sealed(page):
    """Whether the page has its magic and its checksum."""
    return page[:8] == b'dm-remap' and get(page, HEADER['checksum']) == generate.crc32c(page[12:])


def broken(page, older):
    """Ways in which one copy of a page can be bad: what happened, and the page."""
    for how, bad in damaged(page, older):
        # What is torn may be whole by chance.
        if not is_sealed(bad):
            yield how, bad


def damaged(page, older):
    def flipped(at):
        return page[:at] + bytes([page[at] ^ 0x10]) + page[at + 1:]
    yield 'with a bit flipped in its header', flipped(35)
    yield 'with a bit flipped in its first field or entry', flipped(65)
    yield 'with a bit flipped at its end', flipped(PAGE - 1)
    yield 'with a bit flipped in its checksum', flipped(9)
    yield 'that is all zero', bytes(PAGE)
    yield 'without its magic', b'foreign!' + page[8:]
    yield 'that was torn, its first sector new', page[:SECTOR] + older[SECTOR:]
    yield 'that was torn, its last sector new', older[:-SECTOR] + page[-SECTOR:]


def pages_of(scene):
    """Each page that has two copies: what it is, the spare that it is on, and where its copies are."""
    for index, spare in enumerate(scene.spares):
        yield f'the superblock of spare {index}', spare, [scene.superblock(end) for end in (FRONT, BACK)]
        for number in range(1, scene.slot_pages + 1):
            yield f'slot page {number} of spare {index}', spare, [scene.slots(number, end) for end in (FRONT, BACK)]


def undamaged(scene):
    case(f'{scene.name}: a set without damage is used as it is', scene.heals, [])
    case(f'{scene.name}: a set without damage is not written', scene.stays)


def one_copy_bad(scene):
    for turn, (what, spare, sectors) in enumerate(pages_of(scene)):
        for end, sector in enumerate(sectors):
            ways = list(broken(scene.page(spare, sector), scene.page(spare, sector, scene.older)))
            # One spare is tried in every way, several in turn.
            for how, bad in ways if len(scene.spares) == 1 else ways[turn % 3::3]:
                promise = f'{scene.name}: {"AB"[end]} of {what}, {how}, is mended'
                case(promise, scene.heals, [(spare, sector, bad)])
        bad = [(spare, sectors[0], bytes(PAGE))]
        case(f'{scene.name}: A of {what} is zero, and a read-only table writes nothing', scene.reads_only, bad)
    everything = [(spare, sectors[at % 2], bytes(PAGE)) for at, (_, spare, sectors) in enumerate(pages_of(scene))]
    case(f'{scene.name}: one copy of every page is zero, and mended', scene.heals, everything)
    case(f'{scene.name}: and a read-only table writes nothing then', scene.reads_only, everything)


def any_byte_bad(scene, count, seed):
    """Bytes all over the pages, each changed in one copy of every page at once."""
    chance = random.Random(seed)
    step = max(1, PAGE // count)
    for turn, at in enumerate(range(chance.randrange(step), PAGE, step)):
        places = [(spare, sectors[(turn + number) % 2]) for number, (_, spare, sectors) in enumerate(pages_of(scene))]
        if len(scene.spares) > 1:
            places += [(spare, scene.witness(number)) for spare in scene.spares
                       for number in range(1, scene.slot_pages + 1)]
        damage = []
        for spare, sector in places:
            page = bytearray(scene.page(spare, sector))
            page[at] ^= 1 << chance.randrange(8)
            damage.append((spare, sector, bytes(page)))
        try:
            scene.heals(damage)
        except Wrong as error:
            raise Wrong(f'byte {at} of seed {seed}: {error}') from error


def old_pages(scene):
    """Both copies of a page put back to an older state, which nothing on the spare contradicts."""
    for what, spare, sectors in pages_of(scene):
        damage = [(spare, sector, scene.page(spare, sector, scene.older)) for sector in sectors]
        case(f'{scene.name}: both copies of {what} are older, and the kernel stays what it is', survives, scene,
             damage, scene.line, False)


def witness_bad(scene):
    for index, spare in enumerate(scene.spares):
        for number in range(1, scene.slot_pages + 1):
            sector = scene.witness(number)
            page = scene.page(spare, sector)
            for how, bad in broken(page, scene.page(spare, sector, scene.older)):
                case(f'{scene.name}: witness page {number} on spare {index}, {how}, is mended',
                     scene.heals, [(spare, sector, bad)])
            other = scene.page(scene.spares[1 - index], sector)
            case(f'{scene.name}: witness page {number} on spare {index} of another spare is mended',
                 scene.heals, [(spare, sector, other)])
            case(f'{scene.name}: witness page {number} on spare {index} is bad, and a read-only table writes nothing',
                 scene.reads_only, [(spare, sector, bytes(PAGE))])
            line = table(*('-' if at != index else name for at, name in enumerate(scene.spares)))
            case(f'{scene.name}: witness page {number} on spare {index} is bad while the other spare is missing',
                 scene.refused, [(spare, sector, bytes(PAGE))],
                 [f'spare {1 - index} is missing', f'page {number} of spare {index}', 'is all zero', 'give the spare back'],
                 line=line)
            bad_entry = changed(page, (entry_field(3, 'state'), 7))
            case(f'{scene.name}: witness page {number} on spare {index} has a bad entry while the other spare is missing',
                 scene.refused, [(spare, sector, bad_entry)],
                 [f'page {number} of spare {index}', 'has a bad slot state', 'give the spare back'], line=line)
            for what, change in contradictions(page):
                case(f'{scene.name}: witness page {number} on spare {index} with {what} is mended', scene.heals,
                     [(spare, sector, changed(page, change))],
                     [f'witness page {number} of spare {index} contradicts the slot page of spare {1 - index}'])


def contradictions(page):
    """What a witness page can say otherwise under the same sequence number."""
    for what, field in (('another live mask', entry_field(3, 'live')), ('another block', entry_field(3, 'block')),
                        ('another time', entry_field(3, 'time')), ('an unknown state', entry_field(3, 'state')),
                        ('another entry at the end', entry_field(ENTRIES - 1, 'live')),
                        ('another number of relocated blocks', MOVES['relocated'])):
        yield what, (field, get(page, field) ^ 8)


def both_copies_bad(scene):
    for what, spare, sectors in pages_of(scene):
        front, back = (list(broken(scene.page(spare, sector), scene.page(spare, sector, scene.older)))
                       for sector in sectors)
        index = scene.spares.index(spare)
        for (how, one), (_, other) in zip(front, back[1:] + back[:1]):
            words = [f'spare {index}']
            words += ['is refused: it'] if 'superblock' in what else [f'slot page {what.split()[2]}', 'cannot be used']
            words += ['zero its'] if b'foreign!' in (one[:8], other[:8]) and 'superblock' in what else ['"-"']
            case(f'{scene.name}: both copies of {what} are bad, one {how}', scene.refused,
                 [(spare, sectors[0], one), (spare, sectors[1], other)], words)
        if 'superblock' not in what:
            zero = [(spare, sector, bytes(PAGE)) for sector in sectors]
            case(f'{scene.name}: both copies of {what} are zero', scene.refused, zero,
                 [f'slot page {what.split()[2]} of spare {index}', 'cannot be used'])
            case(f'{scene.name}: both copies of {what} are zero, and the table is read-only', scene.refused, zero,
                 [f'slot page {what.split()[2]} of spare {index}', 'cannot be used'], read_only=True)
        elif len(scene.spares) > 1:
            zero = [(spare, sector, bytes(PAGE)) for sector in sectors]
            case(f'{scene.name}: both copies of {what} are zero', scene.refused, zero,
                 [f'spare {index} is all zero', 'name the right device'])


def copies_of_different_age(scene):
    for what, spare, sectors in pages_of(scene):
        for end, sector in enumerate(sectors):
            older = scene.page(spare, sector, scene.older)
            if older != scene.page(spare, sector):
                case(f'{scene.name}: {"AB"[end]} of {what} is older, and gets what the other one has', scene.heals,
                     [(spare, sector, older)])
                case(f'{scene.name}: {"AB"[end]} of {what} is older, and a read-only table writes nothing',
                     scene.reads_only, [(spare, sector, older)])
        page = scene.page(spare, sectors[0])
        field = SUPERBLOCK['scan_interval'] if 'superblock' in what else MOVES['removed']
        contradiction = changed(page, (field, get(page, field) ^ 1))
        case(f'{scene.name}: two copies of {what} with one sequence number say different things', scene.refused,
             [(spare, sectors[1], contradiction)],
             [f'spare {scene.spares.index(spare)}', 'the other copy has the same one'])


def behind(scene):
    """What a crash leaves between the updates of two spares."""
    for index, spare in enumerate(scene.spares):
        older = [(spare, scene.superblock(end), scene.page(spare, 0, scene.older)) for end in (FRONT, BACK)]
        case(f'{scene.name}: a superblock of spare {index} that is behind is brought up to date',
             catches_up, scene, older)
        case(f'{scene.name}: a superblock of spare {index} is behind, and a read-only table writes nothing',
             scene.reads_only, older)
        sector = scene.witness(1)
        page = scene.page(spare, sector)
        ahead = changed(page, (HEADER['sequence'], get(page, HEADER['sequence']) + 1),
                        (entry_field(ENTRIES - 1, 'live'), 1), (entry_field(ENTRIES - 1, 'time'), 1),
                        (entry_field(ENTRIES - 1, 'block'), MAIN_SECTORS // BLOCK - 1),
                        (entry_field(ENTRIES - 1, 'state'), 1))
        case(f'{scene.name}: a witness page on spare {index} that is ahead gets what the slot page has', scene.heals,
             [(spare, sector, ahead)])


def catches_up(scene, damage):
    scene.use(damage)
    try:
        scene.is_whole()
        table_line = scene.target.table()
    finally:
        scene.target.let_go()
    if 'scan_rate 5000' not in table_line:
        raise Wrong(f'the newest option is not used: {table_line}')
    now = scene.media.contents()
    for spare in scene.spares:
        for end in (FRONT, BACK):
            if get(scene.page(spare, scene.superblock(end), now), SUPERBLOCK['scan_rate']) != 5000:
                raise Wrong(f'{"AB"[end]} of the superblock of {spare} is behind')


def misplaced(scene, foreign):
    """Good pages where they do not belong; foreign is what another set has on the same spares."""
    for index, spare in enumerate(scene.spares):
        copies = {number: [scene.slots(number, end) for end in (FRONT, BACK)] for number in (1, 2)}
        swapped = [(spare, copies[number][end], scene.page(spare, copies[3 - number][end]))
                   for number in (1, 2) for end in (FRONT, BACK)]
        words = [f'of spare {index}', 'belongs to another place']
        case(f'{scene.name}: slot pages of spare {index} exchanged in A are mended', scene.heals, swapped[0::2])
        case(f'{scene.name}: slot pages of spare {index} exchanged in B are mended', scene.heals, swapped[1::2])
        case(f'{scene.name}: slot pages of spare {index} exchanged in both copies', scene.refused, swapped, words)
        others = [(spare, sector, scene.page(spare, sector, foreign)) for sector in copies[1]]
        case(f'{scene.name}: a slot page of another set in A of spare {index} is mended', scene.heals, others[:1])
        case(f'{scene.name}: a slot page of another set in both copies of spare {index}', scene.refused, others, words)
        other = [(spare, scene.superblock(end), scene.page(spare, 0, foreign)) for end in (FRONT, BACK)]
        case(f'{scene.name}: a superblock of another set in A of spare {index}', scene.refused, other[:1],
             [f'spare {index} is refused', 'belongs to another place'])
        if len(scene.spares) > 1:
            case(f'{scene.name}: a superblock of another set in both copies of spare {index}', scene.refused, other,
                 ['belongs to the set', 'name spares of one set'])
            neighbour = scene.spares[1 - index]
            theirs = [(spare, sector, scene.page(neighbour, sector)) for sector in copies[1]]
            case(f'{scene.name}: a slot page of the other spare in A of spare {index} is mended',
                 scene.heals, theirs[:1])
            case(f'{scene.name}: a slot page of the other spare in both copies of spare {index}', scene.refused,
                 theirs, words)
            theirs = [(spare, scene.superblock(end), scene.page(neighbour, 0)) for end in (FRONT, BACK)]
            case(f'{scene.name}: a superblock of the other spare in both copies of spare {index}', scene.refused,
                 theirs, ['in the order of the set'])
    if len(scene.spares) > 1:
        case(f'{scene.name}: two spares exchanged in the table line', scene.refused, [],
             ['spare 0 of the table line is spare 1', 'in the order'], line=table(*reversed(scene.spares)))
    for main, sectors in ('smaller', 2048), ('larger', 6144):
        case(f'{scene.name}: a {main} main', scene.refused, [],
             [f'main_dev has {sectors} sectors', f'main of {MAIN_SECTORS}', 'name the main'],
             line=table(*scene.spares, main=main, sectors=2048))


def features(scene):
    for index, spare in enumerate(scene.spares):
        copies = [scene.superblock(end) for end in (FRONT, BACK)]
        for bit in (0, 63):
            known = f'{scene.name}: bit {bit} of'
            unknown = scene.both(spare, copies, (SUPERBLOCK['incompat'], 1 << bit))
            words = [f'spare {index} is refused', f'unknown incompatible features {1 << bit:#x}', 'use a dm-remap that']
            case(f'{known} incompat on spare {index}', scene.refused, unknown, words)
            case(f'{known} incompat in one copy on spare {index}', scene.refused, unknown[1:], words)
            case(f'{known} incompat on spare {index}, read-only', scene.refused, unknown, words, read_only=True)
            unknown = scene.both(spare, copies, (SUPERBLOCK['ro_compat'], 1 << bit))
            case(f'{known} ro_compat on spare {index}', scene.refused, unknown,
                 [f'spare {index} has features {1 << bit:#x}', 'use a newer one, or a read-only table'])
            case(f'{known} ro_compat on spare {index}, read-only', scene.reads_only, unknown)
            case(f'{known} compat on spare {index} is kept', keeps, scene,
                 scene.both(spare, copies, (SUPERBLOCK['compat'], 1 << bit), (SUPERBLOCK['reserved'], 0x1234),
                            (SUPERBLOCK['health'], 0x9ABC),
                            (SUPERBLOCK['end of the page'], 0x5678)), spare)
        version = scene.both(spare, copies, (HEADER['version'], 2))
        case(f'{scene.name}: another version on spare {index}', scene.refused, version,
             [f'spare {index} is refused', 'has format version 2', 'use a dm-remap that'])
        reserved = scene.both(spare, copies, (SUPERBLOCK['end of the page'], 1))
        case(f'{scene.name}: reserved bytes on spare {index} without a feature', scene.refused, reserved,
             [f'spare {index} is refused', 'has a bad reserved byte'])


def passes_last(scene):
    """What the newest superblock says of the background pass is known at every activation, and kept by all spares."""
    fields = {'scan_position': 2048, 'scan_passes': 1 << 40, 'scan_errors': (1 << 64) - 1, 'scan_ended': (1 << 32) - 1}
    spare = scene.spares[-1]
    superblocks = [scene.superblock(end) for end in (FRONT, BACK)]
    newest = max(get(scene.page(name, 0), HEADER['sequence']) for name in scene.spares)
    scene.use(scene.both(spare, superblocks, (HEADER['sequence'], newest + 1),
                         *((SUPERBLOCK[name], value) for name, value in fields.items())))
    scene.target.message('set scan_rate 6000')
    scene.target.let_go()
    for name in scene.spares:
        for sector in superblocks:
            page = scene.page(name, sector, scene.media.contents())
            if any(get(page, SUPERBLOCK[field]) != value for field, value in fields.items()):
                raise Wrong(f'{name} does not say it')
    before, writes = scene.media.contents(), scene.media.writes()
    scene.must_be_up(scene.line)
    try:
        shown = [int(scene.target.value(key)) for key in ('scan_pos', 'scan_passes', 'scan_errors')]
    finally:
        scene.target.let_go()
    if shown != list(fields.values())[:3]:
        raise Wrong(f'the status has {shown}')
    scene.untouched(before, writes)


def keeps(scene, damage, spare):
    """What belongs to unknown features outlives a change of the superblock."""
    scene.use(damage)
    try:
        scene.is_whole()
        scene.target.message('set scan_rate 6000')
    finally:
        scene.target.let_go()
    now = scene.media.contents()
    for sector in (scene.superblock(FRONT), scene.superblock(BACK)):
        page = scene.page(spare, sector, now)
        for field in 'compat', 'reserved', 'health', 'end of the page':
            if get(page, SUPERBLOCK[field]) != get(damage[0][2], SUPERBLOCK[field]):
                raise Wrong(f'{field} was not kept')
        if get(page, SUPERBLOCK['scan_rate']) != 6000:
            raise Wrong('the superblock was not written')


def interrupted(scene):
    """The making of a set, cut after each step, and again in a second attempt."""
    def state(name, sequence, spare):
        page = scene.page(spare, 0)
        return changed(page, (SUPERBLOCK['state'], SUPERBLOCKS[name]), (SUPERBLOCK['slot_mark'], 0),
                       (SUPERBLOCK['witness_mark'], 0), (HEADER['sequence'], sequence))
    zero = [bytes(PAGE)] * 2
    after = [(f'attempt {attempt}, {step} of step 1', 'initialising', attempt, copies)
             for attempt in (1, 2) for step, copies in (('A', 1), ('B', 2))]
    for when, name, attempt, copies in after:
        for done in range(len(scene.spares)):
            # The spares before this one are through this step.
            damage = []
            for index, spare in enumerate(scene.spares):
                pages = list(zero)
                if attempt == 2:
                    pages[0] = state(name, 1 + index, spare)
                fresh = state(name, attempt * 8 + index, spare)
                if index < done:
                    pages = [fresh, fresh]
                elif index == done:
                    pages[:copies] = [fresh] * copies
                damage += [(spare, scene.superblock(end), pages[end]) for end in (FRONT, BACK)]
            case(f'{scene.name}: a making interrupted after {when} on spare {done} is finished',
                 finishes, scene, damage)
    for copies in (1, 2):
        for done in range(len(scene.spares)):
            damage = []
            for index, spare in enumerate(scene.spares):
                pages = [state('initialising', 1 + index, spare)] * 2
                ready = state('ready', 5 + index, spare)
                if index < done:
                    pages = [ready, ready]
                elif index == done:
                    pages[:copies] = [ready] * copies
                damage += [(spare, scene.superblock(end), pages[end]) for end in (FRONT, BACK)]
            case(f'{scene.name}: a making interrupted after {"AB"[copies - 1]} of step 2 on spare {done} is finished',
                 finishes, scene, damage)
    damage = []
    for index, spare in enumerate(scene.spares):
        page = changed(state('initialising', 1 + index, spare), (SUPERBLOCK['slot_mark'], scene.slot_pages))
        damage += [(spare, scene.superblock(end), page) for end in (FRONT, BACK)]
        damage += scene.both(spare, [scene.slots(1, end) for end in (FRONT, BACK)], (SLOTS['reserved behind the moves'], 1))
    case(f'{scene.name}: a making that was interrupted is finished whatever is in the place of the slot pages',
         finishes, scene, damage)
    spare = scene.spares[-1]
    case(f'{scene.name}: an initialising copy beside somebody\'s data is refused', scene.refused,
         [(spare, 0, state('initialising', 1, spare)), (spare, scene.superblock(BACK), stamps('data', 0, 8))],
         ['its initialisation was interrupted, and since then one copy', 'zero its first and last'])
    for index, spare in enumerate(scene.spares):
        damage = [(spare, scene.superblock(end), state('initialising', 1, spare) if end else bytes(PAGE))
                  for end in (FRONT, BACK)]
        if len(scene.spares) == 1:
            case(f'{scene.name}: a read-only table finishes nothing on spare {index}', scene.refused, damage,
                 ['is not initialised, which a read-only table cannot do'], read_only=True)
            continue
        for read_only in False, True:
            case(f'{scene.name}: spare {index} is not begun anew when the others know that it was used'
                 f'{", nor read-only" if read_only else ""}', scene.refused, damage,
                 [f'spare {index} contradicts another spare of its set'], read_only=read_only)


def finishes(scene, damage):
    """The set is made, under the uuid that it had, and is the same at the next activation."""
    started = any(any(page) for _, _, page in damage)
    scene.mends(damage, scene.activated(damage))
    scene.use(damage)
    try:
        scene.target.message('add 64 8')
        found, spares = len(scene.target.list()), scene.target.value('spares')
    finally:
        scene.target.let_go()
    if (found, spares) != (1, f'{len(scene.spares)}/{len(scene.spares)}'):
        raise Wrong(f'{found} blocks and {spares} spares')
    now = scene.media.contents()
    for spare in scene.spares:
        front, back = (scene.page(spare, scene.superblock(end), now) for end in (FRONT, BACK))
        if front != back or get(front, SUPERBLOCK['state']) != SUPERBLOCKS['ready']:
            raise Wrong(f'the superblock of {spare} is not whole')
        if started and get(front, HEADER['uuid']) != get(scene.page(spare, 0), HEADER['uuid']):
            raise Wrong('the uuid is another one')
    scene.must_be_up(scene.line)
    found = len(scene.target.list())
    scene.target.let_go()
    if found != 1:
        raise Wrong(f'{found} blocks at the next activation')
    scene.differs(now, scene.media.contents())


def hole_and_entry(scene, spare, number=1):
    """A slot page, the number of a free entry that was made in it, and an entry in use."""
    page = scene.page(spare, scene.slots(number, FRONT))
    hole = 7
    used = entry_of(page, 3)
    return with_entry(page, hole, 0, 0, 0, 0), hole, used


def duplicates(scene):
    for index, spare in enumerate(scene.spares):
        page, hole, (state, live, time, block) = hole_and_entry(scene, spare)
        copies = [scene.slots(1, end) for end in (FRONT, BACK)]
        for where, (other, sectors) in enumerate((spare, copies) for spare in scene.spares):
            into = page if other == spare else hole_and_entry(scene, other)[0]
            for by, wins in (5, True), (-5, False):
                twice = with_entry(into, hole, state, live, time + by, block)
                damage = [(spare, sector, page) for sector in copies] + [(other, sector, twice) for sector in sectors]
                case(f'{scene.name}: of two entries on spares {index} and {where} the later wins, the '
                     f'{"second" if wins else "first"}', one_wins, scene, damage, block,
                     (other, hole) if wins else (spare, 3), (spare, 3) if wins else (other, hole))
            twice = with_entry(into, hole, state, live, time, block)
            damage = [(spare, sector, page) for sector in copies] + [(other, sector, twice) for sector in sectors]
            case(f'{scene.name}: two entries on spares {index} and {where} of the same time', scene.refused, damage,
                 [f'block {block} is in two slots', 'same time', 'give a good copy'])


def one_wins(scene, damage, block, winner, loser):
    """The block lives where the later entry says, and the other one is freed on the media."""
    scene.mends(damage, scene.activated(damage))
    scene.use(damage)
    try:
        lines = [line for line in scene.target.list() if int(line[0]) == block * BLOCK]
    finally:
        scene.target.let_go()
    spare, at = winner
    expected = [str(scene.spares.index(spare)), str(scene.data_start + at * BLOCK)]
    if len(lines) != 1 or lines[0][2:4] != expected:
        raise Wrong(f'the list says {lines}, not {expected}')
    now = scene.media.contents()
    for end in (FRONT, BACK):
        spare, at = loser
        freed = entry_of(scene.page(spare, scene.slots(1, end), now), at)
        spare, at = winner
        kept = entry_of(scene.page(spare, scene.slots(1, end), now), at)
        if any(freed) or kept[3] != block or not kept[0]:
            raise Wrong(f'{"AB"[end]} has {freed} where nothing should be, and {kept}')
    scene.must_be_up(scene.line)
    scene.target.let_go()
    scene.differs(now, scene.media.contents())


def hostile_entries(scene):
    """Entries that no writer makes, in both copies."""
    beyond = ENTRIES * (scene.slot_pages - 1)
    last = get(scene.page(scene.spares[0], 0), SUPERBLOCK['slots']) - beyond
    hostile = [
        ('a block beyond main', 1, 3, {'block': MAIN_SECTORS // BLOCK}, 'beyond the end of main'),
        ('the last block number', 1, 3, {'block': 0xFFFFFFFF}, 'beyond the end of main'),
        ('a live bit beyond the block', 1, 3, {'live': 0x1FF}, 'a sector beyond the block'),
        ('all live bits', 1, 3, {'live': (1 << 64) - 1}, 'a sector beyond the block'),
        ('a time beyond 2^32', 1, 3, {'time': 1 << 32}, 'bad relocation time'),
        ('an unknown state', 1, 3, {'state': 7}, 'bad slot state'),
        ('another unknown state', 1, 3, {'state': 254}, 'bad slot state'),
        ('a reserved byte', 1, 3, {'reserved in the entry': 1}, 'reserved byte in a slot entry'),
        ('a free entry that is not empty', 1, 3, {'state': 0}, 'holds nothing but is not zero'),
        ('a retired entry that is not empty', 1, 3, {'state': 255}, 'holds nothing but is not zero'),
        ('an entry beyond the last slot', scene.slot_pages, last, {'state': 1, 'live': 1, 'time': 1, 'block': 511},
         'the spare has no such slot'),
        ('something in the very last entry', scene.slot_pages, ENTRIES - 1, {'reserved in the entry': 1},
         'the spare has no such slot'),
        ('more blocks relocated by themselves than at all', 1, None, {'relocated_auto': 1 << 31},
         'number of relocated blocks'),
        ('something behind the numbers', 1, None, {'reserved behind the moves': 1}, 'reserved byte'),
    ]
    for index, spare in enumerate(scene.spares):
        for turn, (what, number, at, values, words) in enumerate(hostile):
            sectors = [scene.slots(number, end) for end in (FRONT, BACK)]
            fields = ((SLOTS[name] if at is None else entry_field(at, name), value) for name, value in values.items())
            damage = scene.both(spare, sectors, *fields)
            case(f'{scene.name}: {what} on spare {index}', scene.refused, damage,
                 [f'slot page {number} of spare {index}', words, 'give a good copy of the spare'])
            sequence = get(scene.page(spare, sectors[0]), HEADER['sequence'])
            # One end is newer, the other one as old, in turn.
            for end, by in enumerate((turn + index & 1, turn + index + 1 & 1)):
                one = [(spare, sectors[end], changed(damage[end][2], (HEADER['sequence'], sequence + by)))]
                how = 'newer copy' if by else 'copy'
                case(f'{scene.name}: {what} in the {how} {"AB"[end]} on spare {index} is mended from the other',
                     scene.heals, one, [f'slot page {number} of spare {index}: the {("first", "second")[end]} copy has',
                                        words])
            if not by:
                case(f'{scene.name}: {what} in one copy on spare {index}, and a read-only table writes nothing',
                     scene.reads_only, one)


def lifetime(scene):
    """How many blocks have moved is counted in the pages, for ever."""
    case(f'{scene.name}: the status counts what was relocated before', counts, scene, [])
    for index, spare in enumerate(scene.spares):
        numbers = {'relocated': (1 << 32) - 1, 'relocated_auto': 1 << 31, 'removed': 7}
        copies = [scene.slots(2, end) for end in (FRONT, BACK)]
        damage = scene.both(spare, copies, *((MOVES[name], value) for name, value in numbers.items()))
        case(f'{scene.name}: whatever the pages of spare {index} say, it is counted', counts, scene, damage)
        if len(scene.spares) > 1:
            line = table(*('-' if at == index else name for at, name in enumerate(scene.spares)))
            case(f'{scene.name}: the numbers of spare {index} are known when it is missing', counts, scene, [], line)


def counts(scene, damage, line=None):
    """The status has the sums of all pages, and so has the next activation when blocks have moved."""
    scene.use(damage, line)
    try:
        compare_counts(scene)
        if any(f'{name}=0' not in scene.target.message('stats').split() for name in MOVES):
            raise Wrong('the activation counts as something that was done since')
        if line:
            return
        before = {name: int(scene.target.value(name)) for name in MOVES}
        scene.target.message('add 3400 64')
        scene.target.message('remove 3400 32')
        after = {name: int(scene.target.value(name)) for name in MOVES}
        if after != before | {'relocated': before['relocated'] + 8, 'removed': before['removed'] + 4}:
            raise Wrong(f'{before} became {after}')
    finally:
        scene.target.let_go()
    scene.must_be_up(scene.line)
    try:
        compare_counts(scene, scene.media.contents())
        if not damage and {name: int(scene.target.value(name)) for name in MOVES} != after:
            raise Wrong('the next activation counts otherwise')
    finally:
        scene.target.let_go()


def compare_counts(scene, contents=None):
    """The status has the sums of what the slot pages say."""
    contents = contents or scene.media.contents()
    for name, field in MOVES.items():
        expected = sum(get(scene.page(spare, scene.slots(number, FRONT), contents), field)
                       for spare in scene.spares for number in range(1, scene.slot_pages + 1))
        if int(scene.target.value(name)) != expected:
            raise Wrong(f'{name} is {scene.target.value(name)}, not {expected}')


def hostile_sizes(scene):
    """Only the other spare says how large a missing one is."""
    for index, spare in enumerate(scene.spares):
        line = table(*('-' if at != index else name for at, name in enumerate(scene.spares)))
        for slots in 1, (1 << 27) - 1:
            damage = scene.both(spare, [scene.superblock(end) for end in (FRONT, BACK)],
                                (SUPERBLOCK[f'slots of spare {1 - index}'], slots))
            case(f'{scene.name}: spare {index} says of the missing one that it has {slots} slots', survives, scene,
                 damage, line, False)


def interesting(form, old, chance):
    """Another value for a field."""
    bits = struct.calcsize('<' + form) * 8
    if form.endswith('s'):
        return chance.randbytes(struct.calcsize(form))
    return chance.choice([0, 1, 2, 8, 64, (1 << bits) - 1, 1 << bits - 1, (1 << bits - 1) - 1, old + 1, old - 1,
                          old ^ 1 << chance.randrange(bits), chance.getrandbits(bits)]) % (1 << bits)


def random_damage(scene, chance):
    """Pages with valid checksums and random values in them."""
    damage = []
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        index = chance.randrange(len(scene.spares))
        spare = scene.spares[index]
        kind = chance.choice(['superblock', 'slots', 'slots', 'slots'] + ['witness'] * (len(scene.spares) > 1))
        number = chance.randint(1, scene.slot_pages)
        if kind == 'superblock':
            sectors, fields = [scene.superblock(end) for end in (FRONT, BACK)], list(SUPERBLOCK.values())
        else:
            sectors = [scene.slots(number, end) for end in (FRONT, BACK)]
            if kind == 'witness':
                sectors = [scene.witness(number)]
            fields = [entry_field(chance.randrange(ENTRIES), name) for name in ENTRY for _ in range(3)] \
                + list(SLOTS.values())
        page = scene.page(spare, sectors[0])
        changes = []
        for field in chance.sample(fields[1:], chance.choice([1, 1, 2, 3])):
            if field != HEADER['checksum']:
                changes.append((field, interesting(field[1], get(page, field), chance)))
        if kind != 'superblock' and chance.random() < 0.5:
            # An entry that is whole, but somewhere else, or twice.
            values = list(entry_of(page, chance.randrange(ENTRIES)))
            if values[0]:
                values[2] += chance.choice([0, 1, -1])
            at = chance.randrange(ENTRIES)
            changes += zip((entry_field(at, name) for name in ('state', 'live', 'time', 'block')), values)
        if kind == 'slots' and chance.random() < 0.1:
            # One block in more slots than there is any reason for.
            for at in range(chance.randrange(2, ENTRIES)):
                changes += zip((entry_field(at, name) for name in ('state', 'live', 'time', 'block')), (1, 255, at, 20))
        page = changed(page, *changes)
        # Mostly both copies, because otherwise the other one counts or they contradict each other.
        if len(sectors) == 2 and chance.random() < 0.2:
            sectors = [chance.choice(sectors)]
        damage += [(spare, sector, page) for sector in sectors]
    return damage


def places_are_distinct(scene):
    """No two sectors share a place: every block is listed once, and no slot holds two."""
    blocks, places = set(), set()
    for sector, sectors, spare, place, live, *_ in scene.target.list():
        first, count = int(sector), int(sectors)
        if first in blocks or place != '-' and (spare, place) in places:
            raise Wrong(f'sector {sector} or its place {place} of spare {spare} is listed twice')
        blocks.add(first)
        places.add((spare, place))
        if first % BLOCK or count != BLOCK or first + count > MAIN_SECTORS or int(live, 16) >> count:
            raise Wrong(f'the list has the block {sector}, {sectors} sectors, live {live}')
        if int(spare) >= len(scene.spares):
            raise Wrong(f'the list has the spare {spare}')
        if place != '-' and (int(place) % BLOCK or not scene.data_start <= int(place) <= scene.slots(1, BACK) - count):
            raise Wrong(f'the list has sector {place} of spare {spare}, which is none of its slots')


def may_scan(scene, damage):
    """Whether an activation may begin a background pass, or go on with one, and write that down, which dmremap does not."""
    fields = [SUPERBLOCK[name] for name in ('scan_interval', 'scan_ended', 'scan_pass')]
    superblocks = [scene.superblock(end) for end in (FRONT, BACK)]
    return any(get(page, field) != get(scene.page(spare, sector), field)
               for spare, sector, page in damage if sector in superblocks for field in fields)


def survives(scene, damage, line, read_only):
    """Whatever the pages say, the kernel stays what it is; returns whether they were used."""
    scene.put(damage)
    before, writes = scene.media.contents(), scene.media.writes()
    missing = '-' in line.split()
    up, said = scene.activate(line, read_only)
    try:
        if up:
            places_are_distinct(scene)
            if not read_only and not missing:
                for message in 'add 3500 24', 'remove 0 16', 'set read_retries 2':
                    try:
                        scene.target.message(message)
                    except OSError:
                        pass
                with Device('/dev/mapper/remap', 256) as device:
                    try:
                        device.write(0, stamps('new', 0, 128))
                    except OSError:
                        pass
                    device.read(0, 256)
                places_are_distinct(scene)
    finally:
        scene.target.let_go()
    if missing or read_only or said.startswith('Invalid argument'):
        scene.untouched(before, writes)
    if not up and 'dm_remap: ' not in said:
        raise Wrong(f'it was refused without a sentence: {said}')
    if up and not read_only and not missing and not may_scan(scene, damage):
        scene.mends(damage, scene.activated(damage))
    return up


def random_changes(scene, count, seed):
    chance = random.Random(seed)
    used = 0
    for number in range(count):
        damage = random_damage(scene, chance)
        spares = list(scene.spares)
        if len(spares) > 1 and chance.random() < 0.2:
            spares[chance.randrange(len(spares))] = '-'
        try:
            used += survives(scene, damage, table(*spares), chance.random() < 0.15)
        except (Wrong, OSError) as error:
            raise Wrong(f'change {number} of seed {seed}: {error}') from error
    if not 0 < used < count:
        raise Wrong(f'{used} of {count} were used, so this says nothing')


def main(count, seed=None):
    seed = random.randrange(1 << 32) if seed is None else seed
    media = Media(['main', 'first', 'second'])
    with open('/sys/kernel/config/nullb/main/badblocks', 'w', encoding='ascii') as bad:
        bad.write(f'+{BAD}-{BAD}')
    target = Target(media)
    target.let_go()
    for spares in ['first'], ['first', 'second']:
        foreign = Scene(spares, target, media)
        foreign.make('00000000-0000-0000-0000-000000000001')
        scene = Scene(spares, target, media)
        scene.make(UUID)
        undamaged(scene)
        one_copy_bad(scene)
        some = max(1, count // 4)
        case(f'{scene.name}: a changed byte, of {some} in each page, is mended', any_byte_bad, scene, some, seed)
        old_pages(scene)
        if len(spares) > 1:
            witness_bad(scene)
            behind(scene)
            hostile_sizes(scene)
        both_copies_bad(scene)
        copies_of_different_age(scene)
        misplaced(scene, foreign.good)
        features(scene)
        interrupted(scene)
        duplicates(scene)
        hostile_entries(scene)
        lifetime(scene)
        case(f'{scene.name}: what is known of the background pass lasts', passes_last, scene)
        half = count // 2
        case(f'{scene.name}: {half} random changes with valid checksums do no harm',
             random_changes, scene, half, seed)


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
