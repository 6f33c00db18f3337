#!/bin/bash
#
# Sectors of one block are written by different requests at the same time, while the
# block is relocated and brought back.  Each sector has the last value that was
# acknowledged, and what is read of it never goes back.
#
# races: possible

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh

busy_disk main 8
busy_disk spare 16

# try PROMISE BLOCK_SIZE [OPTION...]
try() {
	local output status=0
	remap_create remap /dev/main /dev/spare "block_size $2"
	output=$(/tests/churn.py run remap /dev/main /dev/spare --block "$2" \
		--seconds $((3 * effort)) "${@:3}" 2>&1) || status=$?
	equal "$1" 0 "$status"
	explain "$output"
	dmsetup remove remap
	# The next one begins with an empty spare.
	blkdiscard -z /dev/main
	blkdiscard -z /dev/spare
}

try "eight writers own a sector each of the same blocks of 4 KiB" \
	8 --count 64 --rounds 2 --largest 4
try "eight writers own eight sectors each of one block of 32 KiB" \
	64 --count 64 --rounds 2 --largest 1 --readers 1
try "a block may be a single sector" \
	1 --count 64 --largest 8 --span 4
try "writes across the ends of blocks that move by themselves" \
	8 --count 1536 --writers 6 --span 24 --movers 2 --largest 3
try "messages that relocate the same blocks and bring them back at the same time" \
	1 --count 1536 --writers 4 --span 6 --movers 3 --largest 250 --shared
