#!/bin/bash
#
# Hundreds of requests that fail all at once, on all processors, to the same blocks and to
# different ones, while the device is suspended, reloaded and taken away: each of them ends,
# and once, and no sector is harmed.
#
# races: possible

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh
# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap
size=65536

main() {
	busy_disk disk 32
	busy_disk spare 32
	failing_disk main /dev/disk
	remap_create remap /dev/mapper/main /dev/spare 'block_size 8'
	table=$(dmsetup table remap)
	many_at_once 4k 2048 "different blocks"
	many_at_once 512 128 "the same blocks"
	any_moment
	table_taken_away
}

cycles() {
	/tests/cycles.py remap "$@"
}

# many_at_once BYTES SECTORS WHAT: writes of so many bytes to so many sectors, all of which
# main refuses from one moment on, and reads of what was written.
many_at_once() {
	local writing status=0 before
	failing main /dev/disk
	remap remap remove 0 "$size"
	before=$(remap_status remap relocated_auto)
	# Nothing ends before main fails, so all that is under way fails in one moment.
	dmsetup suspend --noflush main
	fio --output=/tmp/fio --filename="$dev" --direct=1 --ioengine=io_uring --iodepth=256 --bs="$1" --rw=randwrite \
		--size=$(($2 * 512)) --offset_increment=$(($2 * 512)) --loops=$((40 * effort)) \
		--verify=crc32c --verify_fatal=1 --verify_backlog=128 --name=one --numjobs=2 &
	writing=$!
	check "hundreds of requests to $3 are under way" within 300 is_full $((2 * ($2 < 256 ? $2 : 256)))
	failing main /dev/disk "writes:0:$((4 * $2))"
	check "the device can be suspended while hundreds of requests to $3 fail" cycles $((10 * effort)) suspend
	check "and reloaded" cycles $((5 * effort)) reload "$table"
	wait "$writing" || status=$?
	equal "each of the requests to $3 succeeds and is read back" 0 "$status"
	[[ $status -eq 0 ]] || explain "$(</tmp/fio)"
	check "their blocks were relocated" test "$(remap_status remap relocated_auto)" -gt "$before"
	equal "none of them is unreadable, and none was refused" 'mode=rw unreadable=0 refused=0' \
		"$(remap_values remap mode unreadable refused)"
	check "status agrees with list" agree remap
}

# is_full REQUESTS: so many are under way.
is_full() {
	[[ $(under_way remap) -ge $1 ]]
}

# Sectors go bad for writing at random moments, while their blocks are moved by messages, too.
any_moment() {
	local seed=$RANDOM
	explain "seed $seed"
	failing main /dev/disk
	remap remap remove 0 "$size"
	blkdiscard -z "$dev"
	begin_churn remap /dev/disk /dev/spare --count "$size" --writers 6 --readers 2 --span 16 \
		--suspends --bad-main
	/tests/failing.py decay main /dev/disk writes 20 $((8 * effort)) "$seed" /tmp/bad &
	check "the device can be reloaded while sectors go bad" cycles $((20 * effort)) reload "$table"
	wait $!
	end_churn "every write succeeds, and every read has what was last written, while a fifth of main goes bad"
	equal "nothing is unreadable" 'mode=rw unreadable=0' "$(remap_values remap mode unreadable)"
	check "status agrees with list" agree remap
}

# The table is replaced by one that only fails, while requests that failed below wait for
# their blocks to move.
table_taken_away() {
	local writing
	failing main /dev/disk
	remap remap remove 0 "$size"
	failing main /dev/disk "writes:0:$size"
	fio --output=/tmp/fio --filename="$dev" --direct=1 --ioengine=io_uring --iodepth=256 --bs=4k --rw=randwrite \
		--size=8m --time_based --runtime=600 --name=one --numjobs=2 --ignore_error=,EIO &
	writing=$!
	within 60 relocates
	check "the table can be taken away under load" timeout 120 dmsetup wipe_table remap
	kill "$writing"
	wait "$writing" || true
	dmsetup remove remap
	check "the module can be unloaded then" rmmod dm_remap
	remap_create remap /dev/mapper/main /dev/spare
	check "what was relocated is there at the next activation" /tests/places.py remap /dev/disk /dev/spare
	dmsetup remove remap
}

relocates() {
	[[ $(remap_values remap used) != used=0 ]]
}

main
