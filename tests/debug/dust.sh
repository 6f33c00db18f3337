#!/bin/bash
#
# Main is a disk of dm-dust: a block that is bad cannot be read until it is written, as with
# a disk that has places in reserve.  What cannot be read is an error, what is written is on
# the spare, and main is not written there, so it stays bad beneath.

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

dev=/dev/mapper/remap

main() {
	load_module
	modprobe dm-dust
	null_disk disk 8
	null_disk spare 4
	dmsetup create dusty --table '0 16384 dust /dev/disk 0 512'
	remap_create remap /dev/mapper/dusty /dev/spare 'block_size 8'
	sectors write "$dev" 0 2048 old
	reads_fail
	writes_go_to_the_spare
	a_pass_finds_them
	it_can_be_read_again
	all_comes_back
	dmsetup remove dusty
}

# dust VERB [BLOCK...]: has dm-dust do this for each of the blocks.
dust() {
	local block
	for block in "${@:2}"; do
		dmsetup message dusty 0 "$1" "$block" >/dev/null
	done
}

# bad_blocks: prints how many blocks dm-dust has for bad.
bad_blocks() {
	dmsetup message dusty 0 countbadblocks | grep -oE '[0-9]+ badblock' | cut -d ' ' -f 1
}

reads_fail() {
	dust addbadblock 100 101 1003
	dmsetup message dusty 0 enable
	check "what cannot be read is an error" sectors lost "$dev" 100 2
	check "what is beside it is read" sectors holds "$dev" 102 900 old
	equal "its block is relocated without it" 96:cf "$(live_masks remap)"
	equal "and the sectors are counted" 'mode=rw used=1 unreadable=2' "$(remap_values remap mode used unreadable)"
}

writes_go_to_the_spare() {
	check "an unreadable sector can be written" sectors write "$dev" 100 1 new
	check "and read then" sectors holds "$dev" 100 1 new
	equal "on the spare" 96:df "$(live_masks remap)"
	equal "which is not tried on main" 3 "$(bad_blocks)"
}

a_pass_finds_them() {
	remap remap scan start
	within 60 pass_has_ended
	equal "a pass finds what nobody has read" '96:df 1000:f7' "$(live_masks remap)"
	check "what is beside that is read" sectors holds "$dev" 1000 3 old
	check "on both sides" sectors holds "$dev" 1004 4 old
}

pass_has_ended() {
	[[ $(remap_status remap scan_passes) -ge 1 ]]
}

it_can_be_read_again() {
	dust removebadblock 101
	check "what main can read again is read" sectors holds "$dev" 101 1 old
	check "and saved then" within 60 saved
	dust addbadblock 101
	check "so that main need not have it any more" sectors holds "$dev" 101 1 old
}

saved() {
	[[ $(live_masks remap) == '96:ff 1000:f7' ]]
}

all_comes_back() {
	sectors write "$dev" 1003 1 new
	check "blocks can be brought back to a disk that mends its places by itself" remap remap remove 0 2048
	equal "all of them" '' "$(live_masks remap)"
	equal "so that none is bad there" 0 "$(bad_blocks)"
	check "with what was written" sectors holds "$dev" 100 1 new
	check "and what was there" sectors holds "$dev" 101 1 old
	check "in both blocks" sectors holds "$dev" 1003 1 new
	dmsetup remove remap
}

main
