#!/bin/bash
#
# Relocation by itself: a write that fails on main succeeds on the spare, a read that fails
# there gives the data or an error for exactly the sectors that cannot be read, and what
# cannot be read is never invented.
#
# ci: debug-kernel
# races: possible

# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap

main() {
	null_disk disk 8
	failing_disk below /dev/disk
	null_disk spare 4
	main=/dev/mapper/below spare=/dev/spare
	failed_writes
	long_writes
	failed_reads
	reads_again
	writers_at_once
	only_by_message

	scsi_disk 8
	weak_sectors
	retries
	zeroes
}

# activate [FEATURE...]: makes the device anew.  Whatever the spare held before must never
# be seen.
activate() {
	blkdiscard -z "$spare"
	sectors write "$spare" 16 2000 stale
	remap_create remap "$main" "$spare" 'block_size 8' "$@"
}

# bad RANGE...: these ranges of main fail from now on, and no others.
bad() {
	failing below /dev/disk "$@"
}

deactivate() {
	dmsetup remove remap
	bad
}

again() {
	dmsetup remove remap
	remap_create remap "$main" "$spare" 'block_size 8'
}

failed_writes() {
	activate
	sectors write "$dev" 0 2048 old

	bad writes:100:2
	check "a write that main refuses succeeds" sectors write "$dev" 101 1 new
	equal "its block lives on the spare, all of it" 96:ff "$(live_masks remap)"
	equal "because of a write" 96:write "$(causes remap)"
	equal "as the status counts" 'used=1 unreadable=0 read_errors=0 write_errors=1 other_errors=0 relocated=1 relocated_auto=1' \
		"$(remap_values remap used unreadable read_errors write_errors other_errors relocated relocated_auto)"
	check "what was written is read back" sectors holds "$dev" 101 1 new
	check "and what its block held before it" sectors holds "$dev" 96 5 old
	check "and behind it" sectors holds "$dev" 102 2 old
	check "while main holds the old" sectors holds /dev/disk 101 1 old
	check "other sectors of main are written there" sectors write "$dev" 104 1 new
	equal "without a relocation" used=1 "$(remap_values remap used)"

	bad all:200:4
	check "a write succeeds beside sectors that cannot be read" sectors write "$dev" 200 2 new
	equal "those stay on main" '96:ff 200:f3' "$(live_masks remap)"
	check "the written ones are read back" sectors holds "$dev" 200 2 new
	check "so are those that could be read" sectors holds "$dev" 204 4 old
	check "the others are errors" sectors lost "$dev" 202 2
	check "which relocate nothing" test "$(remap_values remap relocated unreadable)" = 'relocated=2 unreadable=2'
	check "until they are written" sectors write "$dev" 202 1 newer
	equal "one by one" '96:ff 200:f7' "$(live_masks remap)"
	again
	equal "the next activation finds the same" '96:ff 200:f7' "$(live_masks remap)"
	check "with the data" sectors holds "$dev" 200 2 new
	check "all of it" sectors holds "$dev" 202 1 newer
	check "and the error" sectors lost "$dev" 203 1
	check "which ends with a write" sectors write "$dev" 203 1 newest
	check "for good" sectors holds "$dev" 203 1 newest
	deactivate
}

long_writes() {
	local wanted='' sector
	activate
	sectors write "$dev" 0 2048 old
	bad all:200:101 writes:500:3
	check "a long write over many bad blocks succeeds" sectors write "$dev" 130 120 new
	for ((sector = 200; sector < 250; sector += 8)); do
		wanted+="$sector:ff "
	done
	# Its last block is bad from 248 on, and only 248 and 249 were written.
	wanted=${wanted/248:ff/248:3}
	equal "only the bad ones of its blocks were relocated" "${wanted% }" "$(live_masks remap)"
	check "it is read back" sectors holds "$dev" 130 120 new
	check "what was before it is as it was" sectors holds "$dev" 120 10 old
	check "what cannot be read behind it is an error" sectors lost "$dev" 250 6
	check "a write that is durable when it returns succeeds" \
		dd if=/dev/zero of="$dev" bs=512 seek=500 count=4 oflag=direct,dsync status=none
	check "with all of its data" sectors zero "$dev" 500 4
	check "and what is beside it" sectors holds "$dev" 504 8 old
	equal "on the spare" 496:ff "$(live_masks remap | tr ' ' '\n' | grep ^496:)"
	check "status agrees with list" agree remap
	deactivate
}

# saves MASKS: a long read saves what is beside unreadable sectors.  One that takes long leaves
# blocks to the next one.
saves() {
	sectors holds "$dev" 280 64 old >/dev/null || true
	[[ $(live_masks remap | cut -d ' ' -f 1-4) == "$1" ]]
}

