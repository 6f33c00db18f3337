#!/usr/bin/python3 -IS
"""Table lines and messages as nobody would write them, by the thousand.

    hostile.py tables COUNT SEED      tries random table lines
    hostile.py messages COUNT SEED    sends random messages

Both are made from a grammar of what is right, with some changes.  They need the disks main,
first, second, third, coarse and zoned, which must be of null_blk, and the mapped devices
hostile and tiny.  What is printed is what damage.py prints.  With the same seed the same is
tried again.
"""

import errno
import os
import random
import re
import string
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from dm import TABLE_LOAD, Mapped, target_of  # noqa: E402
from messages import LIST, LOOKUP, STATS, STATUS  # noqa: E402
from refusals import Log  # noqa: E402
from sectors import Device  # noqa: E402

DISKS = 'main first second third coarse zoned'.split()
SPARES = DISKS[1:4]
BLOCK, PAGE_SECTORS = 8, 8
READONLY_FLAG = 1
UUID = b'01234567-89ab-cdef-0123-456789abcdef'

# What has to be named by the sentence with which a table line is refused.
ARGUMENTS = ('main_dev', '#spares', 'spare_dev', '#feature_args', 'block_size', 'manual', 'scan_interval',
             'scan_rate', 'read_retries', 'main_id', 'uuid', 'unknown feature argument')
REFUSAL = re.compile(r'device-mapper: table: \d+:\d+: remap: (.*) \(-E[A-Z0-9]+\)')
# What device mapper itself finds wrong, where the target is not asked.
NOT_ASKED = re.compile(r'device-mapper: table: \d+:\d+: (zero-length target|too large device|remap: Gap in table'
                       r'|.*not aligned to h/w logical block size)')

EDGES = [0, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100, 101, 127, 128, 511, 512, 1000] \
    + [(1 << bits) + by for bits in (12, 15, 16, 27, 31, 32, 33, 40, 54, 55, 56, 62, 63, 64, 65, 128) for by in (-1, 0, 1)]

MOST_TOLD = 5


class Wrong(Exception):
    """What was found is not what was promised."""


def number(chance):
    """A number, in most cases a word that is one."""
    value = chance.choice(EDGES) if chance.random() < 0.8 else chance.getrandbits(chance.randint(1, 70))
    form = chance.choice(['{}'] * 12 + ['-{}', '+{}', '0x{:x}', '{}.0', '0{}', '{}k', ' {}', '{}_0', '000000000000000000000{}'])
    return form.format(value).encode()


def noise(chance):
    """A word that has no place anywhere."""
    kind = chance.randrange(8)
    if kind == 0:
        return b''
    if kind == 1:
        return chance.randbytes(chance.randint(1, 12)).replace(b'\0', b'\1')
    if kind == 2:
        return bytes([chance.randint(33, 126)]) * chance.choice([1, 63, 64, 65, 127, 128, 255, 256, 1023, 4095, 4096, 20000])
    if kind == 3:
        return chance.choice([b'-', b'--', b'%s%n%p', b'\\', b'\\\\', b'\\ ', b'"', b"'", b'\xa0', b'\xff', b'@', b'#', b'$(x)', b'..'])
    if kind == 4:
        return ''.join(chance.choices(string.printable, k=chance.randint(1, 40))).encode()
    if kind == 5:
        return '\u2028\u00e4\U0001f4be'.encode() * chance.randint(1, 9)
    return number(chance)


def edited(words, chance, vocabulary):
    """The words with a change."""
    words = list(words)
    at = chance.randrange(len(words) + 1)
    word = words[at] if at < len(words) else b''
    kind = chance.randrange(9)
    if kind == 0:
        del words[at:at + chance.choice([1, 1, 2, 5])]
    elif kind == 1:
        words[at:at] = [word] * chance.choice([1, 1, 2, 20, 500])
    elif kind == 2:
        chance.shuffle(words)
    elif kind == 3:
        words[at:at + 1] = [noise(chance)]
    elif kind == 4:
        words[at:at + 1] = [number(chance)]
    elif kind in (5, 6):
        words[at:at + kind - 5] = [chance.choice(vocabulary)]
    elif kind == 7:
        place = chance.randrange(len(word) + 1)
        words[at:at + 1] = [word[:place] + chance.choice([b'', bytes([chance.randint(1, 255)])]) + word[place + 1:]]
    else:
        words[at:at] = [noise(chance)]
    return words


