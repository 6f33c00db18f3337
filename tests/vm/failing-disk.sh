#!/bin/bash
#
# Relocation by message on disks that fail: one with medium errors for reads, which
# takes writes but cannot give them back, and one that fails reads and writes.  A read
# returns what was last written there, or an error.

# shellcheck source=lib-sectors.sh
. /tests/lib-sectors.sh

dev=/dev/mapper/remap
spare=/dev/spare

main() {
	null_disk spare 4

	disk='medium errors'
	scsi_disk 8
	disk=$scsi_disk kind='medium errors'
	disk_bad() { scsi_bad "$1" "$2"; }
	disk_good() { scsi_good; }
	disk_fails

	null_disk plain 8
	disk=/dev/plain kind='plain I/O errors'
	disk_bad() { null_bad plain "$1-$(($1 + $2 - 1))"; }
	disk_good() { null_good plain 0-16383; }
	disk_fails
}

promise() {
	printf '%s: %s' "$kind" "$1"
}

# activate: makes the device.
activate() {
	remap_create remap "$disk" "$spare" 'block_size 8' manual
}

# stands MASKS VALUES WHEN: the live masks and the numbers of the status are these.
stands() {
	equal "$(promise "list shows what lives on the spare, $3")" "$1" "$(live_masks remap)"
	equal "$(promise "status counts it, $3")" "$2" "$(remap_values remap used unreadable)"
}

holds() {
	check "$(promise "$1")" sectors holds "${@:2}"
}

lost() {
	check "$(promise "$1")" sectors lost "${@:2}"
}

# disk_fails: the whole story, for one kind of disk.  Sectors 100 to 116 go bad: a part
# of the block at 96, all of the block at 104, a part of the block at 112.
disk_fails() {
	# Whatever the spare held before must never be seen.
	blkdiscard -z "$spare"
	sectors write "$spare" 16 8000 stale
	activate
	sectors write "$dev" 0 256 old
	disk_bad 100 17
	lost "a sector of main that cannot be read is an error" "$dev" 100 17
	equal "$(promise "only messages relocate on a manual device")" 'used=0 unreadable=0' \
		"$(remap_values remap used unreadable)"

	relocating
	writing
	activating_again
	removing_too_early
	healing
	removing
	dmsetup remove remap
	last_block
}

relocating() {
	local place
	check "$(promise "add relocates readable and unreadable blocks")" remap remap add 88 33
	stands '88:ff 96:f 104:0 112:e0 120:ff' 'used=5 unreadable=17' "after add"
	equal "$(promise "status counts the relocations")" 'relocated=5 removed=0 refused=0 meta_errors=0' \
		"$(remap_values remap relocated removed refused meta_errors)"
	matches "$(promise "lookup shows a partly readable block")" '^spare 0 [0-9]+ f$' "$(remap remap lookup 103)"
	matches "$(promise "lookup shows an unreadable block")" '^spare 0 [0-9]+ 0$' "$(remap remap lookup 104)"
	equal "$(promise "lookup shows a block of main")" main "$(remap remap lookup 128)"
	holds "readable sectors before the bad ones were copied" "$dev" 80 20 old
	holds "readable sectors after the bad ones were copied" "$dev" 117 20 old
	place=$(spare_sector remap 88)
	holds "a readable block is on the spare where lookup says" "$spare" "$place" 8 old 88
	place=$(spare_sector remap 119)
	holds "the readable end of a block is on the spare where lookup says" "$spare" $((place - 2)) 3 old 117
	lost "unreadable sectors stay unreadable" "$dev" 100 17
	refused "$(promise "a read that needs one unreadable sector fails")" sectors holds "$dev" 96 5 old
	check "$(promise "add once more changes nothing")" remap remap add 88 33
	stands '88:ff 96:f 104:0 112:e0 120:ff' 'used=5 unreadable=17' "after the second add"
}

writing() {
	sectors write "$dev" 102 1 new
	stands '88:ff 96:4f 104:0 112:e0 120:ff' 'used=5 unreadable=16' "after a write to an unreadable sector"
	holds "a written sector has what was written" "$dev" 102 1 new
	lost "its neighbours before stay unreadable" "$dev" 100 2
	lost "its neighbours after stay unreadable" "$dev" 103 14
	holds "and the readable sectors have what they had" "$dev" 96 4 old

	sectors write "$dev" 110 9 newer
	stands '88:ff 96:4f 104:c0 112:ff 120:ff' 'used=5 unreadable=9' \
		"after a write across blocks to unreadable and readable sectors"
	holds "that write is read back" "$dev" 110 9 newer
	holds "what comes after it is as before" "$dev" 119 20 old
	lost "what comes before it stays unreadable" "$dev" 103 7

	blkdiscard -z -o $((106 * 512)) -l 512 "$dev"
	stands '88:ff 96:4f 104:c4 112:ff 120:ff' 'used=5 unreadable=8' "after zeroes were written"
	check "$(promise "written zeroes are read back")" sectors zero "$dev" 106 1
}