failed_reads() {
	activate
	sectors write "$dev" 0 2048 old
	bad all:102:2 all:300:20
	check "a sector of main that cannot be read is an error" sectors lost "$dev" 102 1
	equal "the rest of its block was saved" 96:3f "$(live_masks remap)"
	equal "because of a read" 96:read "$(causes remap)"
	equal "as the status counts" 'used=1 unreadable=2 write_errors=0 relocated_auto=1 refused=0' \
		"$(remap_values remap used unreadable write_errors relocated_auto refused)"
	bad all:96:8 all:300:20
	check "what was saved is read although main has lost all of it now" sectors holds "$dev" 96 6 old
	check "on both sides of what was not" sectors holds "$dev" 104 8 old
	check "that is an error still" sectors lost "$dev" 102 2
	refused "a long read over unreadable sectors fails" sectors holds "$dev" 280 64 old
	check "and saves what is beside them" within 60 saves '96:3f 296:f 304:0 312:0'
	check "before them" sectors holds "$dev" 280 20 old
	check "and behind them" sectors holds "$dev" 320 24 old
	again
	check "the next activation has the same errors" sectors lost "$dev" 300 20
	check "for all of them" sectors lost "$dev" 102 2
	check "and the same data" sectors holds "$dev" 96 6 old
	check "status agrees with list" agree remap
	deactivate
}

# What could not be read can be later.
reads_again() {
	activate
	sectors write "$dev" 0 256 old
	bad reads:50:3
	check "sectors that cannot be read are errors" sectors lost "$dev" 50 3
	sectors write "$dev" 52 1 new
	bad
	check "they are read once main can" sectors holds "$dev" 50 2 old
	check "and saved then" within 60 all_live
	bad all:48:8
	check "for good" sectors holds "$dev" 48 4 old
	check "what was written meanwhile is not replaced" sectors holds "$dev" 52 1 new
	deactivate
	many_read_again
}

# A zone of a disk can be read again. It is relocated by message: how many of its
# blocks one failing read has relocated depends on how fast the machine is.
many_read_again() {
	local blocks=40
	activate
	sectors write "$dev" 0 512 old
	# shellcheck disable=SC2046 # These are many words.
	bad $(seq -f 'reads:%.0f:1' 130 8 $((130 + 8 * (blocks - 1))))
	remap remap add 128 $((blocks * 8))
	equal "blocks with a bad sector each are relocated without it" \
		"used=$blocks unreadable=$blocks" "$(remap_values remap used unreadable)"
	bad
	check "they are read once main can" sectors holds "$dev" 128 $((blocks * 8)) old
	check "and all of them saved then" within 60 nothing_unreadable
	bad all:128:$((blocks * 8))
	check "for good" sectors holds "$dev" 128 $((blocks * 8)) old
	deactivate
}

nothing_unreadable() {
	[[ $(remap_values remap unreadable) == unreadable=0 ]]
}

all_live() {
	[[ $(live_masks remap) == 48:ff ]]
}

writers_at_once() {
	local sector writers=() failed=0
	activate
	sectors write "$dev" 0 256 old
	bad all:64:8
	for sector in {64..71}; do
		dd if=<(yes "$sector") of="$dev" bs=512 seek="$sector" count=1 iflag=fullblock oflag=direct status=none &
		writers+=($!)
	done
	for sector in "${writers[@]}"; do
		wait "$sector" || failed=$((failed + 1))
	done
	equal "writers of all sectors of a bad block succeed, all at once" 0 "$failed"
	equal "their block was relocated once" 'used=1 relocated=1 unreadable=0' \
		"$(remap_values remap used relocated unreadable)"
	failed=0
	for sector in {64..71}; do
		cmp -n 512 <(yes "$sector") <(dd if="$dev" bs=512 skip="$sector" count=1 iflag=direct status=none) ||
			failed=$((failed + 1))
	done
	equal "and all of them are read back" 0 "$failed"
	deactivate
}

only_by_message() {
	activate manual
	sectors write "$dev" 0 256 old
	bad all:100:1 writes:200:1
	nothing_happens "on a manual device" manual
	remap remap set auto 1
	equal "a device that is manual can be made automatic" mode=rw "$(remap_values remap mode)"
	check "and relocates then" sectors write "$dev" 200 1 new
	equal "what has failed" '200:ff' "$(live_masks remap)"
	remap remap set auto 0
	check "and can be made manual again" sectors lost "$dev" 100 1
	equal "with what it has" '200:ff' "$(live_masks remap)"
	deactivate

	activate
	sectors write "$dev" 0 256 old
	remap remap set auto 0
	bad all:100:1 writes:200:1
	nothing_happens "after set auto 0" manual
	deactivate
}

# nothing_happens WHEN MODE: errors are passed on and counted, and that is all.
nothing_happens() {
	equal "the mode says so, $1" "mode=$2" "$(remap_values remap mode)"
	refused "a write that fails is an error, $1" sectors write "$dev" 200 1 lost
	check "a read that fails is one, too, $1" sectors lost "$dev" 100 1
	equal "both are counted, and nothing is relocated, $1" \
		'used=0 read_errors=1 write_errors=1 relocated=0 refused=0 last_error=100' \
		"$(remap_values remap used read_errors write_errors relocated refused last_error)"
	check "what main has is read, $1" sectors holds "$dev" 200 1 old
}

