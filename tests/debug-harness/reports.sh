#!/bin/bash
#
# On the debug kernel no run passes in which a module misused memory, locks, RCU or timers.

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

# finds PARAMETER WHAT PATTERN: a run in which the module does this fails, and shows PATTERN.
finds() {
	in_vm --debug-kernel "insmod /dm-remap.ko $1=1 && rmmod dm_remap_defects"
	equal "$2 fails the run" 125 "$status"
	matches "it is shown" "$3" "$errors"
}

finds inverted "an order of locks that is not always the same" 'possible circular locking dependency'
finds slept "sleep under a lock that spins" 'BUG: sleeping function called from invalid context'
finds unread "sleep in an RCU read-side section" 'RCU nest depth: 1, expected: 0'
finds queued "to free what is queued" 'ODEBUG: free active'
