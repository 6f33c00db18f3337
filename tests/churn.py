#!/usr/bin/python3
"""Sectors that are written, read and moved all at once.

churn.py run NAME MAIN SPARE... [OPTION...]
churn.py check NAME MAIN SPARE... [OPTION...]

run lets processes write and read sectors of /dev/mapper/NAME while others relocate the
blocks that hold them and bring them back.  Each sector has one writer, which numbers what it
writes there; each read must find a number between the last one that was acknowledged before
it and the last one that was sent when it ended.  At the end of each round every sector must
hold the last number, through the device and on the disks, and the list of relocated blocks
must be what the messages have made.  It says when it begins, and fails, too, when nothing was written, read or moved.

check looks at sectors that an earlier run has written, as its state file has it: each
must hold a number between the last one that was acknowledged and
the last one that was sent, and blocks must be relocated as the last message left them.

Without writers and readers the sectors may hold anything.

	--first SECTOR --count SECTORS		where (0, 2048)
	--block SECTORS		the size of a block (8)
	--seconds S		how long a round lasts; 0: until SIGTERM (5); longer, when nothing
				was written, read or moved yet
	--rounds N		how many rounds (1)
	--writers N --readers N --movers N	how many processes (8, 2, 1)
	--span SECTORS		how many sectors in a row have the same writer, and how
				long a write may be (1)
	--largest BLOCKS	how many blocks a message may be about (16)
	--shared		all movers move all blocks, not each those of its own part;
				where a block is then is not compared
	--pause MILLISECONDS	how long to wait at most between two messages (0)
	--durable		every write is durable when it is acknowledged: a
				filesystem uses FUA for that, a device flushes, too
	--file FILE		write and read FILE, which lies on the device, instead of
				the device: the sectors are those of FILE then
	--state FILE		keep there what must be found later
	--suspends		messages may find the device suspended
	--bad-main		main takes or gives no data here and there: blocks may be
				relocated by themselves, and messages to bring them back fail
	--errors		I/O errors are no failure: a sector that could not be written
				may hold what it held before or what was sent
"""

import argparse
import errno
import mmap
import os
import random
import signal
import struct
import sys
import time

import direct
import dm
import places

SECTOR = direct.SECTOR
READ_SECTORS = 64
PATIENCE = 60
STAMP = struct.Struct('<8s3Q')
MAGIC = b'numbered'
ON_MAIN, ON_SPARE, UNKNOWN = range(3)
IO_ERRORS = (errno.EIO, errno.ENODATA)
WRITES, READS, ADDS, REMOVES, ERRORS, COUNTS = range(6)


class Wrong(Exception):
    """The device broke a promise."""