def text_of(words, chance):
    """The words as a text, with blanks between them."""
    blanks = [b' ', b'  ', b'\t', b'\n', b' \v\f\r '] if chance.random() < 0.1 else [b' ']
    return b''.join(word + chance.choice(blanks) for word in words).split(b'\0')[0]


class Disks:
    """What is done to the disks."""

    def __init__(self):
        self.devices = {name: Device(f'/dev/{name}', 256) for name in DISKS if name != 'zoned'}

    def changes(self):
        """How many writes, discards and flushes each disk has had."""
        counts = {}
        for name in DISKS:
            with open(f'/sys/block/{name}/stat', encoding='ascii') as stat:
                numbers = stat.read().split()
            counts[name] = (numbers[4], numbers[11], numbers[15])
        return counts

    def untouched(self, before):
        for name, count in self.changes().items():
            if count != before[name]:
                raise Wrong(f'{name} was written, or flushed')

    def wipe(self, before):
        """Makes spares that were written new ones."""
        for name, count in self.changes().items():
            if count != before[name] and name in SPARES:
                sectors = sectors_of(name)
                for first in 0, sectors - PAGE_SECTORS:
                    self.devices[name].write(first, bytes(PAGE_SECTORS * 512))


def sectors_of(name):
    with open(f'/sys/block/{name}/size', encoding='ascii') as size:
        return int(size.read())


def kernel_memory():
    """The kibibytes that the kernel has for itself, and does not give back when somebody needs them."""
    kinds = 'SUnreclaim', 'VmallocUsed', 'Percpu', 'KernelStack', 'PageTables'
    with open('/proc/meminfo', encoding='ascii') as file:
        known = dict(line.split(':') for line in file)
    return sum(int(known[kind].split()[0]) for kind in kinds)


def rescuers():
    """How many threads there are that end the requests of devices of ours."""
    count = 0
    for process in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{process}/comm', encoding='ascii', errors='replace') as comm:
                count += comm.read().startswith('kworker/R-dm-re')
        except OSError:
            pass
    return count


def tell(good, promise, why=''):
    print('ok' if good else 'not ok', promise, *([why] if why else []), sep='\t', flush=True)


