"""Requests to a block device, many of them at a time."""

import ctypes
import errno
import mmap
import os
import struct

import dm
from direct import SECTOR

# How many requests there are at most, and how many sectors each has.
DEPTH, LONGEST = 24, 128
# A single one may have all of the memory.
MOST = DEPTH * LONGEST
CODES = {'read': 0, 'write': 1, 'flush': 2}
FLAGS = {'FUA': 2, 'NOWAIT': 8}
IO_SETUP, IO_DESTROY, IO_GETEVENTS, IO_SUBMIT = 206, 207, 208, 209
CONTROL = struct.Struct('<QIiHhIQQqQII')
EVENT = struct.Struct('<QQqq')


def system(number, *arguments):
    result = dm.libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


class Queue:
    """Many requests at a time to a device, without the page cache.

    A request is an object with the attributes what (read, write or flush, and the flags), first and count."""

    def __init__(self, path):
        self.file = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.context = ctypes.c_ulong(0)
        system(IO_SETUP, DEPTH, ctypes.byref(self.context))
        self.memory = mmap.mmap(-1, MOST * SECTOR)
        self.view = memoryview(self.memory)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def buffer(self, slot, count):
        start = slot * LONGEST * SECTOR
        return self.view[start:start + count * SECTOR]

    def send(self, operations):
        """Sends requests all at once, and returns the error of each, 0 for none."""
        blocks = ctypes.create_string_buffer(len(operations) * CONTROL.size)
        pointers = (ctypes.c_ulong * len(operations))()
        for slot, operation in enumerate(operations):
            code, *flags = operation.what.split()
            CONTROL.pack_into(blocks, slot * CONTROL.size, slot, 0, sum(map(FLAGS.get, flags)), CODES[code], 0,
                              self.file, self.address + slot * LONGEST * SECTOR if operation.count else 0,
                              operation.count * SECTOR, operation.first * SECTOR, 0, 0, 0)
            pointers[slot] = ctypes.addressof(blocks) + slot * CONTROL.size
        sent, errors = 0, [0] * len(operations)
        while sent < len(operations):
            try:
                sent += system(IO_SUBMIT, self.context, ctypes.c_long(len(operations) - sent),
                               ctypes.byref(pointers, sent * 8))
            except OSError as error:
                # The first of them is refused.
                errors[sent] = error.errno
                sent += 1
        self.wait(operations, errors)
        return errors

    def wait(self, operations, errors):
        """Waits for those that were not refused.  None may be carried out in part."""
        sent = errors.count(0)
        events = ctypes.create_string_buffer(sent * EVENT.size)
        count = 0
        while count < sent:
            count += system(IO_GETEVENTS, self.context, ctypes.c_long(1), ctypes.c_long(sent - count),
                            ctypes.byref(events, count * EVENT.size), None)
        for slot, _, result, _ in EVENT.iter_unpack(events.raw):
            if result < 0:
                errors[slot] = -result
            elif result != operations[slot].count * SECTOR:
                errors[slot] = errno.EMSGSIZE

    def close(self):
        system(IO_DESTROY, self.context)
        os.close(self.file)
