#!/bin/bash
#
# The background pass: it reads main where its sectors live, saves what is weak, keeps to its
# rate, stands still when it must, and goes on where it was.
#
# races: possible

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

dev=/dev/mapper/remap
size=16384

# scan KEY: prints the value of KEY in the state of the pass.
scan() {
	remap remap scan status | sed -n "s/^$1=//p"
}

# passes NUMBER [NAME]: so many passes of the device have ended, or more.
passes() {
	[[ $(remap_status "${2-remap}" scan_passes) -ge $1 ]]
}

# sectors_read DISK: prints how many sectors were read of it.
sectors_read() { statistic "$1" 3; }

# saved SPARE: prints the position that a spare would have after a crash.
saved() {
	dmremap dump --format json --limit 0 "$1" | jq .scan_position
}

main() {
	load_module
	begins_to_be_saved
	null_disk main 8
	null_disk spare 4
	finds
	asks_for_no_more_than_one_request
	goes_on_where_it_was
	keeps_to_its_rate
	keeps_to_it_in_short_steps
	reads_whole_logical_blocks
	stands_still
	waits_for_main rw
	waits_for_main manual manual
	is_saved_once_a_minute
	learns_without_a_pass
}

# anew [FEATURE...]: makes the device on a new spare.
anew() {
	[[ $(dmsetup ls) != *remap* ]] || dmsetup remove remap
	blkdiscard -z /dev/spare
	remap_create remap /dev/main /dev/spare 'block_size 8' "$@"
}

finds() {
	anew
	sectors write "$dev" 0 2048 old
	equal "no pass runs on a new set" 'scan=idle scan_pos=0 scan_passes=0 scan_errors=0' \
		"$(remap_values remap scan scan_pos scan_passes scan_errors)"
	null_bad main 1000-1001
	null_bad main 1500-1500
	check "a pass can be started" remap remap scan start
	check "it comes to an end" within 60 passes 1
	equal "it has found what cannot be read" '1000:fc 1496:ef' "$(live_masks remap)"
	equal "and counted it" 'scan=idle scan_pos=0 scan_passes=1 scan_errors=3' \
		"$(remap_values remap scan scan_pos scan_passes scan_errors)"
	check "what could be read is saved" sectors holds "$dev" 1002 498 old
	refused "a pass that is not there cannot be resumed" remap remap scan resume
	refused "nor paused" remap remap scan pause
	refused "nor stopped" remap remap scan stop
	check "a second one can be started" remap remap scan start
	check "it comes to an end, too" within 60 passes 2
	equal "it has found nothing new" scan_errors=3 "$(remap_values remap scan_errors)"
	check "a pass that is due begins by itself" remap remap set scan_interval 1
	check "and ends" within 60 passes 3
	null_good main 1000-1001
	null_good main 1500-1500
}

# Whoever comes meanwhile has to wait for one request of the disk, not for two.
asks_for_no_more_than_one_request() {
	local before
	echo 100 >/sys/block/main/queue/max_sectors_kb
	anew scan_interval 0
	before=$(reads_of /dev/main)
	remap remap scan start
	check "a pass over a disk that takes 100 KiB at a time ends" within 60 passes 1
	equal "a step is one request of the disk" $(((size + 199) / 200)) $(($(reads_of /dev/main) - before))
	echo 127 >/sys/block/main/queue/max_sectors_kb
}

# moves: the pass has moved since this was asked last.
moves() {
	local before=${position-0}
	position=$(scan scan_pos)
	[[ $position -gt $before ]]
}

