#!/bin/bash
#
# Spares that fail while they are in use: a block whose place on a spare is bad moves to
# another one, what is lost is an error and never what main holds beneath, and a spare that
# is gone for a while costs nothing.

# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap
main_disk=/dev/main_disk

main() {
	local block back
	null_disk main_disk 8
	null_disk spare_disk 4
	null_disk more_disk 4
	null_disk third 4
	null_disk fourth 4
	null_disk fifth 4
	failing_disk main "$main_disk"
	failing_disk spare /dev/spare_disk
	failing_disk more /dev/more_disk
	failing_disk new /dev/third
	activate
	bad_for_reading
	bad_for_writing
	bad_when_new
	bad_for_many
	dmsetup remove remap
	cut_and_lost
	cut_and_kept
	bad_for_healing
	spare_gone
	adding_beside_a_failing_one
	adding_a_failing_one
	in_doubt_and_gone
	one_page_bad
	pages_bad
	pages_gone
	leaving_in_doubt
	unread_for_once
	unread_with_witness
}

# activate and activate_two make the device, with new spares.
activate() {
	blkdiscard -f -z /dev/spare_disk
	remap_create remap /dev/mapper/main /dev/mapper/spare 'block_size 8'
	sectors write "$dev" 0 2048 old
}

activate_two() {
	blkdiscard -f -z /dev/spare_disk
	blkdiscard -f -z /dev/more_disk
	both
	sectors write "$dev" 0 2048 old
}

both() {
	dmsetup create remap --table \
		"0 16384 remap /dev/mapper/main 2 /dev/mapper/spare /dev/mapper/more 2 block_size 8"
}

all_three() { with_third /dev/mapper/new; }

with_third() {
	dmsetup create remap --table "0 16384 remap /dev/mapper/main 3 /dev/mapper/spare /dev/mapper/more $1"
}

again() {
	dmsetup remove remap
	remap_create remap /dev/mapper/main /dev/mapper/spare
}

# relocate FIRST COUNT TEXT: has sectors written to the spare, because main refuses them.
# Main can read and write again then, and has what was there before.
relocate() {
	failing main "$main_disk" "writes:$1:$2"
	sectors write "$dev" "$1" "$2" "$3"
	failing main "$main_disk"
}

spare_fails() { failing spare /dev/spare_disk "$@"; }
more_fails() { failing more /dev/more_disk "$@"; }

# line SECTOR: what list says of the block of a sector: index, place, mask and cause.
line() {
	remap remap list "$1" 1 | cut -d ' ' -f 3-6
}

bad_for_reading() {
	local place
	relocate 80 24 new
	place=$(spare_sector remap 88)
	spare_fails "all:$((place + 2)):2"
	check "sectors that the spare cannot read are errors, not what main has" sectors lost "$dev" 90 2
	matches "their block moves to another place, without them" '^0 [0-9]+ f3 spare$' "$(line 88)"
	check "which is a good one" test "$(spare_sector remap 88)" != "$place"
	equal "as the status counts" 'mode=rw used=3 unreadable=2 read_errors=1' \
		"$(remap_values remap mode used unreadable read_errors | sed 's/errors=[0-9]*/errors=1/')"
	check "what could be read of it is there" sectors holds "$dev" 80 10 new
	check "on both sides" sectors holds "$dev" 92 12 new
	spare_fails
	check "what was lost stays an error when spare and main are good" sectors lost "$dev" 90 2
	remap remap add 88
	check "also when it is relocated once more" sectors lost "$dev" 90 2
	refused "it is not brought back to main, which would show what it had before" remap remap remove 88
	again
	check "nor is it seen at the next activation" sectors lost "$dev" 90 2
	check "that has the rest" sectors holds "$dev" 92 12 new
	relocate 1000 400 newer
	check "no block goes to the bad place any more" nothing_at "$place"
	sectors write "$dev" 90 2 newest
	check "what was lost is good when it was written" sectors holds "$dev" 90 2 newest
	equal "all of it" ff "$(line 88 | cut -d ' ' -f 3)"
	check "status agrees with list" agree remap
	check "and it can be brought back" remap remap remove 88
	check "with all of its data" sectors holds "$main_disk" 88 2 new
	check "old and new" sectors holds "$main_disk" 90 2 newest
	again
	check "which is found on main at the next activation" sectors holds "$dev" 90 2 newest
	check "the bad place stays out of use" nothing_at "$place"
}

