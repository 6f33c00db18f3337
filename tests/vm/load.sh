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
