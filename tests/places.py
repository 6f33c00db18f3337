#!/usr/bin/python3
"""What a mapped device holds, put together from the disks beneath.

places.py NAME MAIN SPARE...

Succeeds when /dev/mapper/NAME reads as its list of relocated blocks says: every live sector
as on SPARE, all others as on MAIN; when no two blocks share a place; and when the message
lookup and the status say the same as the list.
"""

import sys

import direct
import dm


class Places:
    """A mapped device, read from its disks."""

    def __init__(self, name, main, spares):
        self.mapped = dm.Mapped(name)
        self.main = direct.Device(main)
        self.spares = [direct.Device(spare) for spare in spares]
        self.block = int(self.mapped.value('block'))
        self.relocated = {}
        for sector, _, spare, place, live, *_ in self.mapped.list():
            self.relocated[int(sector)] = int(spare), int(place), int(live, 16)

    def read(self, first, count):
        """Some sectors, from where they live."""
        data = bytearray(self.main.read(first, count))
        for block in range(first - first % self.block, first + count, self.block):
            spare, place, live = self.relocated.get(block, (0, 0, 0))
            if live == 0:
                continue
            on_spare = self.spares[spare].read(place, self.block)
            for at in range(max(first, block), min(first + count, block + self.block)):
                if live >> (at - block) & 1:
                    to, source = (at - first) * direct.SECTOR, (at - block) * direct.SECTOR
                    data[to:to + direct.SECTOR] = on_spare[source:source + direct.SECTOR]
        return bytes(data)

    def is_live(self, sector):
        """Whether a sector lives on a spare."""
        _, _, live = self.relocated.get(sector - sector % self.block, (0, 0, 0))
        return bool(live >> sector % self.block & 1)

    def complaint(self):
        """What is wrong with the list; None when nothing is."""
        used = self.mapped.value('used')
        if len(self.relocated) != int(used):
            return f'the list has {len(self.relocated)} blocks, the status {used}'
        if len({place[:2] for place in self.relocated.values()}) != len(self.relocated):
            return 'two blocks share a place on the spare'
        for block, (spare, place, live) in self.relocated.items():
            listed = f'spare {spare} {place} {live:x}'
            found = self.mapped.message(f'lookup {block}')
            if found != listed:
                return f'the list has {block} at "{listed}", but lookup says "{found}"'
        return None


def difference(first, on_device, on_disks):
    """Which sector is the first to differ; None when none does."""
    for at in range(0, len(on_device), direct.SECTOR):
        if on_device[at:at + direct.SECTOR] != on_disks[at:at + direct.SECTOR]:
            return f'sector {first + at // direct.SECTOR} is not what lies on the disks'
    return None


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    name, main_disk, *spares = sys.argv[1:]
    places = Places(name, main_disk, spares)
    wrong = places.complaint()
    device = direct.Device(f'/dev/mapper/{name}')
    size = int(places.mapped.status().split()[1])
    for first, count in direct.pieces(0, size):
        if wrong:
            sys.exit(wrong)
        wrong = difference(first, device.read(first, count), places.read(first, count))
    if wrong:
        sys.exit(wrong)
    print(f'{len(places.relocated)} blocks are relocated')


if __name__ == '__main__':
    main()