# nothing_at PLACE: no block lives there.
nothing_at() {
	! remap remap list | cut -d ' ' -f 4 | grep -qx "$1"
}

bad_for_writing() {
	local place
	relocate 200 16 new
	place=$(spare_sector remap 208)
	spare_fails "writes:$((place + 1)):1"
	check "a write succeeds that the spare refuses" sectors write "$dev" 209 1 newer
	matches "its block is somewhere else then, all of it" '^0 [0-9]+ ff spare$' "$(line 208)"
	check "with what was written" sectors holds "$dev" 209 1 newer
	check "and what it held" sectors holds "$dev" 210 6 new
	check "no block is in the bad place" nothing_at "$place"
	again
	check "the next activation finds what was written" sectors holds "$dev" 209 1 newer
	check "and what was held" sectors holds "$dev" 200 9 new
	spare_fails
}

# The places where the next blocks would go are bad.
bad_when_new() {
	local place
	relocate 300 4 new
	place=$(spare_sector remap 296)
	mark_log
	spare_fails "writes:$((place + 8)):16"
	relocate 400 8 newer
	check "a block goes to the first place that takes it" test "$(spare_sector remap 400)" -ge $((place + 24))
	check "with all of its data" sectors holds "$dev" 396 4 old
	check "new and old" sectors holds "$dev" 400 8 newer
	expect_log "the log says that the spare has failed" 'spare 0 is failing'
	equal "no place that failed is in use" 400:ff "$(live_masks remap | tr ' ' '\n' | grep ^400)"

	spare_fails "writes:$((place + 32)):800"
	failing main "$main_disk" writes:600:1
	refused "a write fails when neither main nor spare takes it" sectors write "$dev" 600 1 lost
	failing main "$main_disk"
	check "main has what it had" sectors holds "$dev" 600 1 old
	equal "and the block is where it was" main "$(remap remap lookup 600)"
	spare_fails
	relocate 600 1 new
	check "when the spare takes blocks again, it gets them" sectors holds "$dev" 600 1 new
	check "the others are there" sectors holds "$dev" 400 8 newer
}

# Requests to the same bad place, all at once, take one other place, not one each.
bad_for_many() {
	local place
	relocate 700 1 new
	place=$(spare_sector remap 696)
	spare_fails "writes:$place:8"
	check "writes to all sectors of a bad place succeed, all at once" \
		fio --output=/dev/null --name=many --filename="$dev" --offset=$((696 * 512)) --size=4k --bs=512 \
		--rw=randwrite --direct=1 --ioengine=io_uring --iodepth=8 --iodepth_batch=8 --verify=crc32c --verify_fatal=1
	equal "their block has moved on by one place" $((place + 8)) "$(spare_sector remap 696)"
	spare_fails
	check "status agrees with list" agree remap
}

# A table line that ends within a block says nothing of the sectors behind its end: neither
# that they are lost, nor that main has them.
shorter() {
	dmsetup remove remap
	dmsetup create remap --table "0 16380 remap /dev/mapper/main 1 /dev/mapper/spare"
}

cut_and_lost() {
	local place
	activate
	sectors write "$dev" 16376 8 old
	relocate 16376 8 new
	place=$(($(spare_sector remap 16376) + 4))
	spare_fails "all:$place:4"
	check "the end of the last block is lost" sectors lost "$dev" 16380 4
	spare_fails
	equal "as list says" 'f spare' "$(line 16376 | cut -d ' ' -f 3-4)"
	shorter
	refused "a block is not brought back that has lost sectors behind the end of the table" remap remap remove 16376
	check "it has what lies before the end" sectors holds "$dev" 16376 4 new
	again
	check "a longer table gives no older data for what was lost" sectors lost "$dev" 16380 4
	check "and has the rest" sectors holds "$dev" 16376 4 new
	sectors write "$dev" 16380 4 newest
	shorter
	check "when it was written, the block is brought back, all of it" remap remap remove 16376
	check "so main has what lies behind the end" sectors holds "$main_disk" 16380 4 newest
	dmsetup remove remap
}

