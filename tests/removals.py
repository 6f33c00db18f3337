#!/usr/bin/python3
"""Removes a mapped device again and again, while it is at work.

removals.py NAME COUNT TABLE

Sectors are written and read, blocks are moved and the background pass runs when "dmsetup remove
--force" takes the table away, so that all of it fails, and then the device.  It is made
again with TABLE, and each sector must hold what was acknowledged, or what was under way.
"""

import random
import struct
import subprocess
import sys
import threading
import time

import direct
import dm

SECTORS, BLOCK, WRITERS = 256, 8, 3
NUMBER = struct.Struct('<Q')


class Load:
    """What goes on with the device until it is removed."""

    def __init__(self, name, table):
        self.name, self.table = name, table
        self.mapped = dm.Mapped(name)
        # Each sector has one writer, but a block has all of them.
        self.acknowledged = [0] * SECTORS
        self.tried = [0] * SECTORS
        self.wrong = []

    def turn(self, seed):
        """One life of the device."""
        self.taken_away = threading.Event()
        chance = random.Random(seed)
        actors = [threading.Thread(target=self.write, args=(number, random.Random(chance.random())))
                  for number in range(WRITERS)]
        actors.append(threading.Thread(target=self.move, args=(random.Random(chance.random()),)))
        for actor in actors:
            actor.start()
        time.sleep(chance.uniform(0.01, 0.1))
        self.taken_away.set()
        subprocess.run(['dmsetup', 'remove', '--force', '--retry', self.name], check=True,
                       capture_output=True)
        for actor in actors:
            actor.join()
        subprocess.run(['dmsetup', 'create', self.name, '--table', self.table], check=True)
        self.compare()

    def write(self, number, chance):
        device = direct.Device(f'/dev/mapper/{self.name}')
        own = range(number, SECTORS, WRITERS)
        try:
            while True:
                sector = chance.choice(own)
                self.tried[sector] += 1
                device.write(sector, NUMBER.pack(self.tried[sector]) * (direct.SECTOR // 8))
                self.acknowledged[sector] = self.tried[sector]
                self.look_at(device, sector)
        except OSError as error:
            self.stopped_by(error)
        finally:
            device.close()

    def move(self, chance):
        try:
            # One that was under way goes on by itself.
            if self.mapped.value('scan') == 'idle':
                self.mapped.message('scan start')
            while True:
                verb = chance.choice(['add', 'remove'])
                self.mapped.message(f'{verb} {chance.randrange(SECTORS)} {chance.choice([1, 24])}')
        except OSError as error:
            self.stopped_by(error)

    def stopped_by(self, error):
        """Nothing fails before the table is taken away."""
        if not self.taken_away.is_set():
            self.wrong.append(f'it failed before it was removed: {error}')

    def look_at(self, device, sector):
        words = device.read(sector, 1)
        number, = NUMBER.unpack_from(words)
        if words != NUMBER.pack(number) * (direct.SECTOR // 8):
            self.wrong.append(f'sector {sector} is a mixture')
        if not self.acknowledged[sector] <= number <= self.tried[sector]:
            self.wrong.append(f'sector {sector} has {number}, not {self.acknowledged[sector]} '
                              f'to {self.tried[sector]}')
        return number

    def compare(self):
        """Looks at all sectors: what was under way has happened, or never will."""
        device = direct.Device(f'/dev/mapper/{self.name}')
        for sector in range(SECTORS):
            number = self.look_at(device, sector)
            self.acknowledged[sector] = self.tried[sector] = number
        device.close()
        if self.wrong:
            sys.exit('\n'.join(self.wrong[:10]))


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    name, count, table = sys.argv[1:]
    load = Load(name, table)
    device = direct.Device(f'/dev/mapper/{name}')
    for sector in range(SECTORS):
        device.write(sector, bytes(direct.SECTOR))
    device.close()
    for turn in range(int(count)):
        load.turn(turn)
    if sum(load.acknowledged) < int(count):
        sys.exit('hardly anything was written')
    print(f'{count} times removed, {sum(load.acknowledged)} writes were there afterwards')


if __name__ == '__main__':
    main()
