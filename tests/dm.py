"""Device mapper's requests, without a process for each of them.

Everything that a test does with a mapped device once or a few times it does with dmsetup;
this is for what it does thousands of times, or has to see the errno of.
"""

import ctypes
import errno
import os
import struct

HEADER = struct.Struct('=3I I I I i I I I Q 128s 129s 7x')
TARGET = struct.Struct('=Q Q i I 16s')
MESSAGE = struct.Struct('=Q')

DEV_SUSPEND, DEV_WAIT, TABLE_LOAD, TABLE_CLEAR, TABLE_STATUS, TARGET_MSG = 6, 8, 9, 10, 12, 14

SUSPEND, STATUS_TABLE, BUFFER_FULL = 1 << 1, 1 << 4, 1 << 8
SKIP_LOCKFS, NOFLUSH, DATA_OUT = 1 << 10, 1 << 11, 1 << 16

REPLY_BYTES = 1 << 12

libc = ctypes.CDLL(None, use_errno=True)


def target_of(start, length, target, parameters):
    """A line of a table as TABLE_LOAD has it; the parameters are bytes, and may be any."""
    words = parameters + b'\0'
    words += b'\0' * (-len(words) % 8)
    return TARGET.pack(start, length, 0, TARGET.size + len(words), target.encode()) + words


class Mapped:
    """A mapped device that has one target."""

    def __init__(self, name):
        self.name = name
        self.control = os.open('/dev/mapper/control', os.O_RDWR)

    def request(self, number, data=b'', flags=0, targets=0, event=0, room=0):
        """Sends a request; returns the flags, the number of events and the data of the reply."""
        size = HEADER.size + max(len(data), room)
        head = HEADER.pack(4, 0, 0, size, HEADER.size, targets, 0, flags, event, 0, 0,
                           self.name.encode(), b'')
        buffer = ctypes.create_string_buffer(head + data, size)
        code = 3 << 30 | HEADER.size << 16 | 0xfd << 8 | number
        # The answer to a signal is the caller's to see, so nothing here asks again.
        if libc.ioctl(self.control, ctypes.c_ulong(code), buffer):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), self.name)
        reply = HEADER.unpack_from(buffer)
        flags = reply[7]
        if flags & BUFFER_FULL:
            raise OSError(errno.EMSGSIZE, 'the reply is too long', self.name)
        return flags, reply[8], buffer.raw[reply[4]:]

    def message(self, text, room=REPLY_BYTES):
        """Sends a message to the target, and returns what it replies."""
        return self.message_bytes(text.encode(), room)

    def message_bytes(self, text, room=REPLY_BYTES):
        """The same for any bytes."""
        data = MESSAGE.pack(0) + text + b'\0'
        flags, _, reply = self.request(TARGET_MSG, data, room=room)
        return reply[:reply.index(b'\0')].decode() if flags & DATA_OUT else ''

    def list(self):
        """The relocated blocks: a list of words for each."""
        room = 64 * (int(self.value('used')) + 256)
        while True:
            try:
                return [line.split() for line in self.message('list', room).splitlines()]
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
            # More blocks were relocated meanwhile.
            room *= 2

    def suspend(self, noflush=False, lockfs=True):
        self.request(DEV_SUSPEND, flags=SUSPEND | (NOFLUSH if noflush else 0)
                     | (0 if lockfs else SKIP_LOCKFS))

    def resume(self):
        """Resumes the device, with the table that was loaded, if any."""
        self.request(DEV_SUSPEND)

    def is_suspended(self):
        return bool(self.request(TABLE_STATUS, room=1 << 14)[0] & SUSPEND)

    def load(self, table):
        """Loads lines as dmsetup table prints them."""
        data, lines = b'', table.splitlines()
        for line in lines:
            start, length, target, *parameters = line.split(None, 3)
            data += target_of(int(start), int(length), target, ''.join(parameters).strip().encode())
        self.request(TABLE_LOAD, data, targets=len(lines))

    def clear(self):
        """Forgets the table that was loaded."""
        self.request(TABLE_CLEAR)

    def table(self):
        return self.line(STATUS_TABLE)

    def status(self):
        return self.line(0)

    def line(self, flags):
        """The line of the target as dmsetup prints it."""
        _, _, reply = self.request(TABLE_STATUS, flags=flags, room=1 << 14)
        start, length, _, _, target = TARGET.unpack_from(reply)
        words = reply[TARGET.size:reply.index(b'\0', TARGET.size)].decode()
        return f'{start} {length} {target.rstrip(bytes(1)).decode()} {words}'

    def value(self, key):
        """The value of a key in the status."""
        words = dict(word.split('=') for word in self.status().split()[3:])
        return words[key]