cut_and_kept() {
	local place
	activate
	sectors write "$dev" 16376 8 old
	shorter
	relocate 16376 4 new
	place=$(spare_sector remap 16376)
	spare_fails "writes:$((place + 1)):1"
	check "a write succeeds that the spare refuses, in a block with the end of the table" \
		sectors write "$dev" 16377 1 newer
	check "which leaves its place" test "$(spare_sector remap 16376)" != "$place"
	spare_fails
	again
	check "a longer table has what lived on main behind the end of the shorter one" sectors holds "$dev" 16380 4 old
	check "and what was written before it" sectors holds "$dev" 16377 1 newer
	shorter
	check "the block is brought back" remap remap remove 16376
	again
	check "and has all of its data" sectors holds "$dev" 16378 2 new
	check "to its end" sectors holds "$dev" 16380 4 old
	dmsetup remove remap
}

# Main can read again what it could not when a block was relocated, but the place of the
# block takes no more, and cannot give all that it has.
bad_for_healing() {
	local place
	activate
	failing main "$main_disk" reads:1104:2
	remap remap add 1104
	failing main "$main_disk"
	place=$(($(spare_sector remap 1106) - 2))
	mark_log
	spare_fails "writes:$place:1" "reads:$((place + 2)):1"
	check "a sector that main can read again is read" sectors holds "$dev" 1104 1 old
	check "its place does not take it" within 60 logged 'spare 0 is failing'
	remap remap sync
	equal "the block is not driven out for that" "$((place + 2))" "$(spare_sector remap 1106)"
	check "which is not tried again for each read" reads_write_little 1104 200
	spare_fails
	check "and nothing of it is lost" sectors holds "$dev" 1104 8 old
	dmsetup remove remap
}

# reads_write_little SECTOR COUNT: so many reads of the sector make far fewer writes to the
# spare, which may be tried to be written once a minute.
reads_write_little() {
	local disk before writes minutes=$((SECONDS / 60)) i
	disk=$(dmsetup info -c --noheadings -o blkdevname spare)
	before=$(writes_of "$disk")
	[[ $before -gt 0 ]] || return 1
	for ((i = 0; i < $2; i++)); do
		sectors holds "$dev" "$1" 1 old || return 1
	done
	remap remap sync
	writes=$(($(writes_of "$disk") - before))
	minutes=$((SECONDS / 60 + 1 - minutes))
	echo "$writes writes in less than $minutes minutes"
	[[ $writes -le $((10 * minutes)) ]]
}

# One of three spares is gone for a while, with all that is on it.  The third one came when
# blocks lived on the others.
spare_gone() {
	local before
	activate_two
	relocate 0 64 new
	relocate 128 64 new
	check "blocks live on both spares" test "$(remap remap list | cut -d ' ' -f 3 | sort -u | paste -sd,)" = 0,1
	dmsetup remove remap
	all_three
	before=$(remap remap list)
	more_fails all:0:8192
	one_is_gone "$before" "$(remap remap list | awk '$3 == 1 { print $1; exit }')" \
		"$(remap remap list | awk '$3 == 0 { print $1; exit }')"
	more_fails
	dmsetup remove remap
	all_three
	equal "when it is back, the next activation has every block where it was" "$before" "$(remap remap list)"
	check "with its data" sectors holds "$dev" 0 64 new
	check "all of it" sectors holds "$dev" 128 64 new
	dmsetup remove remap
}

# one_is_gone LIST THERE HERE: the block at THERE is on the spare that is gone, that at HERE
# on the other one.
one_is_gone() {
	check "what is on a spare that is gone is an error" sectors lost "$dev" "$2" 4
	refused "also for a write, which it cannot take" sectors write "$dev" "$2" 1 lost
	check "what is on the other one is read" sectors holds "$dev" "$3" 8 new
	check "and written" sectors write "$dev" "$3" 8 new
	check "main is read" sectors holds "$dev" 1000 100 old
	equal "no block moves away from a spare that is gone, as that would lose all it holds" \
		"$1" "$(remap remap list)"
	matches "health says so" '^health=(replace|critical)$' "$(remap_values remap health)"
}

