#!/usr/bin/python3
"""Crash safety, proved by replaying what was written.

crash.py [OPTION...]

Works on a set whose disks are recorded: writes of all sizes, with FUA and without, zeroes,
discards, flushes, blocks that are relocated and brought back, options that are set,
tables that are reloaded, spares that are added.  Then it replays the record.  At each point of time it makes states that the
disks may have after a crash: what was written and not flushed is there, or not, or torn.  Each state is activated, and
compared with what was promised:

 - a sector holds what was last flushed there, or what was written later, never anything else;
 - a block is relocated or not as the last message that was answered has left it;
 - an option has the value to which it was set;
 - no two blocks share a place;
 - with a spare missing all of that holds for what is not on it, and nothing is out of date;
 - a spare that is being added may be replaced by a blank one.

One of these states is what the next round of work begins with, so that the repairs of an
activation are recorded, and interrupted, too.

/dev/base, /dev/record, and /dev/replay0 and following must be disks that are large enough.

	--block SECTORS		the size of a block (8)
	--main SECTORS		the size of main (512)
	--spare SECTORS...	the sizes of the spares (1024)
	--manual		only messages move blocks
	--grow			the last spare is added in the first round
	--bad FIRST-LAST	the sectors of main that can be neither read nor written
	--rounds N		how many rounds (3)
	--steps N		how many things are done in each (30)
	--tries N		how many random states for each flush and write with FUA (3)
	--seed N
"""

import argparse
import os
import random
import sys

import direct
from churn import Wrong
from crash_record import Incomplete, Recorder, run
from crash_replay import CLEAN, MENDABLE, NO_SET, Media, Refused, Replay, State, compare, is_page
from crash_work import MAIN, Model, Work

SECTOR = direct.SECTOR


