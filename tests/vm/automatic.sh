#!/bin/bash
#
# Errors become success, or honest errors: what fails on main is relocated by itself.

# shellcheck source=lib-sectors.sh
. /tests/lib-sectors.sh

dev=/dev/mapper/remap

main() {
	null_disk main 8
	null_disk spare 4
	remap_create remap /dev/main /dev/spare 'block_size 8'
	sectors write "$dev" 0 2048 old

	null_bad main 100-103
	sectors write "$dev" 100 2 new
	equal "a failed write is on the spare" "96:3f" "$(live_masks remap)" 
	dmsetup status remap; remap remap list; dmesg | tail -5
	check "it is read back" sectors holds "$dev" 100 2 new
	check "with the readable sectors of its block" sectors holds "$dev" 96 4 old
	check "sectors that could not be read are errors" sectors lost "$dev" 102 2
	sectors write "$dev" 102 2 new
	check "when written they are good" sectors holds "$dev" 100 4 new

	null_bad main 200-300
	sectors write "$dev" 128 256 newer
	check "a long write over many bad blocks succeeds" sectors holds "$dev" 128 256 newer
	null_bad main 500-500
	check "a failed read" sectors lost "$dev" 500 1
	dmsetup status remap; remap remap list; dmesg | tail -40
	check "the rest of its block" sectors holds "$dev" 496 4 old
	sectors write "$dev" 500 1 newest
	check "then written" sectors holds "$dev" 500 1 newest
	dmsetup remove remap
	remap_create remap /dev/main /dev/spare 'block_size 8'
	check "all is there at the next activation" sectors holds "$dev" 128 256 newer
	check "all is there at the next activation" sectors holds "$dev" 500 1 newest
}

main
