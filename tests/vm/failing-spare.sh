#!/bin/bash
#
# A spare that fails: what is on it is an error, never what main holds beneath, until the
# spare can be read again.  When its metadata cannot be written, what is relocated is
# served, and nothing new is relocated.
#
# races: possible

# shellcheck source=lib-sectors.sh
. /tests/lib-sectors.sh

dev=/dev/mapper/remap

main() {
	null_disk main 4
	null_disk spare 4
	activate
	sectors write "$dev" 0 512 old
	reading_fails
	copying_fails
	metadata_fails
	nothing_is_written
	is_known_without_it
}

activate() {
	remap_create remap /dev/main /dev/spare 'block_size 8' manual
}

# spare_bad FIRST COUNT, and spare_good for all of it.
spare_bad() {
	null_bad spare "$1-$(($1 + $2 - 1))"
}

spare_good() {
	null_good spare 0-8191
}

reading_fails() {
	local place
	remap remap add 80 24
	sectors write "$dev" 80 24 new
	place=$(spare_sector remap 88)
	spare_bad $((place + 2)) 1
	check "a sector that the spare cannot read is an error" sectors lost "$dev" 90 1
	check "sectors beside it have their data" sectors holds "$dev" 80 10 new
	check "and on its other side" sectors holds "$dev" 91 13 new
	refused "a block that the spare cannot read is not brought back" remap remap remove 80 24
	equal "it stays relocated, the others do not" '88:ff' "$(live_masks remap)"
	check "its sector is still an error" sectors lost "$dev" 90 1
	check "the other blocks are on main" sectors holds /dev/main 80 8 new
	check "and on main behind it" sectors holds /dev/main 96 8 new
	spare_good
	check "its data is there when the spare can be read again" sectors holds "$dev" 80 24 new
	check "and it can be brought back then" remap remap remove 80 24
	check "with its data" sectors holds /dev/main 80 24 new
}

# Where the next block would go the spare takes no data.
copying_fails() {
	local place
	remap remap add 200
	place=$(spare_sector remap 200)
	remap remap remove 200
	spare_bad "$place" 8
	# Whether other places are used instead or not, no data is lost.
	remap remap add 200 24 2>/dev/null || true
	check "no data is lost when the spare takes none" sectors holds "$dev" 192 40 old
	check "the status agrees with the list" agree remap
	check "no block lives on the bad place" test "$(remap remap lookup 200 | cut -d ' ' -f 3)" != "$place"
	sectors write "$dev" 192 40 new
	check "the blocks can be written" sectors holds "$dev" 192 40 new
	spare_good
	check "they can be relocated when the spare is good" remap remap add 200 24
	check "and hold what was written" sectors holds "$dev" 192 40 new
}

# The first pages of the spare are metadata.
metadata_fails() {
	local list
	null_bad main 305-305
	remap remap add 304
	list=$(remap remap list)
	mark_log
	spare_bad 0 32
	# It may be done in the copy that is left, but it is the last one.
	remap remap add 400 2>/dev/null || true
	equal "nothing is relocated any more when metadata cannot be written" mode=ro "$(remap_values remap mode)"
	expect_log "the log says so" 'metadata cannot be written'
	matches "the health says so" '^health=(replace|critical)$' "$(remap_values remap health)"
	refused "a relocation is refused then" remap remap add 440
	refused "and so is a removal" remap remap remove 200 24
	check "the blocks have their data" sectors holds "$dev" 192 40 new
	sectors write "$dev" 196 30 last
	check "and can be written" sectors holds "$dev" 196 30 last
	check "what was unreadable is an error" sectors lost "$dev" 305 1
	refused "and cannot be written, because that could not be remembered" sectors write "$dev" 305 1 last
	check "and stays an error" sectors lost "$dev" 305 1
	dmsetup remove remap

	spare_good
	activate
	matches "all is well at the next activation with a good spare" '^mode=manual health=(good|watch)$' \
		"$(remap_values remap mode health)"
	remap remap remove 400
	equal "with every relocation" "$list" "$(remap remap list)"
	check "and all data" sectors holds "$dev" 196 30 last
	sectors write "$dev" 305 1 last
	check "and what was unreadable can be written" sectors holds "$dev" 305 1 last
	dmsetup remove remap
}

# worn TABLE: the spare /dev/mapper/worn becomes this.
worn() {
	dmsetup load worn --table "$1"
	dmsetup suspend worn
	dmsetup resume worn
}

# A drive that is worn out may take no more writes, but can still be read.
nothing_is_written() {
	local list
	null_disk other 4
	modprobe dm-flakey
	whole="0 8192 linear /dev/other 0"
	dmsetup create worn --table "$whole"
	remap_create remap /dev/main /dev/mapper/worn 'block_size 8' manual
	remap remap add 800 24
	sectors write "$dev" 800 24 kept
	list=$(remap remap list)
	worn "0 8192 flakey /dev/other 0 0 1 1 error_writes"
	refused "a block is not brought back when the spare takes no writes at all" remap remap remove 808
	equal "nothing is relocated from then on" 'mode=ro health=critical' "$(remap_values remap mode health)"
	equal "it stays relocated, as all others" "$list" "$(remap remap list)"
	check "and all of them have their data" sectors holds "$dev" 800 24 kept
	check "healthy blocks can be written" sectors write "$dev" 900 24 kept
	dmsetup remove remap
	worn "$whole"
	remap_create remap /dev/main /dev/mapper/worn manual
	equal "every relocation is there when the spare takes writes again" "$list" "$(remap remap list)"
	check "with its data" sectors holds "$dev" 800 24 kept
	check "and the block can be brought back" remap remap remove 808
	matches "and nothing is left in the way" '^mode=manual health=(good|watch)$' "$(remap_values remap mode health)"
	dmsetup remove remap
}

# remap_with FIRST: the device gets a table with this one as the first of two spares.
remap_with() {
	dmsetup reload remap --table "0 8192 remap /dev/main 2 $1 /dev/second 1 manual"
	dmsetup suspend remap
	dmsetup resume remap
}

# What the second spare knows of the first one says what lives there, when that is away.
is_known_without_it() {
	blkdiscard -z /dev/mapper/worn
	null_disk second 2
	dmsetup create remap --table "0 8192 remap /dev/main 2 /dev/mapper/worn /dev/second 3 block_size 8 manual"
	sectors write "$dev" 808 8 stale
	remap remap add 808
	sectors write "$dev" 808 8 kept
	matches "a block lives on the first of two spares" '^spare 0 ' "$(remap remap lookup 808)"
	worn "0 8192 flakey /dev/other 0 0 1 1 error_writes"
	refused "it is not brought back when that takes no writes" remap remap remove 808
	check "it has its data" sectors holds "$dev" 808 8 kept
	remap_with -
	check "without that spare it is an error, and not what main has beneath it" sectors lost "$dev" 808 8
	refused "and cannot be written" sectors write "$dev" 808 8 new
	worn "$whole"
	remap_with /dev/mapper/worn
	check "its data is there when the spare is back" sectors holds "$dev" 808 8 kept
	dmsetup remove remap
}

main
