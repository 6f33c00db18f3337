#!/usr/bin/python3
"""Suspends and resumes a mapped device, again and again, in all ways.

cycles.py NAME COUNT suspend
cycles.py NAME COUNT reload TABLE...
cycles.py NAME COUNT clear TABLE...

suspend does nothing else; reload puts in one TABLE after the other; clear loads them, too,
but has device mapper forget them again.  After each of them the table in use is compared
with what it must be.  Prints how long the longest suspend took.
"""

import itertools
import sys
import time

import dm

# Whether to wait for requests, and whether to freeze a filesystem.
WAYS = list(itertools.product([False, True], repeat=2))


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    name, count, verb, *tables = sys.argv[1:]
    mapped = dm.Mapped(name)
    current = mapped.table()
    longest = 0
    for turn in range(int(count)):
        table = tables[turn % len(tables)] if tables else None
        noflush, lockfs = WAYS[turn % len(WAYS)]
        if table:
            mapped.load(table)
        if verb == 'clear':
            mapped.clear()
        else:
            before = time.monotonic()
            mapped.suspend(noflush, lockfs)
            longest = max(longest, time.monotonic() - before)
            mapped.resume()
        if verb == 'reload':
            current = table
        if mapped.table() != current:
            sys.exit(f'the table in use is "{mapped.table()}", not "{current}"')
    print(f'{count} times {verb}, the longest suspend took {longest:.3f} s')


if __name__ == '__main__':
    main()
