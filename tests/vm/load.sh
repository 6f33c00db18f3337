#!/bin/bash
#
# The module comes and goes.

# shellcheck source=lib.sh
. /tests/lib.sh

check "the module loads" insmod /dm-remap.ko
check "device mapper knows the target remap" grep -E '^remap +v[0-9]+\.[0-9]+\.[0-9]+$' <(dmsetup targets)
check "the module unloads" rmmod dm_remap
refused "device mapper no longer knows the target remap" grep '^remap ' <(dmsetup targets)
check "the module loads again" insmod /dm-remap.ko

rmmod dm_remap

# Device mapper loads it by itself where it is installed.
null_disk main 32
null_disk spare 16
install -D -m 644 /dm-remap.ko "/lib/modules/$(uname -r)/extra/dm-remap.ko"
depmod
check "a table line with the target remap loads the module" \
	dmsetup create r --table "0 65536 remap /dev/main 1 /dev/spare"
refused "the module does not unload while a device uses it" rmmod dm_remap
