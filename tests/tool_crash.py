#!/usr/bin/python3 -IS
"""Interrupts dmremap at every point of what it writes, and looks at what that leaves.

    tool_crash.py repair|format SEED

It needs the disks base, record, replay0 and replay1, and for "repair" a set on two parts of base
behind MAIN sectors.  The status is 0 when every crash leaves what can be mended, with every block
where it was.
"""

import json
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from crash_record import SECTOR, Recorder  # noqa: E402
from damage import entry_of, with_entry  # noqa: E402

MAIN, SPARE = 1024, 2048
PARTS = slice(MAIN, MAIN + SPARE), slice(MAIN + SPARE, MAIN + 2 * SPARE)
PAGE = 4096
TRIES = 3
CLEAN, MENDABLE, NO_SET = 0, 1, 8


class Wrong(Exception):
    """What was found is not what was promised."""


def dmremap(*words):
    """The status, and what it says."""
    ended = subprocess.run(['dmremap', *words], check=False, capture_output=True, encoding='utf-8')
    return ended.returncode, ended.stdout + ended.stderr


def relocations(spares):
    status, said = dmremap('dump', '--format', 'json', *spares)
    if status:
        raise Wrong(f'dmremap dump ends with {status}: {said}')
    return json.loads(said)['relocations']


def damaged(spares, older):
    """The spares with a bit of everything that can be mended; `older` is an older state of them."""
    first, second = (bytearray(spare) for spare in spares)
    junk = bytes([0xa5]) * PAGE
    slot_pages = int.from_bytes(first[132:136], 'little')
    back = len(first) - PAGE * (slot_pages + 1)
    # A bad superblock, and others that are behind.
    first[:PAGE] = junk
    second[:PAGE], second[-PAGE:] = older[1][:PAGE], older[1][-PAGE:]
    # A slot page of which one copy is older, and one of which it is bad.
    first[back:back + PAGE] = older[0][back:back + PAGE]
    second[back + PAGE:back + 2 * PAGE] = junk
    # An older entry for a block of the first spare, and a witness page that is older.
    state, live, time, block = entry_of(first[PAGE:2 * PAGE], 3)
    page = with_entry(second[PAGE:2 * PAGE], 160, state, live, time - 5, block)
    second[PAGE:2 * PAGE] = second[back:back + PAGE] = page
    witness = PAGE * (slot_pages + 1)
    second[witness:witness + PAGE] = older[1][witness:witness + PAGE]
    return bytes(first), bytes(second)


class Media:
    """What is on the disks for certain, and what may be."""

    def __init__(self, image):
        self.durable = bytearray(image)
        self.pending = []
        self.done = set()
        self.flushing = {}

    def add(self, what, request):
        if request.is_flush():
            if what == 'issue':
                self.flushing[request] = {it for it in self.pending if it.disk == request.disk and it in self.done}
            else:
                self.settle(self.flushing[request])
        elif what == 'issue':
            self.pending.append(request)
        else:
            self.done.add(request)
            if request.fua:
                self.settle({request})

    def settle(self, requests):
        put(self.durable, [it for it in self.pending if it in requests])
        self.pending = [it for it in self.pending if it not in requests]

    def states(self, chance):
        """All that a crash may leave now: whole writes, and parts of them in sectors."""
        for kept in lambda: True, lambda: False, *[lambda: chance.random() < 0.5] * TRIES:
            image = bytearray(self.durable)
            put(image, self.pending, kept)
            yield bytes(image)


def put(image, requests, kept=lambda: True):
    for request in requests:
        for at in range(request.count):
            if kept():
                start = (request.first + at) * SECTOR
                image[start:start + SECTOR] = request.data[at * SECTOR:(at + 1) * SECTOR]


class Replay:
    """States, put on other disks."""

    def __init__(self, verb, chance):
        self.verb, self.chance = verb, chance
        self.paths = '/dev/replay0', '/dev/replay1'
        self.disks = [os.open(path, os.O_RDWR) for path in self.paths]
        self.expected = []
        self.seen = set()

    def put(self, spares):
        for disk, spare in zip(self.disks, spares):
            os.pwrite(disk, spare, 0)

    def look(self, image):
        spares = tuple(image[part.start * SECTOR:part.stop * SECTOR] for part in PARTS)
        if spares in self.seen:
            return
        self.seen.add(spares)
        self.put(spares)
        status, said = dmremap('check', *self.paths)
        if self.verb == 'format' and not any(any(spare) for spare in spares):
            if status != NO_SET:
                raise Wrong(f'nothing was written, but dmremap check ends with {status}: {said}')
            return
        if status not in (CLEAN, MENDABLE):
            raise Wrong(f'dmremap check ends with {status}: {said}')
        if status == CLEAN or self.verb == 'repair':
            self.compare()
        if status == MENDABLE:
            status, said = dmremap('repair', *self.paths)
            if status != MENDABLE or dmremap('check', '-q', *self.paths)[0] != CLEAN:
                raise Wrong(f'dmremap repair ends with {status}: {said}')
            self.compare()

    def compare(self):
        found = relocations(self.paths)
        if found != self.expected:
            raise Wrong(f'there are {len(found)} blocks that are not the {len(self.expected)} from before')


def must_be_wrong(replay, image):
    """A state that no crash may leave: both copies of a slot page are written at once."""
    image = bytearray(image)
    start, end = (sector * SECTOR for sector in (PARTS[0].start, PARTS[0].stop))
    slot_pages = int.from_bytes(image[start + 132:start + 136], 'little')
    for at in start + PAGE, end - PAGE * (slot_pages + 1):
        image[at:at + SECTOR] = bytes(SECTOR)
    try:
        replay.look(bytes(image))
    except Wrong:
        return
    raise Wrong('a state that is wrong was not found wrong')


def main(verb, seed):
    chance = random.Random(seed)
    replay = Replay(verb, chance)
    with open('/dev/base', 'r+b', buffering=0) as base:
        image = bytearray(base.read((MAIN + 2 * SPARE) * SECTOR))
        if verb == 'repair':
            with open('/dev/shm/older', 'rb') as file:
                older = file.read()
            now, older = ([it[part.start * SECTOR:part.stop * SECTOR] for part in PARTS] for it in (image, older))
            for part, spare in zip(PARTS, damaged(now, older)):
                image[part.start * SECTOR:part.stop * SECTOR] = spare
            os.pwrite(base.fileno(), image, 0)
            os.fsync(base.fileno())
            replay.put([image[part.start * SECTOR:part.stop * SECTOR] for part in PARTS])
            replay.expected = relocations(replay.paths)
    words = [verb] if verb == 'repair' else [verb, '--main', str(MAIN)]
    recorder = Recorder([MAIN, SPARE, SPARE])
    recorder.start()
    status, said = dmremap(*words, '/dev/mapper/spare0', '/dev/mapper/spare1')
    events = recorder.stop()
    if status != (MENDABLE if verb == 'repair' else CLEAN):
        raise Wrong(f'dmremap {verb} ends with {status}: {said}')
    media = Media(image)
    for at, (what, request) in enumerate(events):
        media.add(what, request)
        for state in media.states(chance):
            try:
                replay.look(state)
            except Wrong as wrong:
                raise Wrong(f'{wrong} (after {at} of {len(events)} events)') from wrong
    if media.pending:
        raise Wrong(f'{len(media.pending)} writes were not flushed in the end')
    must_be_wrong(replay, media.durable)
    print(f'{len(events)} events, {len(replay.seen)} states')


if __name__ == '__main__':
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except Wrong as error:
        sys.exit(f'{error} (seed {sys.argv[2]})')
