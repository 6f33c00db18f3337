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

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from dm import Mapped  # noqa: E402

# What a line of the kernel log begins with that says why.  The module says other things, too,
# at any time.
SPEAKERS = {'table': re.compile('device-mapper: table: '),
            'message': re.compile(r'dm_remap: .*: (message refused: |\w+ failed because )')}


class Log:
    """The lines that the kernel log gets from now on."""

    def __init__(self):
        self.file = os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.file, 0, os.SEEK_END)

    def new(self, speaker):
        """The lines of a speaker since the last call."""
        lines = []
        while True:
            try:
                record = os.read(self.file, 8192)
            except BlockingIOError:
                return lines
            text = record.partition(b';')[2].partition(b'\n')[0].decode('ascii', 'replace')
            if speaker.match(text):
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
    lines = log.new(SPEAKERS[kind])
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