# A spare is added while another one takes no writes, and then that is gone.
adding_beside_a_failing_one() {
	local before here
	blkdiscard -f -z /dev/third
	activate_two
	relocate 0 64 new
	here=$(remap remap list | awk '$3 == 0 { print $1; exit }')
	dmsetup remove remap
	before=$(contents /dev/spare_disk /dev/more_disk /dev/third)
	for place in writes:0:8 writes:8184:8; do
		more_fails "$place"
		mark_log
		refused "no spare is added while another one fails ($place)" all_three
		expect_log "the log says why ($place)" 'spare 1 does not take its superblock: no spare is added'
		dmsetup remove remap || true
		equal "nothing has changed ($place)" "$before" "$(contents /dev/spare_disk /dev/more_disk /dev/third)"
	done
	check "the set can be used without the new one" both
	equal "as before" 'mode=rw spares=2/2' "$(remap_values remap mode spares)"
	dmsetup remove remap
	more_fails all:0:8192
	dmsetup create remap --table '0 16384 remap /dev/mapper/main 2 /dev/mapper/spare -'
	check "and without the one that failed" sectors holds "$dev" "$here" 8 new
	dmsetup remove remap
	more_fails
}

# A spare is added that does not take its slot pages.
adding_a_failing_one() {
	local before
	blkdiscard -f -z /dev/third
	activate_two
	relocate 0 64 new
	before=$(remap remap list)
	dmsetup remove remap
	failing new /dev/third writes:8:8
	refused "a spare that takes no slot pages is not added" all_three
	dmsetup remove remap || true
	all_three
	equal "what is on the others is there with it" "$before" "$(remap remap list)"
	dmsetup remove remap
	check "another one can take its place" with_third /dev/fourth
	equal "as a member of the set" 'mode=rw spares=3/3' "$(remap_values remap mode spares)"
	equal "that has every block where it was" "$before" "$(remap remap list)"
	relocate 1024 256 newer
	check "and takes blocks" test -n "$(remap remap list | awk '$3 == 2')"
	dmsetup remove remap
	failing new /dev/third
	mark_log
	refused "the first one does not come back" all_three
	expect_log "as it never had the blocks" 'spare 2 contradicts another spare of its set'
	dmsetup remove remap || true
	mark_log
	refused "nor beside another new one" dmsetup create remap --table \
		"0 16384 remap /dev/mapper/main 4 /dev/mapper/spare /dev/mapper/more /dev/mapper/new /dev/fifth"
	expect_log "for the same reason" 'spare 2 contradicts another spare of its set'
	dmsetup remove remap || true
	check "which stays blank" cmp -n 4096 /dev/zero /dev/fifth
	with_third /dev/fourth
	check "and has what it had" sectors holds "$dev" 1024 256 newer
	dmsetup remove remap
}

# Nobody knows whether a block was brought back, as the page that says so can be neither written nor read,
# and then its spare is gone: what another spare keeps of it must say that main may not have the block.
in_doubt_and_gone() {
	local size block data
	size=$(blockdev --getsz /dev/spare_disk)
	activate_two
	relocate 0 64 new
	block=$(remap remap list | awk '$3 == 0 { print $1; exit }')
	data=$(remap remap list | awk '$3 == 0 { print $4 }' | sort -n | head -n 1)
	spare_fails "all:0:$data" "all:$((size - data)):$data"
	refused "a block is not brought back when its page can be neither written nor read" remap remap remove "$block"
	equal "that is in doubt" mode=fail "$(remap_values remap mode)"
	refused "nor are metadata said to be on stable media" remap remap sync
	dmsetup remove remap
	dmsetup create remap --table "0 16384 remap /dev/mapper/main 2 - /dev/mapper/more"
	check "without its spare the block is an error" sectors lost "$dev" "$block" 8
	refused "and takes no write that would be lost when the spare is back" sectors write "$dev" "$block" 8 lost
	dmsetup remove remap
	spare_fails
	both
	check "its data is there when the spare is back" sectors holds "$dev" "$block" 8 new
	dmsetup remove remap
}

# The first copy of a page takes no writes: the second one, which may be the only good one then, is left alone.
one_page_bad() {
	local before
	activate
	relocate 80 8 new
	before=$(second_copies)
	spare_fails writes:8:8
	failing main "$main_disk" writes:160:1
	refused "a write fails that cannot be relocated because of one copy" sectors write "$dev" 160 1 lost
	failing main "$main_disk"
	equal "nothing is relocated any more then" mode=ro "$(remap_values remap mode)"
	equal "the second copies are as they were" "$before" "$(second_copies)"
	check "and main has what it had" sectors holds "$dev" 160 1 old
	spare_fails
	again
	equal "the next activation is well" 'mode=rw health=good' "$(remap_values remap mode health)"
	check "and has what was relocated" sectors holds "$dev" 80 8 new
	dmsetup remove remap
}

