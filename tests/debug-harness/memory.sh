#!/bin/bash
#
# On the debug kernel no run passes in which a module misused memory.

# shellcheck source=lib-defects.sh
. "$(dirname "$0")/../lib-defects.sh"

build_defects debug

in_vm --debug-kernel 'insmod /dm-remap.ko && rmmod dm_remap_defects && nproc'
equal "a module without defects passes" 0 "$status"
equal "the kernel has the processors that it was given" 2 "$output"

in_vm --debug-kernel 'insmod /dm-remap.ko freed=1 && rmmod dm_remap_defects'
equal "a read of freed memory fails the run" 125 "$status"
matches "it is shown" '!! .*BUG: KASAN: slab-use-after-free' "$errors"

in_vm --debug-kernel 'insmod /dm-remap.ko leaked=1 && rmmod dm_remap_defects'
equal "a leak fails the run, however small" 125 "$status"
matches "it is shown whose it was" 'kmemleak: comm "insmod"' "$errors"