def stamp(sector, number):
    """What a sector holds: zeroes before it was first written."""
    if number == 0:
        return bytes(SECTOR)
    return STAMP.pack(MAGIC, sector, number, sector ^ number) * (SECTOR // STAMP.size)


def number_in(data, sector):
    """The number in a sector."""
    magic, _, number, _ = STAMP.unpack_from(data)
    if magic != MAGIC:
        number = 0
    if data != stamp(sector, number):
        raise Wrong(f'sector {sector} holds what nobody wrote there: {bytes(data[:40])!r}')
    return number


def device_of(options):
    return f'/dev/mapper/{options.name}'


class State:
    """What all processes know: for each sector the last number that was sent and acknowledged; for
    each block where it is; and for each process what it did."""

    def __init__(self, options, path):
        blocks = options.count // options.block
        processes = options.writers + options.readers + options.movers
        words = 2 * options.count + blocks + processes * COUNTS
        if path:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.ftruncate(file, words * 8)
            memory = mmap.mmap(file, words * 8)
        else:
            memory = mmap.mmap(-1, words * 8)
        view = memoryview(memory).cast('Q')
        parts = []
        for size in 2 * [options.count] + [blocks, processes * COUNTS]:
            parts.append(view[:size])
            view = view[size:]
        self.sent, self.acknowledged, self.places, self.counts = parts

    def did(self, what):
        """How often something was done by all processes."""
        return sum(self.counts[what::COUNTS])


class Process:
    """What a child does until it is told to stop."""

    def __init__(self, options, state, number, seed):
        self.options = options
        self.state = state
        self.number = number
        self.random = random.Random(f'{seed} {number}')
        self.stopped = False

    def count(self, what):
        self.state.counts[self.number * COUNTS + what] += 1

    def run(self):
        """Runs until SIGTERM; returns the exit status."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        try:
            self.prepare()
            while not self.stopped:
                try:
                    self.step()
                except OSError as error:
                    if not self.options.errors or error.errno not in IO_ERRORS:
                        raise
                    self.count(ERRORS)
                    # While everything fails there is nothing to be gained by haste.
                    time.sleep(0.01)
        except Wrong as wrong:
            print(f'{type(self).__name__} {self.number}: {wrong}', flush=True)
            return 1
        except OSError as error:
            print(f'{type(self).__name__} {self.number}: {error}', flush=True)
            return 1
        return 0

    def stop(self, _signal, _frame):
        self.stopped = True


class Writer(Process):
    """Writes the sectors that are its own, numbered."""

    def prepare(self):
        options = self.options
        self.device = direct.Device(options.file, options.span,
                                    os.O_DSYNC if options.durable else 0)
        spans = options.count // options.span
        self.spans = range(self.number, spans, options.writers)

    def step(self):
        options, state = self.options, self.state
        start = self.random.choice(self.spans) * options.span
        first = start + self.random.randrange(options.span)
        last = self.random.randrange(first, start + options.span)
        written = range(first, last + 1)
        data = []
        for at in written:
            state.sent[at] += 1
            data.append(stamp(options.first + at, state.sent[at]))
        self.device.write(options.first + first, b''.join(data))
        for at in written:
            state.acknowledged[at] = state.sent[at]
        self.count(WRITES)


class Reader(Process):
    """Reads any sectors, and compares their numbers."""

    def prepare(self):
        self.device = direct.Device(self.options.file, READ_SECTORS)

    def step(self):
        options, state = self.options, self.state
        first = self.random.randrange(options.count)
        length = min(options.count - first, 1 << self.random.randrange(7))
        least = state.acknowledged[first:first + length].tolist()
        data = self.device.read(options.first + first, length)
        most = state.sent[first:first + length].tolist()
        compare(options.first + first, data, least, most, 'a read')
        self.count(READS)


class Mover(Process):
    """Relocates blocks and brings them back: those of its own part."""

    def prepare(self):
        options = self.options
        # A message waits often, and would wait each time for those that write and read.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        self.mapped = dm.Mapped(options.name)
        movers = 1 if options.shared else options.movers
        part = options.count // options.block // movers
        first = (self.number - options.writers - options.readers) % movers * part
        self.blocks = range(first, first + part)

    def step(self):
        options, state = self.options, self.state
        # Short ones are as frequent as long ones.
        length = self.random.randint(1, self.random.randint(1, options.largest))
        first = self.random.choice(self.blocks)
        last = min(first + length, self.blocks.stop)
        place, verb = self.random.choice([(ON_SPARE, 'add'), (ON_MAIN, 'remove')])
        for block in range(first, last):
            if state.places[block] != place:
                state.places[block] = UNKNOWN
        at = options.first + first * options.block
        if not self.send(f'{verb} {at} {(last - first) * options.block}'):
            return
        for block in range(first, last):
            state.places[block] = UNKNOWN if options.shared else place
        self.count(ADDS if place == ON_SPARE else REMOVES)
        time.sleep(self.random.uniform(0, options.pause / 1000))

    def send(self, message):
        """Sends a message, again and again while the device is suspended.  Tells whether it was
        carried out, and not cut short by the end of the round."""
        while not self.stopped:
            try:
                self.mapped.message(message)
                return True
            except OSError as error:
                if error.errno == errno.EBUSY and self.options.suspends:
                    time.sleep(0.001)
                elif error.errno == errno.EIO and self.options.bad_main:
                    return False
                elif error.errno != errno.EINTR:
                    raise OSError(error.errno, f'{message}: {error.strerror}') from error
        return False


def compare(first, data, least, most, what):
    """Fails when a sector's number is not between two others."""
    for at, (low, high) in enumerate(zip(least, most)):
        number = number_in(data[at * SECTOR:(at + 1) * SECTOR], first + at)
        if not low <= number <= high:
            raise Wrong(f'{what} of sector {first + at} found number {number}, '
                        f'not one from {low} to {high}')


def check_sectors(options, state, read, least, most, what):
    """Compares all sectors, as read gives them."""
    for start in range(0, options.count, READ_SECTORS):
        length = min(READ_SECTORS, options.count - start)
        compare(options.first + start, read(options.first + start, length),
                least[start:start + length], most[start:start + length], what)


def check_moves(options, state, relocated):
    """Compares the relocated blocks with what the messages have made."""
    for block, place in enumerate(state.places if not options.bad_main else []):
        sector = options.first + block * options.block
        if place != UNKNOWN and (place == ON_SPARE) != (sector in relocated):
            raise Wrong(f'the block at {sector} is {"not " * (sector not in relocated)}relocated, '
                        f'but the last message was to {"add" if place else "remove"} it')


def check_all(options, state, least, most):
    """Compares everything, as the mapped device shows it and as it lies on the disks."""
    disks = places.Places(options.name, options.main, options.spares)
    wrong = disks.complaint()
    if wrong:
        raise Wrong(wrong)
    check_moves(options, state, disks.relocated)
    if options.writers + options.readers == 0:
        return
    device = direct.Device(options.file)
    check_sectors(options, state, device.read, least, most, 'the last read')
    if options.file == device_of(options):
        check_sectors(options, state, disks.read, least, most, 'a look at the disks')


def start(processes):
    """Starts processes; returns their ids."""
    children = []
    for process in processes:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = process.run()
            finally:
                sys.stdout.flush()
                os._exit(status)
        children.append(child)
    return children


def stop(children):
    """Stops processes, and tells how many have failed."""
    for child in children:
        os.kill(child, signal.SIGTERM)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def wait(seconds, enough):
    """Waits for some time, or, when that is 0, for SIGTERM; and then until there was enough, which
    takes long only on a slow machine."""
    signal.sigtimedwait([signal.SIGTERM], seconds or 1e6)
    end = time.monotonic() + PATIENCE
    while not enough() and time.monotonic() < end:
        time.sleep(0.1)


def begin_sectors(options, state):
    """Takes what the sectors hold as what they must hold."""
    device = direct.Device(options.file)
    for start in range(0, options.count, READ_SECTORS):
        length = min(READ_SECTORS, options.count - start)
        data = device.read(options.first + start, length)
        for at in range(start, start + length):
            place = (at - start) * SECTOR
            number = number_in(data[place:place + SECTOR], options.first + at)
            state.acknowledged[at] = number
            state.sent[at] = max(state.sent[at], number)


def begin(options, state):
    """Takes what there is as what must be there."""
    disks = places.Places(options.name, options.main, options.spares)
    if options.writers + options.readers:
        begin_sectors(options, state)
    for block in range(len(state.places)):
        sector = options.first + block * options.block
        state.places[block] = ON_SPARE if sector in disks.relocated else ON_MAIN
    for at in range(len(state.counts)):
        state.counts[at] = 0


def run(options, state):
    kinds = [Writer] * options.writers + [Reader] * options.readers + [Mover] * options.movers
    wanted = [options.writers, options.readers, options.movers, options.movers]
    begin(options, state)

    def everything_was_done():
        return all(done or not want for want, done in zip(wanted, map(state.did, range(COUNTS))))

    print('begins', flush=True)
    for turn in range(options.rounds):
        children = start([kind(options, state, number, f'{options.seed} {turn}')
                          for number, kind in enumerate(kinds)])
        wait(options.seconds, everything_was_done)
        failed = stop(children)
        if failed:
            raise Wrong(f'{failed} processes have failed')
        check_all(options, state, state.acknowledged, state.sent)
    did = [state.did(what) for what in range(COUNTS)]
    print('{} writes, {} reads, {} times add, {} times remove, {} errors'.format(*did))
    if not everything_was_done():
        raise Wrong('not everything was done that was to be checked')


def check(options, state):
    check_all(options, state, state.acknowledged, state.sent)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument('verb', choices=['run', 'check'])
    for name in 'name', 'main':
        parser.add_argument(name)
    parser.add_argument('spares', nargs='+')
    for name, value in {'first': 0, 'count': 2048, 'block': 8, 'seconds': 5, 'rounds': 1,
                        'writers': 8, 'readers': 2, 'movers': 1, 'span': 1, 'largest': 16, 'pause': 0,
                        'seed': None}.items():
        parser.add_argument(f'--{name}', type=int, default=value)
    for name in 'state', 'file':
        parser.add_argument(f'--{name}')
    for name in 'durable', 'suspends', 'shared', 'errors', 'bad-main':
        parser.add_argument(f'--{name}', action='store_true')
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    options.file = options.file or device_of(options)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1 << 32)
    try:
        {'run': run, 'check': check}[options.verb](options, State(options, options.state))
    except Wrong as wrong:
        sys.exit(f'{wrong} (--seed {options.seed})')


if __name__ == '__main__':
    main()
