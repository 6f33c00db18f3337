#!/bin/bash
#
# The disks that other scenarios rely on fail where they are told to, and only
# there.

# shellcheck source=lib.sh
. /tests/lib.sh

read_sector() {
	dd if="$1" of=/dev/null bs=512 skip="$2" count=1 iflag=direct status=none
}

write_sector() {
	dd if=/dev/zero of="$1" bs=512 seek="$2" count=1 oflag=direct status=none
}

null_disk broken 64 100-101
refused "a bad sector of a null disk cannot be read" read_sector /dev/broken 100
refused "nor can it be written" write_sector /dev/broken 101
check "the sector before it can be read" read_sector /dev/broken 99
check "the sector after it can be written" write_sector /dev/broken 102
null_bad broken 200-200
refused "sectors can go bad later" read_sector /dev/broken 200
null_good broken 100-101
check "sectors can get well again" read_sector /dev/broken 100

scsi_disk 64
mark_log
scsi_bad 1000 8
refused "a bad sector of a SCSI disk cannot be read" read_sector "$scsi_disk" 1007
expect_log "the kernel knows it for a medium error" 'critical medium error, dev sd[a-z], sector 1007'
check "the sector after it can be read" read_sector "$scsi_disk" 1008
check "a bad sector of a SCSI disk can be written" write_sector "$scsi_disk" 1000
refused "and stays unreadable" read_sector "$scsi_disk" 1000
scsi_good
check "a SCSI disk can get well again" read_sector "$scsi_disk" 1000
