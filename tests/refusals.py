#!/usr/bin/python3 -IS
"""Asks for what must be refused.

Reads requests from standard input, one a line with tabs between its parts,

    table DEVICE ERRNO REGEX LINE         load the table line
    message DEVICE ERRNO REGEX WORDS      send the message

and answers each with a line, which is "ok" when the request is refused with this errno and
one line of the kernel log says why, in words that match, or else says what happened.
"""

import errno
import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from dm import Mapped  # noqa: E402

# What a line of the kernel log begins with that says why.  The module says other things, too,
# at any time.
SPEAKERS = {'table': re.compile('device-mapper: table: '),
            'message': re.compile(r'dm_remap: .*: (message refused: |\w+ failed because )')}

# For how many seconds a line of the log is waited for that should be there already.
PATIENCE = 30


class Log:
    """The lines that the kernel log gets from now on."""

    def __init__(self):
        self.file = os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.file, 0, os.SEEK_END)

    def new(self, speaker, least=0):
        """The lines since the last call that begin with what a regular expression matches.

        They are waited for until there are so many of them: what is behind a line that another processor has only begun
        cannot be read before that one is done, and such a processor may be busy with something else for a while."""
        lines, end = [], time.monotonic() + PATIENCE
        while True:
            try:
                record = os.read(self.file, 8192)
            except BlockingIOError:
                if len(lines) >= least or time.monotonic() > end:
                    return lines
                time.sleep(0.001)
                continue
            text = record.partition(b';')[2].partition(b'\n')[0].decode('ascii', 'replace')
            if re.match(speaker, text):
                lines.append(text)


def answer(log, kind, name, expected, regex, text):
    device = Mapped(name)
    log.new(SPEAKERS[kind])
    try:
        reply = device.load(text) if kind == 'table' else device.message(text)
    except OSError as error:
        found = errno.errorcode[error.errno]
    else:
        return f'it was not refused: {reply}'
    finally:
        os.close(device.control)
    lines = log.new(SPEAKERS[kind], least=1)
    if found != expected:
        return f'{found}: {lines}'
    if len(lines) != 1 or not re.search(': ' + regex, lines[0]):
        return f'the log says {lines}'
    return 'ok'


def main():
    log = Log()
    for line in sys.stdin:
        print(answer(log, *line.rstrip('\n').split('\t')))


if __name__ == '__main__':
    main()
