"""The disks of stress.py: their parts fail as told."""

import glob
import itertools
import os
import subprocess
import time

import dm
import failing
from churn import Wrong
from direct import SECTOR


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise Wrong(f'{" ".join(command)}: status {done.returncode}: {done.stdout.strip()}')
    return done.stdout


def within(seconds, condition):
    """Waits for a condition, and tells whether it came true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def sectors_of(ranges, kinds):
    return {sector for first, count, kind in ranges if kind in kinds
            for sector in range(first, first + count)}


class NullDisk:
    """A disk in memory.  Bad ranges of it fail for reads and writes."""

    kinds = ('all',)
    flush_fails, merges = False, True

    def __init__(self, name, mib, unit):
        self.folder = f'/sys/kernel/config/nullb/{name}'
        self.path = self.raw = f'/dev/{name}'
        self.sectors = mib * 2048
        self.bad = []
        os.mkdir(self.folder)
        for attribute, value in {'size': mib, 'blocksize': unit * SECTOR, 'memory_backed': 1,
                                 'discard': 1, 'irqmode': 2, 'completion_nsec': 20000,
                                 'submit_queues': 2, 'power': 1}.items():
            self.put(attribute, value)

    def put(self, attribute, value):
        with open(f'{self.folder}/{attribute}', 'w', encoding='ascii') as file:
            file.write(str(value))

    def fail(self, ranges):
        """From now on these ranges fail, and no others: (first, count, kind)."""
        old, new = (sectors_of(bad, self.kinds) for bad in (self.bad, ranges))
        # What fails before and after does so in between, too.
        for sign, changed in ('+', new - old), ('-', old - new):
            for _, run_ in itertools.groupby(enumerate(sorted(changed)), lambda pair: pair[1] - pair[0]):
                sectors = [sector for _, sector in run_]
                self.put('badblocks', f'{sign}{sectors[0]}-{sectors[-1]}')
        self.bad = ranges

    def remove(self):
        os.rmdir(self.folder)


class MappedDisk:
    """A mapped device over such a disk.  Ranges may fail for reads, for writes or for both."""

    kinds = ('reads', 'writes', 'all')
    flush_fails, merges = True, False

    def __init__(self, name, mib, unit):
        self.disk = NullDisk(f'{name}-disk', mib, unit)
        self.raw, self.sectors = self.disk.path, self.disk.sectors
        run('dmsetup', 'create', name, '--table', failing.table(self.raw, []))
        self.name, self.path = name, f'/dev/mapper/{name}'
        self.mapped = dm.Mapped(name)

    def fail(self, ranges):
        failing.put(self.mapped, self.raw, ranges)

    def remove(self):
        run('dmsetup', 'remove', '--retry', self.name)
        self.disk.remove()


class ScsiDisk:
    """A disk with one range of medium errors, for reads only."""

    kinds = ('reads',)
    flush_fails, merges = False, True

    def __init__(self, _name, mib, unit):
        run('modprobe', '-a', 'sd_mod')
        run('modprobe', 'scsi_debug', f'dev_size_mb={mib}', 'delay=0', f'sector_size={unit * SECTOR}',
            'lbpu=1', 'lbpws=1')
        pattern = '/sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/target*/*/block/*'
        if not within(60, lambda: glob.glob(pattern)):
            raise Wrong('scsi_debug makes no disk')
        self.path = self.raw = f'/dev/{os.path.basename(glob.glob(pattern)[0])}'
        within(60, lambda: os.path.exists(self.path))
        self.sectors = mib * 2048
        self.unit = unit

    def fail(self, ranges):
        first, count = ranges[-1][:2] if ranges else (0, 0)
        for name, value in ('opts', 0), ('medium_error_start', first // self.unit), \
                ('medium_error_count', count // self.unit), ('opts', 2 if ranges else 0):
            with open(f'/sys/module/scsi_debug/parameters/{name}', 'w', encoding='ascii') as file:
                file.write(str(value))

    def remove(self):
        within(60, lambda: subprocess.run(['rmmod', 'scsi_debug'], check=False,
                                          stderr=subprocess.DEVNULL).returncode == 0)