def many(what, count, seed, attempt):
    """Makes many attempts, each with a number; says what is wrong with the first few that show something wrong."""
    chance, told, tallies = random.Random(seed), 0, {}
    warm, memory = max(1, count // 5), kernel_memory()
    for at in range(count):
        if at == warm:
            memory = kernel_memory()
        try:
            kind = attempt(chance)
            tallies[kind] = tallies.get(kind, 0) + 1
        except (Wrong, OSError, ValueError, LookupError) as error:
            tell(False, f'{what} {at} of seed {seed}', f'{type(error).__name__}: {error}'[:2000])
            told += 1
            if told == MOST_TOLD:
                break
    grown = kernel_memory() - memory
    shown = ', '.join(f'{tallies[kind]} {kind}' for kind in sorted(tallies))
    tell(not told, f'{count} random {what}s, of seed {seed}: {shown}')
    # A thing that is forgotten each time, and of which the kernel takes note, is larger than this by far.
    tell(grown < 16 << 10, f'the kernel holds {grown} KiB more than after the first {warm} of them',
         '' if grown < 16 << 10 else 'that is too much')
    return tallies


# What is longer than the memory that the kernel gives in one piece.  (Of many short words device mapper's own list does not
# fit there.)
LONG = [b'x' * (5 << 20), (b'z' * 4000 + b' ') * 5000]


def each_long(what, attempt):
    """Makes an attempt with each of the long texts; says how they end."""
    for text in LONG:
        shown = f'{what} of {len(text) >> 20} MiB, {text[:8]!r}'
        try:
            attempt(text)
            tell(True, f'{shown} is refused')
        except (Wrong, OSError) as error:
            tell(False, f'{shown} is refused', f'{type(error).__name__}: {error}'[:500])


def needs(tallies, *kinds):
    for kind in kinds:
        tell(tallies.get(kind, 0) > 0, f'some of them were {kind}')


class Tables:
    """Random table lines."""

    def __init__(self):
        self.disks, self.log = Disks(), Log()
        self.target = Mapped('hostile')
        self.sectors = sectors_of('main')
        self.features = [
            [[b'manual']], [[b'block_size', size] for size in (b'1', b'2', b'4', b'8', b'16', b'32', b'64')],
            [[b'scan_interval', time] for time in (b'0', b'1', b'60', b'4294967295')],
            [[b'scan_rate', rate] for rate in (b'1', b'1000', b'4294967295')],
            [[b'read_retries', retries] for retries in (b'0', b'5', b'100')],
            [[b'main_id', name] for name in (b'x', b'wwn-0x5000c500a1b2c3d4', b'~' * 64)],
            [[b'uuid', UUID], [b'uuid', UUID.upper()]],
        ]
        self.vocabulary = [word for options in self.features for option in options for word in option]
        self.vocabulary += [b'/dev/' + name.encode() for name in DISKS] + [self.number_of(name) for name in DISKS]
        self.vocabulary += [
            b'-', b'/dev/nothing', b'/dev/null', b'/dev', b'/', b'/dev/mapper/tiny', b'/dev/mapper/hostile', b'/dev/../dev/main',
            b'main', b'0:0', b'1:0', b'4294967295:4294967295', b'1048576:1', b'1:99999999999', b':', b'8:', b'/proc/self/fd/0',
        ]

    @staticmethod
    def number_of(name):
        with open(f'/sys/block/{name}/dev', encoding='ascii') as file:
            return file.read().strip().encode()

    def line(self, chance):
        """The words of a line that is right."""
        spares = chance.sample(SPARES, chance.choice([1, 1, 2, 3]))
        name = chance.choice([lambda disk: b'/dev/' + disk.encode(), self.number_of])
        chosen = [chance.choice(options) for options in self.features if chance.random() < 0.3]
        chance.shuffle(chosen)
        features = [word for option in chosen for word in option]
        words = [name('main'), str(len(spares)).encode(), *map(name, spares)]
        return words + ([str(len(features)).encode(), *features] if features else [])

    def attempt(self, chance):
        words, edits = self.line(chance), chance.choice([0, 1, 1, 1, 2, 2, 3, 8])
        for _ in range(edits):
            words = edited(words, chance, self.vocabulary)
        begin, length = 0, self.sectors
        if chance.random() < 0.1:
            begin, length = chance.choice([0, 0, *EDGES]) % (1 << 64), chance.choice(EDGES) % (1 << 64)
            edits += 1
        read_only = chance.random() < 0.1
        text = text_of(words, chance)
        shown = f'{begin} {length} remap {text[:400]!r}' + (' read-only' if read_only else '')
        before = self.disks.changes()
        self.log.new('')
        try:
            self.target.request(TABLE_LOAD, target_of(begin, length, 'remap', text), READONLY_FLAG * read_only, targets=1)
        except OSError as error:
            self.disks.untouched(before)
            self.refused(self.log.new('device-mapper: table: ', least=1), error, shown)
            if not edits:
                raise Wrong(f'{shown}: it was refused: {error}') from error
            return 'refused'
        self.disks.untouched(before)
        if chance.random() < 0.7:
            self.target.clear()
            self.disks.untouched(before)
            return 'taken'
        try:
            return self.use(before, shown, bool(edits or read_only))
        finally:
            self.let_go()
            self.disks.wipe(before)

    @staticmethod
    def refused(lines, error, shown):
        """The log says why, in a sentence that names an argument."""
        for line in lines:
            said = REFUSAL.fullmatch(line)
            if said and said[1].startswith(ARGUMENTS) or NOT_ASKED.match(line):
                return
        raise Wrong(f'{shown}: {errno.errorcode[error.errno]}, and the log says {lines}')

    def use(self, before, shown, may_fail):
        """Has the table used that was loaded, and looks at the device."""
        try:
            self.target.resume()
        except OSError as error:
            lines = self.log.new('dm_remap: ', least=1)
            if not may_fail or not lines:
                raise Wrong(f'{shown}: it was not used: {error}, the log says {lines}') from error
            self.disks.untouched(before)
            return 'refused when it was to be used'
        table = self.target.table()
        for _ in range(2):
            status = self.target.status()
            if not STATUS.fullmatch(status):
                raise Wrong(f'{shown}: the status is {status}')
            if self.target.table() != table:
                raise Wrong(f'{shown}: {table} became {self.target.table()}')
            if self.target.message('lookup 0') != 'main' or self.target.message('list'):
                raise Wrong(f'{shown}: something is relocated')
            # A read-only table stays one for the same mapped device only when it is said again.
            if may_fail:
                break
            self.target.load(table)
            self.target.suspend()
            self.target.resume()
        return 'used'

    def let_go(self):
        self.target.load('0 8 linear /dev/main 0')
        self.target.suspend()
        self.target.resume()

    def long(self, text):
        self.log.new('')
        try:
            self.target.request(TABLE_LOAD, target_of(0, self.sectors, 'remap', b'/dev/main ' + text), targets=1)
        except OSError as error:
            return self.refused(self.log.new('device-mapper: table: ', least=1), error, 'it')
        raise Wrong('it was taken')

    def run(self, count, seed):
        self.let_go()
        before = rescuers()
        each_long('a table line', self.long)
        needs(many('table line', count, seed, self.attempt), 'refused', 'taken', 'used')
        self.let_go()
        self.target.clear()
        tell(rescuers() == before, 'nothing is left of the devices that were made', f'{rescuers() - before} threads are')


def decimal(word):
    """The value of a word, if it is a number."""
    digits = word.lstrip(b'0') or b'0'
    is_number = re.fullmatch(rb'[0-9]+', word) and len(digits) <= 20
    return int(digits) if is_number and int(digits) < 1 << 64 else None


class Messages:
    """Random messages, to a device of which is known what they must do to it."""

    VERBS = (b'add remove lookup list set scan stats health sync help start pause resume stop status reset auto scan_interval '
             b'scan_rate read_retries 0 1').split()

    def __init__(self):
        self.disks, self.log = Disks(), Log()
        self.target = Mapped('hostile')
        self.sectors = sectors_of('main')
        self.relocated, self.state = set(), 'active'
        self.use()
        self.total = int(self.target.value('total'))
        self.end_scans()

    def range(self, chance):
        """The words for some sectors, mostly few of them."""
        first = chance.choice([chance.randrange(self.sectors), self.sectors - 1, self.sectors - chance.randint(0, 99), 0])
        words = [str(first).encode()] if chance.random() < 0.8 else [number(chance)]
        if chance.random() < 0.7:
            words.append(str(chance.choice([1, 8, chance.randint(1, 400)])).encode() if chance.random() < 0.8 else number(chance))
        return words

    def message(self, chance):
        """The words of a message."""
        verb = chance.choice(self.VERBS[:10])
        if verb in (b'add', b'remove', b'list'):
            return [verb, *self.range(chance)] if verb != b'list' or chance.random() < 0.7 else [verb]
        if verb == b'lookup':
            return [verb, self.range(chance)[0]]
        if verb == b'set':
            name, values = chance.choice([(b'auto', [0, 1, 2]), (b'scan_interval', EDGES), (b'scan_rate', EDGES),
                                          (b'read_retries', [0, 3, 100, 101])])
            return [verb, name, str(chance.choice(values)).encode()]
        if verb == b'scan':
            return [verb, chance.choice([b'start', b'pause', b'resume', b'stop', b'status'])]
        if verb == b'stats' and chance.random() < 0.3:
            return [verb, b'reset']
        return [verb]

    def expected(self, words):
        """What must become of a message: the errno, 0, or none when that cannot be told; and which blocks are relocated then."""
        verb, *rest = words
        wrong, unknown, same = (errno.EINVAL, self.relocated), (None, self.relocated), (0, self.relocated)
        if verb in (b'add', b'remove'):
            numbers = [decimal(word) for word in rest]
            if not 1 <= len(rest) <= 2 or None in numbers:
                return wrong
            first, count = numbers if len(rest) == 2 else (numbers[0], 1)
            if not count or first + count > self.sectors:
                return wrong
            blocks = set(range(first // BLOCK, (first + count - 1) // BLOCK + 1))
            if verb == b'remove':
                return 0, self.relocated - blocks
            after = self.relocated | blocks
            return (0, after) if len(after) <= self.total else (errno.ENOSPC, self.relocated)
        if verb == b'lookup':
            return same if len(rest) == 1 and self.is_sector(rest[0]) else wrong
        if verb == b'list':
            good = len(rest) <= 2 and all(decimal(word) is not None for word in rest)
            good = good and (not rest or self.is_sector(rest[0])) and (len(rest) < 2 or decimal(rest[1]) > 0)
            return same if good else wrong
        if verb == b'set':
            return same if len(rest) == 2 and self.is_setting(*rest) else wrong
        if verb == b'scan':
            verbs = [[word] for word in (b'start', b'pause', b'resume', b'stop', b'status')]
            return wrong if rest not in verbs else same if rest == [b'status'] else unknown
        if verb == b'stats':
            return same if rest in ([], [b'reset']) else wrong
        return same if verb in (b'health', b'sync', b'help') and not rest else wrong

    def is_sector(self, word):
        return decimal(word) is not None and decimal(word) < self.sectors

    @staticmethod
    def is_setting(name, value):
        least, most = {b'auto': (0, 1), b'scan_interval': (0, (1 << 32) - 1), b'scan_rate': (1, (1 << 32) - 1),
                       b'read_retries': (0, 100)}.get(name, (1, 0))
        return decimal(value) is not None and least <= decimal(value) <= most

    def attempt(self, chance):
        if chance.random() < 0.01:
            self.change_state(chance)
        words, edits = self.message(chance), chance.choice([0, 0, 0, 1, 1, 2, 5])
        for _ in range(edits):
            words = edited(words, chance, self.VERBS)
        text = text_of(words, chance)
        shown = f'{text[:400]!r} ({self.state})'
        # Where device mapper finds words in other bytes is not looked into.
        known = all(byte < 128 and byte != ord('\\') for byte in text)
        words = re.split(rb'[ \t-\r]+', text.strip(b' \t\n\v\f\r'))
        # What begins so is for device mapper, which also finds that there is no word.
        ours = re.search(rb'[!-~]', text) and not text.lstrip().startswith(b'@')
        error, after = self.expected(words) if known and ours else (None, self.relocated)
        if error != errno.EINVAL and self.state != 'active':
            error, after = None, self.relocated
        before = self.disks.changes()
        self.log.new('')
        try:
            found, reply = 0, self.target.message_bytes(text, chance.choice([512, 4096, 1 << 15, 1 << 17]))
        except OSError as refusal:
            found, reply = refusal.errno, ''
        is_refused = ours and found not in (0, errno.EMSGSIZE)
        lines = self.log.new('dm_remap: .*( refused: | failed because )', least=1 if is_refused else 0)
        if is_refused and len(lines) != 1:
            raise Wrong(f'{shown}: {errno.errorcode[found]}, and the log says {lines}')
        if found == errno.EMSGSIZE and error == 0:
            return 'too long to answer'
        if error is not None and error != found:
            raise Wrong(f'{shown}: {found}, not {error}, {lines}')
        # A backslash makes no difference to the byte behind it.
        self.may_scan |= bool({b'scan', b'scan_interval'} & set(words + re.split(rb'[ \t-\r]+', text.replace(b'\\', b''))))
        if not self.may_scan and (self.state == 'read-only' or found in (errno.EINVAL, errno.ENOSPC) and error == found):
            self.disks.untouched(before)
        self.relocated = after
        if known and not found:
            self.check_reply(words, reply, shown)
        if not known and not found:
            self.relocated = {int(line[0]) // BLOCK for line in self.target.list()}
        return 'refused' if found else 'done'

    def check_reply(self, words, reply, shown):
        verb, *rest = words
        if verb == b'lookup' and self.state == 'active':
            is_spare = decimal(rest[0]) // BLOCK in self.relocated
            if not LOOKUP.fullmatch(reply) or (reply != 'main') != is_spare:
                raise Wrong(f'{shown}: {reply}')
        elif verb == b'list':
            first, most = [decimal(word) for word in rest] + [0, 1 << 64][len(rest):]
            lines = reply.splitlines()
            blocks = sorted(block for block in self.relocated if block >= first // BLOCK)[:most]
            if not all(LIST.fullmatch(line) for line in lines) or [int(line.split()[0]) // BLOCK for line in lines] != blocks:
                raise Wrong(f'{shown}: {blocks} became {reply[:1000]}')
        elif verb == b'stats' and not rest and not STATS.fullmatch(reply):
            raise Wrong(f'{shown}: {reply}')

    def use(self, flags=0):
        """Has a table used that has the device as it should be."""
        line = target_of(0, self.sectors, 'remap', b'/dev/main 1 /dev/first')
        self.target.request(TABLE_LOAD, line, flags, targets=1)
        self.target.suspend()
        self.target.resume()

    def end_scans(self):
        """There is no background pass, and none begins by itself."""
        self.target.message('set scan_interval 0')
        try:
            self.target.message('scan stop')
        except OSError:
            pass
        # What the pass was at has ended then.
        self.target.suspend()
        self.target.resume()
        self.may_scan = False

    def change_state(self, chance):
        """Another state of the device, in which it has what it had."""
        if self.state != 'active':
            self.use()
        self.end_scans()
        self.state = chance.choice(['active', 'active', 'suspended', 'read-only'])
        self.use(READONLY_FLAG if self.state == 'read-only' else 0)
        if self.state == 'suspended':
            self.target.suspend()
        self.check_all()

    def check_all(self):
        if not STATUS.fullmatch(self.target.status()):
            raise Wrong(f'the status is {self.target.status()}')
        listed = {int(line[0]) // BLOCK for line in self.target.list()}
        if listed != self.relocated or int(self.target.value('used')) != len(listed):
            raise Wrong(f'relocated is {sorted(listed)}, not {sorted(self.relocated)}')

    def long(self, text):
        self.log.new('')
        try:
            self.target.message_bytes(b'add ' + text)
        except OSError as error:
            lines = self.log.new('dm_remap: ', least=1)
            if error.errno != errno.EINVAL or len(lines) != 1:
                raise Wrong(f'{error}, and the log says {lines}') from error
            return
        raise Wrong('it was not refused')

    def run(self, count, seed):
        each_long('a message', self.long)
        chance = random.Random(seed)
        data = chance.randbytes(self.sectors * 512)
        with Device('/dev/mapper/hostile', 256) as device:
            for first in range(0, self.sectors, 128):
                device.write(first, data[first * 512:(first + 128) * 512])
        needs(many('message', count, seed, self.attempt), 'refused', 'done')
        self.use()
        self.check_all()
        with Device('/dev/mapper/hostile', 256) as device:
            same = all(device.read(first, 128) == data[first * 512:(first + 128) * 512]
                       for first in range(0, self.sectors, 128))
        tell(same, f'all data is as it was, {len(self.relocated)} blocks of it on the spare')


KINDS = {'tables': Tables, 'messages': Messages}


def main(kind, count, seed):
    KINDS[kind]().run(int(count), int(seed))


if __name__ == '__main__':
    main(*sys.argv[1:])
