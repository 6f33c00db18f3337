#!/bin/bash
#
# Main has logical blocks that are larger than a page, up to a whole block of 64 sectors: none of
# them is relocated, read or written in parts.  A disk with larger ones is refused, and so is a
# spare whose metadata pages would be parts of one.

# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap

main() {
	local bytes
	modprobe loop
	load_module
	null_disk spare 4
	truncate -s 8M /dev/shm/main
	for bytes in 8192 16384 32768; do
		with_main "$bytes"
	done
	attach 65536
	mark_log
	refused "logical blocks of 65536 bytes are refused" remap_create remap /dev/loop0 /dev/spare
	expect_log "as larger than a block can be" 'logical block of more than 64 sectors'
	attach 8192
	mark_log
	refused "so is such a spare" remap_create remap /dev/spare /dev/loop0
	expect_log "the log says which it is" 'remap: spare_dev'
	losetup -d /dev/loop0
}

# attach BYTES: makes /dev/loop0 a disk with logical blocks of this size.
attach() {
	losetup -d /dev/loop0 2>/dev/null || true
	losetup --sector-size "$1" /dev/loop0 /dev/shm/main
}

with_main() {
	local unit=$(($1 / 512)) bad
	bad=$((10 * unit))
	attach "$1"
	failing_disk below /dev/loop0
	blkdiscard -z /dev/spare
	sectors write /dev/spare 64 7000 stale
	remap_create remap /dev/mapper/below /dev/spare
	equal "$1: the device has such blocks" "$1 block=$unit" "$(blockdev --getss "$dev") $(remap_values remap block)"
	sectors write "$dev" 0 2048 old

	failing below /dev/loop0 "all:$bad:$unit" "writes:$((bad + 2 * unit)):$unit"
	check "$1: one that cannot be read is an error" sectors lost "$dev" "$bad" "$unit"
	check "$1: those beside it are read" sectors holds "$dev" $((bad + unit)) "$unit" old
	check "$1: on both sides" sectors holds "$dev" $((bad - unit)) "$unit" old
	check "$1: it can be written" sectors write "$dev" "$bad" "$unit" new
	check "$1: and read then" sectors holds "$dev" "$bad" "$unit" new
	check "$1: a write that main refuses succeeds" sectors write "$dev" $((bad + 2 * unit)) "$unit" new
	check "$1: and is read" sectors holds "$dev" $((bad + 2 * unit)) "$unit" new
	equal "$1: both are relocated as a whole" 'used=2 unreadable=0' "$(remap_values remap used unreadable)"
	remap remap scan start
	check "$1: a pass comes to its end" within 60 pass_has_ended
	dmsetup remove remap
	remap_create remap /dev/mapper/below /dev/spare
	check "$1: the next activation has them" sectors holds "$dev" "$bad" "$unit" new

	failing below /dev/loop0
	check "$1: they go back to main" remap remap remove 0 2048
	check "$1: with their data" sectors holds /dev/loop0 "$bad" "$unit" new
	check "$1: and nothing else has changed" sectors holds /dev/loop0 $((bad + 3 * unit)) $((2048 - bad - 3 * unit)) old
	dmsetup remove remap
	dmsetup remove below
}

pass_has_ended() {
	[[ $(remap_status remap scan_passes) -ge 1 ]]
}

main