# second_copies: prints a sum of the pages at the end of the spare.
second_copies() {
	dd if=/dev/spare_disk iflag=direct bs=4096 skip=$(($(blockdev --getsz /dev/spare_disk) / 8 - 64)) status=none | sha256sum
}

# Both copies of the metadata are on bad places now.
pages_bad() {
	local size
	activate
	relocate 80 8 new
	size=$(blockdev --getsz /dev/spare_disk)
	mark_log
	spare_fails writes:0:40 "writes:$((size - 40)):40"
	failing main "$main_disk" writes:160:1
	refused "a write that cannot be relocated fails" sectors write "$dev" 160 1 lost
	failing main "$main_disk"
	matches "the mode says why" '^mode=(ro|fail)$' "$(remap_values remap mode)"
	equal "and so does health" health=critical "$(remap_values remap health)"
	expect_log "and the log" 'metadata (cannot be written|failed)|writing metadata failed'
	check "what is relocated is served" sectors holds "$dev" 80 8 new
	check "and written" sectors write "$dev" 80 8 newer
	failing main "$main_disk" writes:320:1
	refused "the next write that fails is an error" sectors write "$dev" 320 1 lost
	failing main "$main_disk"
	check "after which main has what it had" sectors holds "$dev" 320 1 old
	spare_fails
	again
	equal "the next activation with a good spare is well" 'mode=rw health=good' "$(remap_values remap mode health)"
	check "it has what was written" sectors holds "$dev" 80 8 newer
	relocate 160 1 new
	check "and relocates" sectors holds "$dev" 160 1 new
	dmsetup remove remap
}

# Neither copy of the metadata can be written, or read: nobody knows what is there.
pages_gone() {
	activate
	failing main "$main_disk" reads:82:2
	remap remap add 80
	in_doubt "a write to an unreadable sector" sectors write "$dev" 82 1 new
	check "a sector beside it has its data at the next activation" sectors holds "$dev" 81 1 old
	failing main "$main_disk" reads:92:2
	in_doubt "a new relocation" remap remap add 88
	check "all that can be read has its data at the next activation" sectors holds "$dev" 88 4 old
	failing main "$main_disk"
	dmsetup remove remap
}

# A block that leaves a bad slot while the metadata cannot be had may be found in either slot, but is listed once.
leaving_in_doubt() {
	local size first
	activate
	relocate 80 8 new
	size=$(blockdev --getsz /dev/spare_disk)
	first=$(spare_sector remap 80)
	spare_fails "all:0:$first" "writes:$first:8" "all:$((size - first)):$first"
	refused "a write to a bad slot fails when the metadata is in doubt" sectors write "$dev" 80 1 lost
	equal "that leaves the mode" mode=fail "$(remap_values remap mode)"
	equal "its block is listed once" 1 "$(remap remap list | wc -l)"
	check "and counted once" agree remap
	spare_fails
	again
	check "the next activation has its data" sectors holds "$dev" 81 7 new
	check "and counts it once" agree remap
	dmsetup remove remap
}

# A copy of a page that is newer than the other one cannot be read for a while: what is written meanwhile is not undone when it
# is back.
unread_for_once() {
	local front
	activate
	relocate 0 8 new
	front=all:0:$(spare_sector remap 0) back=$(back_of remap)
	spare_fails "writes:$back"
	remap remap add 80 || :
	equal "one copy says where a block is" 'mode=ro 80' \
		"$(remap_values remap mode) $(remap remap list 80 1 | cut -d ' ' -f 1)"
	dmsetup remove remap
	spare_fails "$front" "writes:$back"
	mark_log
	refused "a set is refused when that copy can be neither read nor outdated" \
		remap_create remap /dev/mapper/main /dev/mapper/spare
	expect_log "the log says why" 'slot page 1 of spare 0: the first copy can be neither read nor written'
	dmsetup remove remap || :
	check "a read-only table is not" dmsetup create -r remap --table '0 16384 remap /dev/mapper/main 1 /dev/mapper/spare'
	dmsetup remove remap
	spare_fails "$front"
	remap_create remap /dev/mapper/main /dev/mapper/spare
	equal "when the other copy can be written the block is where that says" 'mode=ro main' \
		"$(remap_values remap mode) $(remap remap lookup 80)"
	check "and it is written" sectors write "$dev" 80 8 newer
	spare_fails
	again
	check "when the first copy can be read again what was written is there" sectors holds "$dev" 80 8 newer
	check "and what was relocated before" sectors holds "$dev" 0 8 new
	equal "the set is whole" 'mode=rw health=good' "$(remap_values remap mode health)"
	dmsetup remove remap
}