class Crashes:
    """All the points of time of a round at which there may be a crash."""

    def __init__(self, options, replay, model, chance):
        self.options = options
        self.replay = replay
        self.media = replay.media
        self.model = model
        self.chance = chance
        self.points = self.combinations = self.degraded = self.replaced = 0
        self.seen = {}
        self.compared = set()
        self.verified = set()
        self.states = []
        # A state to begin the next round with, and what was promised then.
        self.chosen = None
        self.candidates = 0

    def run(self, events, notes):
        for at, (what, subject) in enumerate(events):
            try:
                self.crash(what, subject, notes)
            except (Wrong, Refused) as wrong:
                raise Wrong(f'{wrong}; the crash is at event {at} of {len(events)}, {what} '
                            f'{describe(subject, notes)}') from wrong

    def crash(self, what, subject, notes):
        """A crash right after an event."""
        tries = self.options.tries
        if what == 'mark':
            self.model.mark(subject, notes)
        elif what == 'issue':
            self.media.issue(subject)
            self.states = list(self.media.states(self.chance, tries if subject.is_flush() or subject.fua else 1))
        else:
            self.media.done(subject)
            if not subject.is_flush() and not subject.fua:
                # It is no more stable than before.
                return
            self.states = list(self.media.states(self.chance, tries))
        self.points += 1
        for state in self.states:
            self.check(state)

    def check(self, state):
        most = max(self.model.spares)
        self.verify(state, most)
        seen = self.compare(state, most)
        if len(self.model.spares) > 1:
            self.check_growing(state)
        elif most > 1 and self.model.made and not state.tears_witness():
            self.compare(state, most, state.mark % most)
        if seen.wrote and self.model.made:
            self.choose(state)

    def check_growing(self, state):
        """What says how many spares there are is on all of the disks, on some or on none."""
        few, many = sorted(self.model.spares)
        counted = not self.is_taken(state, few)
        if not state.tears_witness():
            missing = state.mark % few
            if not any([self.is_taken(state, spares, missing) for spares in (few, many)]):
                raise Wrong(f'without spare {missing} the set is refused with {few} spares and with {many}')
        # Until the new one is about to be used.
        self.replaced += counted and self.is_taken(state.with_blank(self.replay.slices[many]), many)

    def is_taken(self, state, spares, missing=None):
        """Whether a set is activated, in which all is well then."""
        try:
            self.compare(state, spares, missing)
        except Refused:
            return False
        return True

    def verify(self, state, spares):
        """Compares what the tool says of a state with what an activation does."""
        whole = self.model.made and len(self.model.spares) == 1
        key = state.pages, spares, whole
        if key in self.verified:
            return
        self.verified.add(key)
        said = self.replay.verify(state, spares)
        expected = {CLEAN, MENDABLE} if whole else {CLEAN, MENDABLE, NO_SET}
        if said not in expected:
            raise Wrong(f'dmremap check ends with status {said}')
        if said != NO_SET:
            wrote = self.compare(state, spares).wrote
            if wrote != (said == MENDABLE):
                raise Wrong(f'dmremap check ends with status {said}, but an activation has '
                            f'{"" if wrote else "not "}repaired something')

    def compare(self, state, spares, missing=None):
        key = state.mark, spares, missing
        if key not in self.seen:
            self.seen[key] = self.replay.activate(state, spares, missing)
            self.combinations += 1
            self.degraded += missing is not None
        seen = self.seen[key]
        if (key, self.model.revision) not in self.compared:
            compare(self.model, seen, missing)
            self.compared.add((key, self.model.revision))
        return seen

    def choose(self, state):
        """Each state that an activation repairs is as likely as the others to be the one that the
        next round begins with."""
        self.candidates += 1
        if self.chance.random() < 1 / self.candidates:
            self.chosen = self.media.image(state), self.model.after_crash()

    # --- What must be found wrong ---

    def doctored(self):
        """States that no crash may leave."""
        media, model = self.media, self.model
        final = media.state([])
        seen = self.replay.activate(final, max(model.spares))
        block = next(block for block, place in enumerate(model.places)
                     if place not in (None, MAIN) and model.least[block * model.block])
        spares = range(self.options.main, len(media.stable))
        data = {sector for sector in spares if not is_page(media.stable[sector])}
        self.must_be_wrong('metadata before the data that it points to', State(media, dict.fromkeys(data, 0)))
        self.must_be_wrong(f'a message answered before its metadata (block {block})',
                           State(media, dict.fromkeys(set(spares) - data, 0)))
        sector = next(at for at, least in enumerate(model.least)
                      if least and seen.places.get(at // model.block) is None and at not in model.bad)
        self.must_be_wrong(f'a flush answered before what it flushes (sector {sector})',
                           State(media, {sector: 0}))

    def must_be_wrong(self, what, state):
        try:
            compare(self.model, self.replay.activate(state, max(self.model.spares)))
        except (Wrong, Refused) as wrong:
            print(f'# {what}: {wrong}')
            return
        raise Wrong(f'{what}: this was not found wrong')


def forced_alone(events, notes):
    """How many writes with FUA were answered without any flush."""
    count, forced, flushed = 0, False, True
    for what, subject in events:
        if what == 'issue':
            forced |= subject.fua and not is_page(subject)
            flushed |= subject.is_flush()
        elif what == 'mark':
            kind, number = subject.split()
            if notes[int(number)]['did'] == 'forced':
                count += kind == 'ends' and forced and not flushed
                forced = flushed = False
    return count


def describe(subject, notes):
    """An event, in words."""
    if isinstance(subject, str):
        kind, number = subject.split()
        note = {key: value for key, value in notes[int(number)].items()
                if key not in ('numbers', 'found', 'versions')}
        return f'{kind} {note}'
    kind = 'discard' if subject.discard else 'write with FUA' if subject.fua else 'write'
    return 'a flush' if subject.is_flush() else f'a {kind} of sectors {subject.first} + {subject.count}'


def make_replay_disks(options, slices):
    """Disks in memory, which are faster than others, with sectors of main that fail."""
    main = options.main
    lines = [f'0 {main} linear /dev/replay0 0']
    if options.bad:
        lines = [f'0 {options.bad.start} linear /dev/replay0 0',
                 f'{options.bad.start} {len(options.bad)} error',
                 f'{options.bad.stop} {main - options.bad.stop} linear /dev/replay0 {options.bad.stop}']
    run('dmsetup', 'create', 'replaymain', '--table', '\n'.join(lines))
    for at, part in enumerate(slices[1:]):
        run('dmsetup', 'create', f'replayspare{at}', '--table', f'0 {len(part)} linear /dev/replay{at + 1} 0')
    run('dmsetup', 'create', 'replay', '--table', f'0 {main} error')


def initial_image(options):
    """Disks on which the spares are full of what must never be seen."""
    spares = b''
    for sectors in options.spare:
        stale = b''.join(b'stale %07d\n' % (len(spares) // SECTOR + at) * 36 + b'end of it..\n'[:8]
                         for at in range(sectors - 16))
        spares += bytes(8 * SECTOR) + stale + bytes(8 * SECTOR)
    return bytes(options.main * SECTOR) + spares


def put_image(image, bad):
    base = direct.Device('/dev/base')
    good = [(0, bad.start), (bad.stop, len(image) // SECTOR - bad.stop)]
    for first, count in (piece for part in good for piece in direct.pieces(*part)):
        base.write(first, image[first * SECTOR:(first + count) * SECTOR])
    os.close(base.file)


def work(options, recorder, versions, spares, seed, grow):
    """A round of work; returns its record and what was done."""
    recorder.start()
    doing = Work(options, recorder, versions, spares, seed)
    run('dmsetup', 'create', 'remap', '--table', f'0 {options.main} error')
    doing.create()
    doing.populate()
    for step in range(options.steps):
        if grow and step == options.steps // 2:
            doing.grow()
        doing.step()
    doing.end()
    doing.close()
    run('dmsetup', 'remove', 'remap')
    return recorder.stop(), doing.notes


def main_loop(options):
    sizes = [options.main, *options.spare]
    recorder = Recorder(sizes)
    make_replay_disks(options, recorder.slices)
    image, model = initial_image(options), Model(options)
    versions, chance = [0] * options.main, random.Random(options.seed)
    totals, alone = [0, 0, 0, 0], 0
    for turn in range(options.rounds):
        put_image(image, options.bad)
        grow = options.grow and turn == 0
        events, notes = work(options, recorder, versions, max(model.spares), chance.random(), grow)
        done = [note['did'] for note in notes]
        print('# round', turn + 1, '-', ', '.join(f'{done.count(did)} {did}' for did in sorted(set(done))))
        alone += forced_alone(events, notes)
        media = Media(image, options.bad_set)
        replay = Replay(options, recorder.slices, media)
        crashes = Crashes(options, replay, model, chance)
        crashes.run(events, notes)
        counts = crashes.points, crashes.combinations, crashes.degraded, replay.activations
        totals = list(map(sum, zip(totals, counts)))
        if grow:
            print(f'# {crashes.replaced} times a blank spare was taken for the one that was being added')
            if not crashes.replaced:
                raise Wrong('no spare that was being added can be replaced')
        print('# {} crash points, {} states, {} of them with a spare missing; {} activations'.format(*counts))
        if turn == options.rounds - 1:
            crashes.doctored()
        else:
            if crashes.chosen is None:
                raise Wrong('no state had to be repaired, so the next round has nothing to begin with')
            image, model = crashes.chosen
        replay.close()
    if not alone:
        raise Incomplete('every write with FUA had a flush beside it')
    print('{} crash points, {} states, {} of them with a spare missing; {} activations'.format(*totals),
          f'{alone} writes with FUA without any flush', sep='; ')


def sectors_of(text):
    """A range written as FIRST-LAST, or nothing."""
    first, last = text.split('-') if text else (0, -1)
    return range(int(first), int(last) + 1)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    for name, value in {'block': 8, 'main': 512, 'rounds': 3, 'steps': 30, 'tries': 3, 'seed': 0}.items():
        parser.add_argument(f'--{name}', type=int, default=value)
    parser.add_argument('--spare', type=int, nargs='+', default=[1024])
    parser.add_argument('--bad', type=sectors_of, default=sectors_of(''))
    parser.add_argument('--manual', action='store_true')
    parser.add_argument('--grow', action='store_true')
    options = parser.parse_args()
    options.bad_set = set(options.bad)
    options.spares = len(options.spare) - options.grow
    try:
        main_loop(options)
    except (Wrong, Incomplete) as wrong:
        sys.exit(f'{wrong} (--seed {options.seed})')


if __name__ == '__main__':
    main()
