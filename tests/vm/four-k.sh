#!/bin/bash
#
# Disks with sectors of 4096 bytes: as main, as spare, or both.  No request and no part
# of a block is smaller than a sector of any of the devices.

# shellcheck source=lib-sectors.sh
. /tests/lib-sectors.sh

dev=/dev/mapper/remap

main() {
	on_disks 4096 512
	on_disks 512 4096
	on_disks 4096 4096
	large_physical_block
}

promise() {
	printf '%s on %s: %s' "$main_bytes" "$spare_bytes" "$1"
}

# on_disks MAIN SPARE: with sectors of these sizes.
on_disks() {
	main_bytes=$1 spare_bytes=$2
	null_disk main 4 '' "blocksize=$1"
	null_disk spare 4 '' "blocksize=$2"
	sectors write /dev/spare 64 7000 stale
	small_blocks
	usual_blocks
	blkdiscard -z /dev/spare
	sectors write /dev/spare 64 7000 stale
	large_blocks
	rmdir /sys/kernel/config/nullb/{main,spare}
}

small_blocks() {
	local size
	for size in 1 2 4; do
		mark_log
		refused "$(promise "a block_size of $size is refused")" \
			remap_create remap /dev/main /dev/spare "block_size $size"
		expect_log "$(promise "the refusal of $size names the argument")" 'remap: .*block_size'
		dmsetup remove remap 2>/dev/null || true
	done
	check "$(promise "nothing was written to the spare")" sectors zero /dev/spare 0 8
}

# A block is one sector of 4096 bytes: all of it can be read, or nothing.
usual_blocks() {
	remap_create remap /dev/main /dev/spare manual
	equal "$(promise "blocks have 4096 bytes by default")" block=8 "$(remap_values remap block)"
	equal "$(promise "so have sectors of the device")" 4096 "$(blockdev --getss "$dev")"
	refused "$(promise "a smaller request is refused")" \
		dd if="$dev" of=/dev/null bs=512 skip=1 count=1 iflag=direct status=none
	sectors write "$dev" 0 256 old
	null_bad main 101-101
	check "$(promise "add relocates blocks of one sector")" remap remap add 88 20
	equal "$(promise "a sector is unreadable as a whole")" '88:ff 96:0 104:ff' "$(live_masks remap)"
	check "$(promise "unreadable sectors are counted")" agree remap
	unreadable_sector
	sectors write "$dev" 80 32 new
	equal "$(promise "a write brings it to life as a whole")" '88:ff 96:ff 104:ff' "$(live_masks remap)"
	check "$(promise "the write is read back")" sectors holds "$dev" 80 32 new
	refused "$(promise "main cannot take the bad sector back")" remap remap remove 0 256
	equal "$(promise "which alone stays relocated")" '96:ff' "$(live_masks remap)"
	everything_comes_back
}

unreadable_sector() {
	check "$(promise "the unreadable sector is an error")" sectors lost "$dev" 96 8
	check "$(promise "the sectors before it have their data")" sectors holds "$dev" 80 16 old
	check "$(promise "the sectors after it have their data")" sectors holds "$dev" 104 32 old
}

# A block has several sectors of 4096 bytes, of which one is bad.
large_blocks() {
	remap_create remap /dev/main /dev/spare 'block_size 32' manual
	sectors write "$dev" 0 256 old
	null_bad main 101-101
	check "$(promise "add relocates blocks of several sectors")" remap remap add 88 20
	equal "$(promise "only the bad one of a block is unreadable")" '64:ffffffff 96:ffffff00' "$(live_masks remap)"
	check "$(promise "in large blocks they are counted, too")" agree remap
	unreadable_sector
	sectors write "$dev" 96 8 new
	check "$(promise "a write of the unreadable sector is read back")" sectors holds "$dev" 96 8 new
	check "$(promise "its neighbour in the block is as before")" sectors holds "$dev" 104 24 old
	sectors write "$dev" 80 32 new
	refused "$(promise "main cannot take the block with the bad sector back")" remap remap remove 0 256
	everything_comes_back
}

# The device holds "new" in sectors 80 to 111.
everything_comes_back() {
	null_good main 0-8191
	check "$(promise "a good main takes everything back")" remap remap remove 0 256
	equal "$(promise "nothing is relocated then")" 'used=0 unreadable=0' "$(remap_values remap used unreadable)"
	check "$(promise "main has what was written")" sectors holds /dev/main 80 32 new
	check "$(promise "main has the rest")" sectors holds /dev/main 112 104 old
	dmsetup remove remap
}

# The default block size is at least the physical block of main, which a write should
# not touch a part of.
large_physical_block() {
	null_disk spare 4
	scsi_disk 8 physblk_exp=5
	# shellcheck disable=SC2154 # scsi_disk sets it.
	remap_create remap "$scsi_disk" /dev/spare
	equal "blocks are as large as the physical block of main" block=32 "$(remap_values remap block)"
	equal "sectors are as small as the logical block of main" 512 "$(blockdev --getss "$dev")"
	equal "the physical block of the device is that of main" 16384 "$(blockdev --getpbsz "$dev")"
}

main