# A step of 128 KiB takes two seconds, as there must be something left of the pass until its
# end is wanted.
goes_on_where_it_was() {
	local before position=0
	anew scan_interval 0
	before=$(sectors_read /dev/main)
	remap remap set scan_rate 64
	remap remap scan start
	refused "no pass can be started beside one" remap remap scan start
	check "it moves" within 60 moves
	check "its position is saved when that is asked for" remap remap sync
	check "and no older one" test "$(saved /dev/spare)" -ge "$position"
	dmsetup suspend remap
	position=$(scan scan_pos)
	equal "a suspend saves its position" "$position" "$(saved /dev/spare)"
	dmsetup resume remap
	check "it goes on after a resume" within 60 moves
	dmsetup reload remap --table "0 $size remap /dev/main 1 /dev/spare 2 scan_rate 65"
	dmsetup suspend remap
	position=$(scan scan_pos)
	dmsetup resume remap
	equal "it goes on after a reload" scan=running "$(remap_values remap scan)"
	check "behind where it was" test "$(scan scan_pos)" -ge "$position"
	check "and moves" within 60 moves
	dmsetup remove remap
	position=$(saved /dev/spare)
	remap_create remap /dev/main /dev/spare
	equal "it goes on in the next activation" scan=running "$(remap_values remap scan)"
	check "behind where it was then" test "$(scan scan_pos)" -ge "$position"
	check "and moves, too" within 60 moves
	check "its rate can be changed while it runs" remap remap set scan_rate 1000000
	check "it comes to its end" within 60 passes 1
	equal "with all that it has read each sector of main once" "$size" $(($(sectors_read /dev/main) - before))

	remap remap set scan_rate 64
	remap remap scan start
	position=0
	check "another one moves" within 60 moves
	check "it can be paused" remap remap scan pause
	position=$(scan scan_pos)
	equal "which saves its position" "$position" "$(saved /dev/spare)"
	dmsetup remove remap
	remap_create remap /dev/main /dev/spare
	equal "it stays paused over an activation, at its position" "scan=paused scan_pos=$position" \
		"$(remap_values remap scan scan_pos)"
	check "it goes on when told to" remap remap scan resume
	check "and moves again" within 60 moves
	check "it can be stopped" remap remap scan stop
	equal "which begins no other" 'scan=idle scan_pos=0 scan_passes=1' "$(remap_values remap scan scan_pos scan_passes)"
}

# The pass keeps inside its rate, however long this takes: a step may be ahead of it, and one
# under way.
keeps_to_its_rate() {
	local rate before milliseconds read
	for rate in 128 512; do
		anew scan_interval 0 scan_rate "$rate"
		milliseconds=$((-${EPOCHREALTIME/./} / 1000)) before=$(sectors_read /dev/main)
		remap remap scan start
		sleep 3
		read=$((($(sectors_read /dev/main) - before) / 2))
		milliseconds=$((milliseconds + ${EPOCHREALTIME/./} / 1000))
		check "with scan_rate $rate it reads no more than that: $read KiB in $milliseconds ms" \
			test "$read" -le $((rate * milliseconds / 1000 + 256))
		check "but something" within 60 more_is_read "$before"
	done
}

# Each of these steps takes less than a millisecond at this rate.
keeps_to_it_in_short_steps() {
	local milliseconds
	echo 4 >/sys/block/main/queue/max_sectors_kb
	anew scan_interval 0 scan_rate 4100
	milliseconds=$((-${EPOCHREALTIME/./} / 1000))
	remap remap scan start
	check "a pass in steps of 4 KiB ends" within 60 passes 1
	milliseconds=$((milliseconds + ${EPOCHREALTIME/./} / 1000))
	check "it was not faster than its rate: $((size / 2)) KiB in $milliseconds ms" \
		test $((size / 2)) -le $((4100 * (milliseconds + 20) / 1000))
	echo 127 >/sys/block/main/queue/max_sectors_kb
}

# A spare that takes less at a time than a block has, and no whole number of main's logical blocks.
reads_whole_logical_blocks() {
	null_disk large 4 '' blocksize=4096
	null_disk small 4
	echo 30 >/sys/block/small/queue/max_sectors_kb
	remap_create remap4 /dev/large /dev/small 'block_size 64 scan_interval 0'
	remap remap4 scan start
	check "a pass over larger logical blocks ends" within 60 passes 1 remap4
	equal "and finds nothing" 'used=0 scan_errors=0' "$(remap_values remap4 used scan_errors)"
	dmsetup remove remap4
}

# more_is_read SECTORS: more than so many were read of main.
more_is_read() {
	[[ $(sectors_read /dev/main) -gt $1 ]]
}

# nothing_is_read: nothing was read of main in some time, in which the pass would have read
# something.
nothing_is_read() {
	local before
	before=$(sectors_read /dev/main)
	sleep 1.5
	[[ $(sectors_read /dev/main) == "$before" ]]
}