# A copy of a page cannot be read after a change of which the other one does not know, or that was not made: the witness tells.
unread_with_witness() {
	one_copy
	unread_after_a_write "what was written by the copy that is gone" both_and_remove reads:8:8
	one_copy
	unread_after_a_write "what was written by a copy that is gone for good" both_and_remove all:8:8 "writes:$back"
	one_copy
	unread_after_a_write "what was written by a copy that dmremap has restored" restore reads:8:8
	activate_two
	relocate 0 64 new
	spare_fails writes:8:8
	for block in 800 808; do
		remap remap add "$block" || break
	done
	equal "a block was not relocated" 'mode=ro main' "$(remap_values remap mode) $(remap remap lookup "$block")"
	unread_after_a_write "what was written to a block that was not relocated" both_and_remove reads:8:8
}

# one_copy: puts a block on spare 0, of which only one copy of its page knows.
one_copy() {
	activate_two
	relocate 0 64 new
	back=$(back_of remap)
	spare_fails "writes:$back"
	remap remap add 800 8 || :
	remap remap add 808 8 || :
	block=$(remap remap list 800 | awk '$3 == 0 { print $1; exit }')
	equal "one copy says where a block is, and the witness" mode=ro "$(remap_values remap mode)"
}

# unread_after_a_write WHAT COMMAND RANGE...: writes the block, and looks for it after the first copy of its page could not be read while
# COMMAND ran, because these ranges of the spare failed.
unread_after_a_write() {
	local before
	check "it can be written" sectors write "$dev" "$block" 8 newer
	before=$(remap remap list)
	dmsetup remove remap
	spare_fails "${@:3}"
	equal "dmremap dumps $1" "$before" "$(dmremap dump /dev/mapper/spare /dev/mapper/more | sed '1,/^relocations /d')"
	"$2"
	spare_fails
	both
	check "$1 is there when all is well" sectors holds "$dev" "$block" 8 newer
	equal "the set is whole, with $1" mode=rw "$(remap_values remap mode)"
	check "status and list agree on $1" agree remap
	dmsetup remove remap
}

both_and_remove() {
	both
	check "it is there while the copy cannot be read" sectors holds "$dev" "$block" 8 newer
	dmsetup remove remap
}

restore() {
	# It says that it cannot read back what it has written.
	dmremap repair /dev/mapper/spare /dev/mapper/more || :
	spare_fails
	equal "dmremap has written both copies" 0 "$(dmremap check --quiet /dev/mapper/spare /dev/mapper/more >/dev/null; echo $?)"
}

# back_of NAME: prints where the spare has the second copies of its pages, as failing takes it.
back_of() {
	local size data
	size=$(blockdev --getsz /dev/spare_disk)
	data=$(remap "$1" list | awk '$3 == 0 { print $4 }' | sort -n | head -n 1)
	echo "$((size - data)):$data"
}

# in_doubt WHAT COMMAND...: COMMAND fails while the metadata cannot be had.
in_doubt() {
	local size first
	size=$(blockdev --getsz /dev/spare_disk)
	first=$(spare_sector remap 80)
	spare_fails "all:0:$first" "all:$((size - first)):$first"
	refused "$1 fails when the metadata is in doubt" "${@:2}"
	equal "$1 then leaves the mode" mode=fail "$(remap_values remap mode)"
	check "$1 then leaves a status that agrees with the list" agree remap
	spare_fails
	again
	equal "that ends with the next activation, after $1" mode=rw "$(remap_values remap mode)"
	check "status agrees with list then, after $1" agree remap
}

main
