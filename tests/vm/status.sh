#!/bin/bash
#
# The status is one line with all of its keys in order.  It tells the truth, compared with
# requests that were counted, and it never waits for I/O.

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

dev=/dev/mapper/remap
size=16384
shopt -s extglob
keys='mode health block spares used total unreadable reads writes spare_reads spare_writes'
keys+=' read_errors write_errors other_errors relocated relocated_auto removed refused scan scan_pos'
keys+=' scan_passes scan_errors meta_errors last_error exhaustion_days'

scenario() {
	null_disk main 8
	null_disk spare 2
	null_disk more 2
	load_module
	dmsetup create remap --table "0 $size remap /dev/main 2 /dev/spare /dev/more 3 block_size 8 manual"

	its_form
	requests
	failures
	blocks
	lasts
	dmsetup remove remap
	blkdiscard -z /dev/spare
	never_waits
}

its_form() {
	local status
	status=$(dmsetup status remap)
	equal "the status is one line" 1 "$(wc -l <<<"$status")"
	equal "it has all keys in order" "0 $size remap $keys" "${status//=+([^ ])/}"
	matches "every key has a value" "^0 $size remap( [a-z_]+=[^ =]+){25}$" "$status"
	equal "a new manual device with two spares has done nothing" \
		"mode=manual health=good block=8 spares=2/2 used=0 unreadable=0 reads=0 writes=0" \
		"$(remap_values remap mode health block spares used unreadable reads writes)"
	equal "nor anything else" \
		"spare_reads=0 spare_writes=0 read_errors=0 write_errors=0 other_errors=0 last_error=-" \
		"$(remap_values remap spare_reads spare_writes read_errors write_errors other_errors last_error)"
}

# transfer read|write BLOCK COUNT: so many direct requests of 4 KiB in a row.
transfer() {
	case $1 in
	read) dd if="$dev" of=/dev/null skip="$2" iflag=direct bs=4096 count="$3" status=none ;;
	write) dd if=/dev/zero of="$dev" seek="$2" oflag=direct bs=4096 count="$3" status=none ;;
	esac
}

# counted: prints the counters of requests.
counted() {
	remap_values remap reads writes spare_reads spare_writes
}

requests() {
	local jobs=()
	transfer read 0 30
	transfer write 100 20
	equal "requests to main are counted" 'reads=30 writes=20 spare_reads=0 spare_writes=0' "$(counted)"
	remap remap add 80 80
	equal "relocating counts no request" 'reads=30 writes=20 spare_reads=0 spare_writes=0' "$(counted)"
	transfer read 5 20
	transfer write 15 10
	equal "those to a spare are counted among all, and by themselves" \
		'reads=50 writes=30 spare_reads=10 spare_writes=5' "$(counted)"
	check "the device can be flushed" sync "$dev"
	check "and discarded" blkdiscard -f -o 0 -l 4096 "$dev"
	equal "flushes and discards are no reads and no writes" \
		'reads=50 writes=30 spare_reads=10 spare_writes=5' "$(counted)"
	for _ in 1 2 3 4; do
		transfer read 500 500 &
		jobs+=($!)
	done
	wait "${jobs[@]}"
	equal "requests of several processes are all counted" \
		'reads=2050 writes=30 spare_reads=10 spare_writes=5' "$(counted)"
}

# failed: prints the counters of errors.
failed() {
	remap_values remap read_errors write_errors other_errors last_error
}

failures() {
	null_bad main 8003-8003
	refused "a bad block of main cannot be read" transfer read 1000 1
	equal "the error is counted, with where it was" 'read_errors=1 write_errors=0 other_errors=0 last_error=8000' "$(failed)"
	null_bad main 8803-8803
	refused "another one cannot be written" transfer write 1100 1
	equal "a failed write is counted" 'read_errors=1 write_errors=1 other_errors=0 last_error=8800' "$(failed)"
	refused "nor discarded" blkdiscard -f -o $((8800 * 512)) -l 4096 "$dev"
	equal "a failed discard is counted as another error" \
		'read_errors=1 write_errors=1 other_errors=1 last_error=8800' "$(failed)"
	equal "failed requests count as requests, too" 'reads=2051 writes=31' "$(remap_values remap reads writes)"
	transfer read 0 1
	equal "a request without error leaves them as they are" \
		'read_errors=1 write_errors=1 other_errors=1 last_error=8800' "$(failed)"
	null_bad spare 0-4095
	null_bad more 0-4095
	refused "a relocated block of a bad spare cannot be read" transfer read 10 1
	equal "its error is counted, with where it was on the device" \
		'read_errors=2 write_errors=1 other_errors=1 last_error=80' "$(failed)"
	null_good spare 0-4095
	null_good more 0-4095
}