activating_again() {
	local list values
	list=$(remap remap list)
	values=$(remap_values remap block used total unreadable)
	dmsetup remove remap
	activate
	equal "$(promise "every relocation is there after the next activation")" "$list" "$(remap remap list)"
	equal "$(promise "and counted")" "$values" "$(remap_values remap block used total unreadable)"
	holds "what was written is there after the next activation" "$dev" 110 9 newer
	holds "also what was written to a single sector" "$dev" 102 1 new
	holds "also what was copied" "$dev" 96 4 old
	lost "what was unreadable is so after the next activation" "$dev" 103 3
	lost "and the other ones are, too" "$dev" 107 3
}

# Main cannot hold the blocks at 96, 104 and 112, of which bad sectors were written.
removing_too_early() {
	local output status=0
	output=$(remap remap remove 88 33 2>&1) || status=$?
	check "$(promise "remove fails when main cannot hold a block")" test "$status" -ne 0
	matches "$(promise "it fails with EIO")" 'Input/output error' "$output"
	stands '96:4f 104:c4 112:ff' 'used=3 unreadable=8' "after main could not hold three of five blocks"
	equal "$(promise "status counts the others as removed")" 2 "$(remap_status remap removed)"
	holds "a block that was brought back has its data" "$dev" 88 8 old
	holds "main itself has it" "$disk" 88 8 old
	holds "the block behind has its data" "$dev" 119 9 old
	holds "a block that main cannot hold has its data" "$dev" 110 9 newer
	holds "a sector that main cannot hold has its data" "$dev" 102 1 new
	lost "and the unreadable sectors are so still" "$dev" 107 3
}

# Main can be read again.
healing() {
	disk_good
	holds "a sector can be read again when main can" "$dev" 100 1 old
	check "$(promise "its bit gets set")" within 60 is_live 100
	check "$(promise "status agrees with list then")" within 60 agree remap
	holds "what was written is not replaced by what main holds" "$dev" 102 1 new
	disk_bad 100 17
	holds "a sector that was saved can be read when main fails again" "$dev" 100 1 old
	disk_good
	check "$(promise "add saves what can be read again")" remap remap add 96 16
	stands '96:ff 104:ff 112:ff' 'used=3 unreadable=0' "after add could read everything"
	holds "all of the first block is as written" "$dev" 102 1 new
	holds "saved sectors have what main held" "$dev" 103 3 old
	holds "what was written in the second block is not replaced" "$dev" 110 9 newer
}

# is_live SECTOR: the sector lives on the spare.
is_live() {
	local place
	place=$(remap remap lookup "$1")
	(((16#${place##* } >> ($1 % 8)) & 1))
}

removing() {
	disk_bad 104 1
	sectors write "$dev" 96 24 last
	refused "$(promise "remove fails for the one block that main cannot hold")" remap remap remove 0 16384
	stands '104:ff' 'used=1 unreadable=0' "after main could not hold one of three blocks"
	holds "all data is there" "$dev" 96 24 last
	disk_good
	check "$(promise "remove brings everything back to a good disk")" remap remap remove 0 16384
	stands '' 'used=0 unreadable=0' "after the last remove"
	holds "all data is back on main" "$disk" 96 24 last
	holds "and beside it" "$disk" 120 20 old
	holds "the device reads it there" "$dev" 96 24 last
}

# The last block is cut short by the end of the device.
last_block() {
	blkdiscard -z "$spare"
	sectors write "$spare" 16 8000 stale
	activate_short
	sectors write "$dev" 11990 15 old
	disk_bad 12002 2
	check "$(promise "add relocates a last block that is cut short")" remap remap add 12004
	equal "$(promise "list shows how short it is")" '12000 5' "$(remap remap list | cut -d ' ' -f 1,2)"
	stands '12000:13' 'used=1 unreadable=2' "for a block that is cut short"
	dmsetup remove remap
	activate_short
	stands '12000:13' 'used=1 unreadable=2' "for a block that is cut short, after the next activation"
	lost "the bad sectors of a last block are unreadable" "$dev" 12002 2
	holds "the last sector has its data" "$dev" 12004 1 old
	sectors write "$dev" 12001 4 new
	stands '12000:1f' 'used=1 unreadable=0' "when all of a block that is cut short is written"
	holds "the end of the device is read back" "$dev" 12001 4 new
	disk_good
	check "$(promise "remove brings back a block that is cut short")" remap remap remove 12000
	holds "the end of the device is on main" "$disk" 12001 4 new
	dmsetup remove remap
}

activate_short() {
	dmsetup create remap --table "0 12005 remap $disk 1 $spare 3 block_size 8 manual"
}

main
