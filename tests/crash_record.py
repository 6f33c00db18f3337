"""What disks were sent, in the order in which it was sent and answered.

The disks are slices of one dm-log-writes device, which keeps what was written.  It logs a
write when it is flushed, not when it is answered, and does not tell which disk a flush was
for; so the order, the flushes and the marks of a test come from the kernel's trace of the
same requests.
"""

import collections
import os
import re
import struct
import subprocess

import direct
import dm

SECTOR = direct.SECTOR

# What dm-log-writes writes, see drivers/md/dm-log-writes.c.
LOG_MAGIC = 0x6a736677736872
LOG_SUPER = struct.Struct('<3QI')
LOG_ENTRY = struct.Struct('<4Q')
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8

TRACING = '/sys/kernel/tracing'
EVENTS = 'block_bio_queue', 'block_bio_complete'
REQUEST = re.compile(r' block_bio_(queue|complete): (\d+),(\d+) (\S+) (\d+) \+ (\d+) \[(.*)\]$')
MARKED = re.compile(r' tracing_mark_write: (.*)$')
COUNTED = re.compile(r'^# entries-in-buffer/entries-written: (\d+)/(\d+) ')
TRACE_KIB = 16384


class Incomplete(Exception):
    """The record is not what it must be, so it proves nothing."""


class Request:
    """A write, discard or flush that a disk was sent.  Sectors are counted over all disks."""

    def __init__(self, number, disk, first, count, fua, discard):
        self.number = number
        self.disk = disk
        self.first = first
        self.count = count
        self.fua = fua
        self.discard = discard
        self.data = None
        self.failed = False

    def __hash__(self):
        return self.number

    def is_flush(self):
        return self.count == 0

    def key(self):
        return self.first, self.count, self.fua, self.discard


class Recorder:
    """Disks on /dev/base that are recorded, with the log on /dev/record."""

    def __init__(self, sizes):
        starts = [sum(sizes[:at]) for at in range(len(sizes))]
        self.slices = [range(start, start + size) for start, size in zip(starts, sizes)]
        self.names = ['main', *(f'spare{at}' for at in range(len(sizes) - 1))]
        if not os.path.ismount(TRACING):
            run('mount', '-t', 'tracefs', 'tracefs', TRACING)
        write(f'{TRACING}/buffer_size_kb', TRACE_KIB)
        self.marks = os.open(f'{TRACING}/trace_marker', os.O_WRONLY)

    def start(self):
        """Makes the disks, and records them from now on."""
        total = self.slices[-1].stop
        run('dmsetup', 'create', 'log', '--table', f'0 {total} log-writes /dev/base /dev/record')
        for name, part in zip(self.names, self.slices):
            run('dmsetup', 'create', name, '--table',
                f'0 {len(part)} linear /dev/mapper/log {part.start}')
        self.numbers = {os.stat(f'/dev/mapper/{name}').st_rdev: at
                        for at, name in enumerate(self.names)}
        write(f'{TRACING}/trace', '')
        # The trace has another way than stat to put a device into a number.
        ours = ' || '.join(f'dev == {os.major(number) << 20 | os.minor(number)}'
                           for number in self.numbers)
        for event in EVENTS:
            write(f'{TRACING}/events/block/{event}/filter', ours)
            write(f'{TRACING}/events/block/{event}/enable', 1)

    def mark(self, text):
        os.write(self.marks, text.encode())

    def stop(self):
        """Removes the disks; returns what there was, each as "issue" or "done" with the request,
        or "mark" with the text."""
        for event in EVENTS:
            write(f'{TRACING}/events/block/{event}/enable', 0)
        events = self.traced()
        for name in [*self.names, 'log']:
            run('dmsetup', 'remove', name)
        add_data(events)
        return events

    def traced(self):
        events, running = [], collections.defaultdict(collections.deque)
        with open(f'{TRACING}/trace', encoding='ascii') as trace:
            for line in trace:
                counted = COUNTED.match(line)
                if counted and counted[1] != counted[2]:
                    raise Incomplete('the trace had no room for all requests')
                marked = MARKED.search(line)
                if marked:
                    events.append(('mark', marked[1]))
                seen = REQUEST.search(line)
                # A letter after the operation may be an F, too: the write has FUA.
                operation = seen and seen[4].lstrip('F')
                if seen and operation[0] != 'R':
                    self.add(events, running, seen, operation)
        if any(running.values()):
            raise Incomplete('a request was never answered')
        return events

    def add(self, events, running, seen, operation):
        what, major, minor, _, first, count, end = seen.groups()
        disk = self.numbers[os.makedev(int(major), int(minor))]
        first, count = int(first) + self.slices[disk].start, int(count)
        request = Request(len(events), disk, first, count, 'F' in operation, operation[0] == 'D')
        if what == 'queue':
            running[disk, request.key()].append(request)
            events.append(('issue', request))
        else:
            # The trace does not tell flushes of one disk apart, and they may be answered in another order: it may have been the
            # last one, which covers the most, so what relies on it is not found wrong.
            same = running[disk, request.key()]
            request = same.pop() if request.is_flush() else same.popleft()
            request.failed = end != '0'
            events.append(('done', request))


def add_data(events):
    """Gives the writes their data, from the log."""
    logged, flushes = collections.defaultdict(collections.deque), 0
    for flags, first, count, data in log_entries('/dev/record'):
        if flags & FLUSH:
            flushes += 1
        else:
            key = first, count, bool(flags & FUA), bool(flags & DISCARD)
            logged[key].append(data)
    for what, request in events:
        if what != 'done':
            continue
        if request.is_flush():
            flushes -= 1
        elif not logged[request.key()]:
            raise Incomplete(f'the log has no write of sectors {request.first} + {request.count}')
        else:
            request.data = logged[request.key()].popleft()
    if flushes or any(logged.values()):
        raise Incomplete('the log has more or less than the trace')


def log_entries(path):
    """The entries of a log: flags, first sector, number of sectors, and data."""
    with open(path, 'rb') as file:
        magic, version, entries, size = LOG_SUPER.unpack_from(file.read(SECTOR))
        if (magic, version, size) != (LOG_MAGIC, 1, SECTOR):
            raise Incomplete(f'{path} is no log of version 1 with sectors of {SECTOR} bytes')
        for _ in range(entries):
            first, count, flags, _ = LOG_ENTRY.unpack_from(file.read(SECTOR))
            # A mark is without data as a flush is, and so is a discard, which zeroes the sectors.
            data = bytes(count * SECTOR) if flags & DISCARD else file.read(count * SECTOR)
            if not flags & MARK:
                yield flags, first, count, data


def run(*command):
    subprocess.run(command, check=True)


def write(path, text):
    with open(path, 'w', encoding='ascii') as file:
        file.write(str(text))
