#!/usr/bin/python3
"""A disk in memory some of whose sectors are weak: they can be read at the third attempt only.

weak.py DEVICE MIB

DEVICE is a network block device that nobody uses, and becomes the disk.  Like a drive it
reads the sectors of a request in order, and gives up at the first that it cannot read.  An
attempt counts when no other weak sector was tried since the one before.  Reads
commands from standard input, one a line, and answers each with one line:

    weak FIRST COUNT    from now on these sectors are weak
    bad FIRST COUNT     from now on they can be neither read nor written
    good FIRST COUNT    from now on nothing is wrong with them
    hold FIRST COUNT    reads of them wait from now on, and all requests behind these
    release             until this
    waits               says 1 when a read waits so, else 0
    forget              counts from here on
    reads FIRST COUNT   says how often the sectors have been asked for: the least and the most

Everything else is answered with what is wrong.
"""

import fcntl
import os
import socket
import struct
import sys
import threading

SECTOR = 512
ATTEMPTS = 3

# The driver of network block devices: its ioctls, flags and requests.
SET_SOCK, SET_BLKSIZE, DO_IT, SET_SIZE_BLOCKS, SET_FLAGS = 0xab00, 0xab01, 0xab03, 0xab07, 0xab0a
HAS_FLAGS, SEND_FLUSH = 1, 4
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
REQUEST = struct.Struct('>IHH8sQI')
REPLY = struct.Struct('>II8s')
REPLY_MAGIC = 0x67446698
FAILED = 5


class Disk:
    """Sectors, what is wrong with some of them, and how often each was asked for."""

    def __init__(self, size):
        self.data = bytearray(size)
        self.weak, self.bad, self.held = set(), set(), range(0)
        self.released, self.waits = threading.Event(), 0
        self.tried, self.attempts = None, 0
        self.asked = [0] * (size // SECTOR)
        self.lock = threading.Lock()

    def read(self, first, count):
        """The content; None when a sector cannot be read."""
        for sector in range(first, first + count):
            self.asked[sector] += 1
            if sector in self.bad or self.refuses(sector):
                return None
        return self.data[first * SECTOR:(first + count) * SECTOR]

    def wait(self, first, count):
        """Waits while one of the sectors is held."""
        if max(first, self.held.start) < min(first + count, self.held.stop):
            self.waits = 1
            self.released.wait()
            self.waits = 0

    def refuses(self, sector):
        """Whether this is an attempt at which a weak sector cannot be read."""
        if sector not in self.weak:
            return False
        self.attempts = self.attempts + 1 if sector == self.tried else 1
        self.tried = sector if self.attempts < ATTEMPTS else None
        return self.tried is not None

    def write(self, first, data):
        """Whether the sectors were written."""
        if not self.bad.isdisjoint(range(first, first + len(data) // SECTOR)):
            return False
        self.data[first * SECTOR:first * SECTOR + len(data)] = data
        return True

    def carry_out(self, command, first=0, count=0):
        """Carries out a command, and returns the answer."""
        sectors = range(first, first + count)
        if command == 'reads':
            asked = self.asked[first:first + count]
            return f'{min(asked)} {max(asked)}'
        if command == 'waits':
            return str(self.waits)
        if command == 'forget':
            self.asked = [0] * len(self.asked)
        elif command == 'hold':
            self.released.clear()
            self.held = sectors
        elif command == 'release':
            self.held = range(0)
            self.released.set()
        elif command in ('weak', 'bad', 'good'):
            self.weak.difference_update(sectors)
            self.bad.difference_update(sectors)
            if command != 'good':
                getattr(self, command).update(sectors)
        else:
            return 'there is no such command'
        return 'ok'


def take(stream, count):
    data = stream.recv(count, socket.MSG_WAITALL)
    if len(data) != count:
        sys.exit('the kernel has closed the connection')
    return data


def serve(stream, disk):
    """Carries out requests until the device is not used any more."""
    while True:
        _, flags, kind, cookie, offset, length = REQUEST.unpack(take(stream, REQUEST.size))
        first, count, done, data = offset // SECTOR, length // SECTOR, True, b''
        if kind == READ:
            disk.wait(first, count)
        with disk.lock:
            if kind == READ:
                data = disk.read(first, count)
                done = data is not None
            elif kind == WRITE:
                done = disk.write(first, take(stream, length))
            elif kind == DISCONNECT:
                return
            elif kind != FLUSH:
                done = False
        stream.sendall(REPLY.pack(REPLY_MAGIC, 0 if done else FAILED, cookie) + (data or b''))


def attach(path, size, stream):
    """Makes the disk of the device."""
    device = os.open(path, os.O_RDWR)
    for number, value in ((SET_BLKSIZE, SECTOR), (SET_SIZE_BLOCKS, size // SECTOR),
                          (SET_FLAGS, HAS_FLAGS | SEND_FLUSH), (SET_SOCK, stream.fileno())):
        fcntl.ioctl(device, number, value)
    threading.Thread(target=fcntl.ioctl, args=(device, DO_IT), daemon=True).start()


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    size = int(sys.argv[2]) << 20
    disk = Disk(size)
    ours, kernels = socket.socketpair()
    threading.Thread(target=serve, args=(ours, disk), daemon=True).start()
    attach(sys.argv[1], size, kernels)
    for line in sys.stdin:
        command, *numbers = line.split()
        try:
            with disk.lock:
                answer = disk.carry_out(command, *map(int, numbers))
        except (ValueError, IndexError) as error:
            answer = f'{type(error).__name__}: {error}'
        print(answer, flush=True)


if __name__ == '__main__':
    main()
