#!/usr/bin/python3
"""Sends all kinds of messages from many processes at once.

messages.py NAME SECONDS

Each process sends one kind of message over and over, about the first 4096 sectors, and
checks what comes back: that it has the right form, that a list is in order and without
doubles, and that none is kept waiting for ever.
"""

import os
import random
import re
import sys
import time

import dm

SECTORS = 4096
PATIENCE = 100

KEYS = ('mode health block spares used total unreadable reads writes spare_reads spare_writes '
        'read_errors write_errors other_errors relocated relocated_auto removed refused scan '
        'scan_pos scan_passes scan_errors meta_errors last_error exhaustion_days').split()
STATUS = re.compile(r'\d+ \d+ remap ' + ' '.join(rf'{key}=(\S+)' for key in KEYS))
TABLE = re.compile(r'0 \d+ remap \d+:\d+ 1 \d+:\d+( \d+ [a-z_0-9 -]+)?')
LOOKUP = re.compile(r'main|spare 0 \d+ [0-9a-f]+')
LIST = re.compile(r'(\d+) \d+ 0 (\d+) [0-9a-f]+ message \d+')
STATS = re.compile(r'([a-z0-9_]+=\S+\n)+')


def expect(pattern, text):
    if not pattern.fullmatch(text):
        raise ValueError(f'unexpected: {text!r}')


def check_list(lines):
    entries = []
    for line in lines:
        expect(LIST, ' '.join(line))
        entries.append((int(line[0]), int(line[3])))
    for column in zip(*entries):
        if len(set(column)) != len(column):
            raise ValueError(f'a list has something twice: {lines}')
    if entries != sorted(entries):
        raise ValueError(f'a list is not in order: {lines}')


def somewhere():
    first = random.randrange(SECTORS)
    return f'{first} {random.randint(1, min(512, SECTORS - first))}'


def setting():
    name = random.choice(['read_retries', 'scan_rate', 'scan_interval', 'auto'])
    return f'set {name} {random.randint(1, 9) if name != "auto" else random.randint(0, 1)}'


KINDS = {
    'add': lambda d: expect(re.compile(''), d.message('add ' + somewhere())),
    'remove': lambda d: expect(re.compile(''), d.message('remove ' + somewhere())),
    'list': lambda d: check_list(d.list()),
    'part of list': lambda d: expect(re.compile(f'({LIST.pattern}\n){{0,3}}'),
                                     d.message(f'list {random.randrange(SECTORS)} 3')),
    'lookup': lambda d: expect(LOOKUP, d.message(f'lookup {random.randrange(SECTORS)}').strip()),
    'stats': lambda d: expect(STATS, d.message('stats')),
    'stats reset': lambda d: expect(re.compile(''), d.message('stats reset')),
    'set': lambda d: expect(re.compile(''), d.message(setting())),
    'sync': lambda d: expect(re.compile(''), d.message('sync')),
    'status': lambda d: expect(STATUS, d.status()),
    'table': lambda d: expect(TABLE, d.table()),
}


def repeat(name, kind, seconds):
    """What a process does: returns how often, and how long the longest took."""
    device = dm.Mapped(name)
    end = time.monotonic() + seconds
    count, longest = 0, 0
    while count == 0 or time.monotonic() < end:
        before = time.monotonic()
        KINDS[kind](device)
        longest = max(longest, time.monotonic() - before)
        count += 1
    print(f'{kind}: {count} times, the longest took {longest:.3f} s', flush=True)
    if longest > PATIENCE:
        raise TimeoutError('that is too long')


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    children = {}
    for kind in KINDS:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                repeat(sys.argv[1], kind, float(sys.argv[2]))
                status = 0
            except (OSError, ValueError) as error:
                print(f'{kind}: {error}', flush=True)
            finally:
                os._exit(status)
        children[child] = kind
    failed = [children[child] for child in list(children) if os.waitpid(child, 0)[1] != 0]
    if failed:
        sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
    main()