stands_still() {
	local read position=0
	anew scan_interval 0 scan_rate 128
	read=$(sectors_read /dev/main)
	check "without a pass nothing is read of main" nothing_is_read
	equal "not even for its metadata" "$read" "$(sectors_read /dev/main)"
	remap remap scan start
	within 60 moves
	dmsetup suspend remap
	read=$(sectors_read /dev/main)
	check "nothing is read while the device is suspended" nothing_is_read
	equal "from the moment on at which it is" "$read" "$(sectors_read /dev/main)"
	dmsetup resume remap
	# A step that is under way ends.
	remap remap scan pause
	check "nothing is read while the pass is paused" within 60 nothing_is_read
	remap remap scan resume
	dmsetup remove remap
	dmsetup create remap --readonly --table "0 $size remap /dev/main 1 /dev/spare"
	check "nothing is read for a read-only table" nothing_is_read
	equal "which says so" scan=off "$(remap_values remap scan)"
	refused "no pass can be started then" remap remap scan start
	dmsetup remove remap
	remap_create remap /dev/main /dev/spare 'scan_rate 1000000'
	check "the pass goes on when the table can be written" within 60 passes 1
	metadata_fails
}

# A spare that cannot be written is noticed when the pass wants to write down that it ends.
metadata_fails() {
	local position=0
	anew scan_interval 0 scan_rate 128
	remap remap scan start
	within 60 moves
	null_bad spare 0-8191
	refused "metadata cannot be written any more" remap remap set scan_rate 1000000
	equal "as the status says" 'mode=ro health=critical meta_errors=1' "$(remap_values remap mode health meta_errors)"
	check "nothing is read then" within 60 nothing_is_read
	null_good spare 0-8191
}

# waits_for_main MODE [FEATURE...]: the device with these features has that mode.
waits_for_main() {
	anew "${@:2}" scan_interval 0
	null_bad main "0-$((size - 1))"
	remap remap scan start
	check "a pass over a disk that does not answer makes it suspect" within 60 is_suspect
	equal "it relocates nothing and stays where it was" 'relocated=0 scan_pos=0 scan_errors=0' \
		"$(remap_values remap relocated scan_pos scan_errors)"
	null_good main "0-$((size - 1))"
	check "when the disk answers it comes to its end" within 60 passes 1
	equal "as if nothing had been" "mode=$1 used=0 scan_errors=0" "$(remap_values remap mode used scan_errors)"
}

is_suspect() {
	[[ $(remap_values remap mode) == mode=suspect ]]
}

# What takes a minute goes on beside everything else.
begins_to_be_saved() {
	null_disk main3 8
	null_disk spare3 4
	remap_create quiet /dev/main3 /dev/spare3 'scan_interval 0'
	superblock=$(superblock_of /dev/spare3)
	null_bad main3 0-7
	check "a write is saved on a device without passes" sectors write /dev/mapper/quiet 0 8 new
	null_disk main2 256
	null_disk spare2 4
	remap_create minute /dev/main2 /dev/spare2 'scan_interval 0 scan_rate 64'
	remap minute scan start
}

# superblock_of SPARE: prints what is different for another superblock.
superblock_of() {
	dd if="$1" bs=4k count=1 iflag=direct status=none | cksum
}

# has_learned: something was written that is in the superblock.
has_learned() {
	[[ $(superblock_of /dev/spare3) != "$superblock" ]]
}

# There is nothing but the model that could be new.
learns_without_a_pass() {
	check "without a pass, too, it is written what the model has learned" within 120 has_learned
	dmsetup remove quiet
}

# was_saved: a crash would leave a position that the pass has come to.
was_saved() {
	[[ $(saved /dev/spare2) -gt 0 ]]
}

is_saved_once_a_minute() {
	local position kept=
	check "the position of a pass is saved while it runs" within 120 was_saved
	# Both as of one moment: nothing was saved between.
	until [[ $kept == "$(saved /dev/spare2)" ]]; do
		kept=$(saved /dev/spare2)
		position=$(remap_status minute scan_pos)
	done
	equal "the pass runs still" scan=running "$(remap_values minute scan)"
	# No more than 31 steps, of which each takes two seconds, begin within a minute; one may be
	# on its way to be saved.
	check "a crash would lose a minute of it at most: it is at $position, and $kept is saved" \
		test "$position" -ge "$kept" -a $((position - kept)) -le $((32 * 256))
	dmsetup remove minute
}

main
