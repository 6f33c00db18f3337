"""Block devices, read and written without the page cache."""

import errno
import mmap
import os

SECTOR = 512
REQUEST_SECTORS = 128


class Device:
    """A block device, whose reads and writes are a request each."""

    def __init__(self, path, largest=REQUEST_SECTORS, flags=0):
        self.path = path
        self.file = os.open(path, os.O_RDWR | os.O_DIRECT | flags)
        self.view = memoryview(mmap.mmap(-1, largest * SECTOR))

    def read(self, first, count):
        """The content of some sectors."""
        part = self.view[:count * SECTOR]
        self.complete(os.preadv(self.file, [part], first * SECTOR), part)
        return bytes(part)

    def write(self, first, data):
        part = self.view[:len(data)]
        part[:] = data
        self.complete(os.pwritev(self.file, [part], first * SECTOR), part)

    def flush(self):
        """Returns when what was written is on stable media."""
        os.fsync(self.file)

    def close(self):
        os.close(self.file)

    def complete(self, length, part):
        if length != len(part):
            raise OSError(errno.EIO, 'only a part was transferred', self.path)


def pieces(first, count):
    """A range of sectors as requests: where each begins, and how long it is."""
    for start in range(first, first + count, REQUEST_SECTORS):
        yield start, min(REQUEST_SECTORS, first + count - start)