# totals: prints what is known of spare blocks.
totals() {
	remap_values remap used unreadable relocated relocated_auto removed refused meta_errors
}

blocks() {
	equal "a message that relocates ten blocks is counted" \
		'used=10 unreadable=0 relocated=10 relocated_auto=0 removed=0 refused=0 meta_errors=0' "$(totals)"
	equal "there is room for as many blocks as the metadata of both spares has" \
		"total=$(dmremap dump --format json --limit 0 /dev/spare /dev/more | jq '[.spares[] | .slots - .retired] | add')" \
		"$(remap_values remap total)"
	remap remap add 8000 801
	equal "unreadable sectors are counted" \
		'used=111 unreadable=2 relocated=111 relocated_auto=0 removed=0 refused=0 meta_errors=0' "$(totals)"
	dd if=/dev/zero of="$dev" bs=512 seek=8803 count=1 oflag=direct status=none
	equal "a sector that was written is not among them any more" \
		'used=111 unreadable=1 relocated=111 relocated_auto=0 removed=0 refused=0 meta_errors=0' "$(totals)"
	null_good main 0-16383
	remap remap remove 80 80
	equal "blocks that were brought back are counted" \
		'used=101 unreadable=1 relocated=111 relocated_auto=0 removed=10 refused=0 meta_errors=0' "$(totals)"
	refused "more blocks than there is room for are refused" remap remap add 0 16384
	equal "that is counted" \
		'used=101 unreadable=1 relocated=111 relocated_auto=0 removed=10 refused=1 meta_errors=0' "$(totals)"
	equal "no background pass has run, and there is no model yet" \
		'scan=idle scan_pos=0 scan_passes=0 scan_errors=0 exhaustion_days=-' \
		"$(remap_values remap scan scan_pos scan_passes scan_errors exhaustion_days)"
}

# lasts: what was relocated and brought back is counted over all activations.
lasts() {
	equal "stats counts the same so far" $'relocated=111\nrelocated_auto=0\nremoved=10' \
		"$(remap remap stats | grep -E '^(relocated|relocated_auto|removed)=')"
	dmsetup remove remap
	dmsetup create remap --table "0 $size remap /dev/main 2 /dev/spare /dev/more"
	equal "the next activation has not forgotten it" \
		'used=101 unreadable=1 relocated=111 relocated_auto=0 removed=10 refused=0 meta_errors=0' "$(totals)"
	equal "stats counts from there on" $'relocated=0\nrelocated_auto=0\nremoved=0' \
		"$(remap remap stats | grep -E '^(relocated|relocated_auto|removed)=')"
	remap remap remove 8000 801
	equal "and so does status" \
		'used=0 unreadable=0 relocated=111 relocated_auto=0 removed=111 refused=0 meta_errors=0' "$(totals)"
}

# at_once COMMAND...: COMMAND succeeds, though main does not answer.
at_once() {
	timeout 60 "$@"
}

# is_busy: a request is under way.
is_busy() {
	[[ $(under_way remap) -gt 0 ]]
}

# is_moving: the block at 800 is relocated, or about to be.
is_moving() {
	[[ $(remap remap lookup 800) == spare* ]]
}

# Main does not answer before it is resumed.
never_waits() {
	local jobs=()
	flat slow /dev/main "$size"
	remap_create remap /dev/mapper/slow /dev/spare
	dmsetup suspend --noflush slow
	dmsetup suspend remap
	check "status does not wait for a resume" at_once dmsetup status remap
	check "nor does table" at_once dmsetup table remap
	dmsetup resume remap

	transfer read 0 1 &
	jobs+=($!)
	check "a request is under way" within 60 is_busy
	check "status does not wait for main" at_once dmsetup status remap
	equal "it is not counted before it has ended" 0 "$(remap_status remap reads)"
	remap remap add 800 &
	jobs+=($!)
	check "a relocation is under way" within 60 is_moving
	check "status does not wait for a relocation" at_once dmsetup status remap
	check "nor does table wait for it" at_once dmsetup table remap
	equal "the relocation is not counted before it has ended" 0 "$(remap_status remap relocated)"
	dmsetup resume slow
	wait "${jobs[@]}"
	equal "they are counted when they have ended" 'reads=1 relocated=1' "$(remap_values remap reads relocated)"
}

scenario