# The disk fails the next reads with a medium error, and can read after that: how often it
# is asked says how often a sector was tried.
weak_sectors() {
	# shellcheck disable=SC2154 # scsi_disk sets it.
	main=$scsi_disk
	activate
	sectors write "$dev" 0 2048 old
	# The request itself, all of the block, and its first sector twice.
	scsi_fails 4 $scsi_read 0 2 3 11 0
	check "a sector that can be read at the third attempt is read" sectors holds "$dev" 104 1 old
	equal "its block is relocated as weak" 104:ff "$(live_masks remap)"
	equal "with all of its sectors" 'used=1 unreadable=0 read_errors=1' \
		"$(remap_values remap used unreadable read_errors)"
	check "which are read from the spare" sectors holds "$dev" 104 8 old
	# A request of two blocks, each of which can be read when asked for alone.
	scsi_fails 1 $scsi_read 0 2 3 11 0
	check "a read of two blocks that fails once gets its data" sectors holds "$dev" 200 16 old
	equal "and relocates neither, as nobody knows which was meant" 104:ff "$(live_masks remap)"
	# The request, and its first block when that is asked for alone.
	scsi_fails 2 $scsi_read 0 2 3 11 0
	check "a read of two blocks gets its data from a weak one" sectors holds "$dev" 200 16 old
	equal "which is relocated" '104:ff 200:ff' "$(live_masks remap)"
	written_sector_by_sector
	dmsetup remove remap
}

# A disk may take seconds for each attempt to read a bad sector.
written_sector_by_sector() {
	local reads
	scsi_bad 1601 4
	check "sectors that cannot be read are errors" sectors lost "$dev" 1601 4
	reads=$(reads_of "$scsi_disk")
	check "some of them are written" sectors write "$dev" 1602 2 new
	equal "for which main is not asked for the others" "$reads" "$(reads_of "$scsi_disk")"
	check "that are errors still" sectors lost "$dev" 1601 1
	check "while the written ones are read" sectors holds "$dev" 1602 2 new
	scsi_good
}

# The last attempt that read_retries allows succeeds, and one more would
# be needed.
retries() {
	local retries
	activate
	sectors write "$dev" 0 2048 old
	for retries in 0 1 5; do
		remap remap set read_retries "$retries"
		scsi_fails $((2 + retries)) $scsi_read 0 2 3 11 0
		check "with read_retries $retries a sector may fail $retries times" sectors holds "$dev" $((800 + 16 * retries)) 1 old
		scsi_fails $((2 + retries + 1)) $scsi_read 0 2 3 11 0
		check "but not once more" sectors lost "$dev" $((808 + 16 * retries)) 1
	done
	equal "blocks have their other sectors" 'used=6 unreadable=3' "$(remap_values remap used unreadable)"
	equal "and masks without those" '808:fe 824:fe 888:fe' \
		"$(live_masks remap | tr ' ' '\n' | grep fe$ | paste -sd ' ')"
	dmsetup remove remap
}

# The SCSI disk, which can write zeroes by itself, is main and spare.
zeroes() {
	flat first "$scsi_disk" 8192
	flat second "$scsi_disk" 8192 8192
	main=/dev/mapper/first spare=/dev/mapper/second
	activate
	sectors write "$dev" 0 2048 old
	scsi_fails 1 $scsi_write_same 0 2 3 11 0
	check "a failed request for zeroes in a block succeeds" blkdiscard -z -o $((400 * 512)) -l 2048 "$dev"
	check "they are zero" sectors zero "$dev" 400 4
	check "what is behind them is as it was" sectors holds "$dev" 404 4 old
	equal "on the spare" 400:ff "$(live_masks remap)"
	scsi_fails 1 $scsi_write_same 0 2 3 11 0
	scsi_fails 1 $scsi_write 0 2 3 11 0
	check "a failed request for zeroes in many blocks succeeds" blkdiscard -z -o $((804 * 512)) -l 65536 "$dev"
	check "all of them are zero" sectors zero "$dev" 804 128
	check "and nothing beside them" sectors holds "$dev" 796 8 old
	check "on either side" sectors holds "$dev" 932 8 old
	equal "only the bad one was relocated" '400:ff 800:ff' "$(live_masks remap)"
	dmsetup remove remap

	# What is too long to be tried block by block, the kernel writes as data.
	blkdiscard -z "$spare"
	remap_create remap "$main" "$spare" 'block_size 1'
	sectors write "$dev" 0 8192 old
	scsi_fails 1 $scsi_write_same 0 2 3 11 0
	check "a failed request for zeroes in thousands of blocks succeeds" \
		blkdiscard -z -o 512 -l $((8000 * 512)) "$dev"
	check "all of these are zero" sectors zero "$dev" 1 8000
	check "and nothing behind them" sectors holds "$dev" 8001 100 old
	dmsetup remove remap
}

main
