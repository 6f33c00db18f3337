#!/bin/bash
#
# A table loaded read-only writes nothing to any device, ever.

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

dev=/dev/mapper/remap
size=8192
uuid=01234567-89ab-cdef-0123-456789abcdef

scenario() {
	null_disk main 4
	null_disk spare 4
	null_disk more 4
	sectors write /dev/main 0 "$size" data
	load_module
	table="0 $size remap /dev/main 2 /dev/spare /dev/more"

	new_spares
	dmsetup create remap --table "$table 2 uuid $uuid"
	with_relocations_or_not "a set without relocations"
	null_bad main 1003-1003
	remap remap add 1000 400
	null_good main 1003-1003
	sectors write "$dev" 1200 100 new
	with_relocations_or_not "a set with relocations"
	blocks_are_served
	dmsetup remove remap
	a_copy_is_bad
	on_read_only_disks
	dmsetup create remap --table "$table"
	equal "the set can be used writable after all that" 50 "$(remap_status remap used)"
}

# mark_writes and nothing_written WHEN: a check that no disk was changed between.
mark_writes() {
	requests=$(changes main spare more)
	sums=$(contents /dev/main /dev/spare /dev/more)
}

nothing_written() {
	equal "no write, discard or flush reaches a disk: $1" "$requests" "$(changes main spare more)"
	equal "every disk has the contents that it had: $1" "$sums" "$(contents /dev/main /dev/spare /dev/more)"
}

new_spares() {
	mark_writes
	check "a read-only table with new spares is refused" \
		is_not_activated 'spare 0 is not initialised, which a read-only table cannot do' "$table" --readonly
	nothing_written "new spares"
}

# with_relocations_or_not WHAT: the device remap is made read-only, and stays so.
with_relocations_or_not() {
	local status verb read_only='failed because the table is read-only'
	status=$(remap_values remap block used total unreadable)
	dmsetup remove remap
	mark_writes
	dmsetup create remap --readonly --table "$table"
	equal "$1 can be used read-only" "mode=ro $status" \
		"$(remap_values remap mode block used total unreadable)"
	equal "$1: the device is read-only" 1 "$(blockdev --getro "$dev")"
	check "$1: it can be read" dd if="$dev" of=/dev/null bs=64k iflag=direct status=none
	refused "$1: it cannot be written" dd if=/dev/zero of="$dev" bs=4096 count=1 oflag=direct status=none
	refused "$1: it cannot be discarded" blkdiscard -f "$dev"
	for verb in 'add 0' 'add 1000' 'remove 1000 100' 'set auto 0' 'set scan_rate 1'; do
		message_refused "$1: $verb is refused" EROFS "${verb%% *} $read_only" "$verb"
	done
	report_refusals
	for verb in 'lookup 1000' list stats 'stats reset' sync help; do
		# A verb and its number are two words.
		# shellcheck disable=SC2086
		check "$1: $verb answers" remap remap $verb
	done
	dmsetup suspend remap
	dmsetup resume remap
	nothing_written "$1"
	dmsetup remove remap
	nothing_written "$1, removed"
	dmsetup create remap --table "$table"
}

blocks_are_served() {
	dmsetup remove remap
	mark_writes
	dmsetup create remap --readonly --table "$table 2 uuid $uuid"
	check "relocated sectors have what was written" sectors holds "$dev" 1200 100 new
	check "those beside them have what was copied" sectors holds "$dev" 1300 100 data
	check "sectors of main have what they had" sectors holds "$dev" 0 1000 data
	# Sector 1003 could not be read when its block was relocated, but can be now.
	check "a sector that lives on main still can be read" sectors holds "$dev" 1003 1 data
	sleep 0.5
	matches "but it is not saved" '^spare [01] [0-9]+ f7$' "$(remap remap lookup 1003)"
	nothing_written "sectors that could be saved"
	check "dmsetup table shows a line that can be used read-only" again_read_only
}

again_read_only() {
	local shown
	shown=$(dmsetup table remap) || return 1
	dmsetup remove remap
	dmsetup create remap --readonly --table "$shown" && [[ $(dmsetup table remap) == "$shown" ]]
}

# A table that may write would repair the copy.
a_copy_is_bad() {
	sectors write /dev/spare 0 1 foreign
	mark_writes
	check "a set with a bad copy of a page can be used read-only" dmsetup create remap --readonly --table "$table"
	equal "with all of its blocks" 50 "$(remap_status remap used)"
	check "and their data" sectors holds "$dev" 1200 100 new
	dmsetup remove remap
	nothing_written "a bad copy"
}

on_read_only_disks() {
	local disk
	for disk in main spare more; do
		blockdev --setro "/dev/$disk"
	done
	check "a set on read-only disks can be used read-only" dmsetup create remap --readonly --table "$table"
	check "and read" sectors holds "$dev" 1200 100 new
	dmsetup remove remap
	for disk in main spare more; do
		blockdev --setrw "/dev/$disk"
	done
}

scenario
