#!/bin/bash
#
# Main is gone as a whole for a while, under load, and comes back: it is suspected until it
# answers again, no spare block is used up for that, every request ends, and no sector is
# harmed.
#
# races: possible

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh
# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap
size=32768

main() {
	null_disk disk 16
	null_disk spare 16
	failing_disk main /dev/disk
	remap_create remap /dev/mapper/main /dev/spare 'block_size 8'
	# Some of what is written and read lives on the spare.
	remap remap add 128 64
	begin_churn remap /dev/disk /dev/spare --count 512 --writers 4 --readers 1 --movers 0 --errors
	gone_for_a_while
	gone_again_and_again
	end_churn "no sector was harmed, and what was on the spare was served"
	gone_at_the_end
}

# goes_away and comes_back: main fails everywhere, and nowhere.
goes_away() { failing main /dev/disk "all:0:$size"; }
comes_back() { failing main /dev/disk; }

# mode_is MODE: the status says so.
mode_is() {
	[[ $(remap_values remap mode) == "mode=$1" ]]
}

# number KEY: prints the number of a key in the status.
number() {
	remap_values remap "$1" | cut -d = -f 2
}

more_than() {
	[[ $(number "$1") -gt $2 ]]
}

events() {
	dmsetup info -c --noheadings -o events remap
}

more_events() {
	[[ $(events) -gt $1 ]]
}

gone_for_a_while() {
	local writes events
	within 60 more_than writes 100
	mark_log
	events=$(events)
	goes_away
	check "main is suspected when it fails everywhere" within 60 mode_is suspect
	# Whoever finds that says so right after it can be seen.
	expect_log "the log says so" 'main does not answer at all'
	check "and so does an event" within 60 more_events "$events"
	for ((turn = 1; turn <= effort; turn++)); do
		writes=$(number writes)
		check "requests go on to end, time $turn" within 60 more_than writes $((writes + 100))
		sleep 1
	done
	check "what is on the spare is read" dd if="$dev" of=/dev/null bs=4k skip=16 count=8 iflag=direct status=none
	equal "no block was relocated meanwhile" 'mode=suspect used=8 relocated_auto=0 refused=0' \
		"$(remap_values remap mode used relocated_auto refused)"
	comes_back
	check "main is not suspected any more when it is back" within 60 mode_is rw
	expect_log "the log says so, too" 'main answers again'
	writes=$(number writes)
	within 60 more_than writes $((writes + 200))
	equal "no block was relocated for what had failed" 'used=8 relocated_auto=0 refused=0' \
		"$(remap_values remap used relocated_auto refused)"
	check "the log has few lines about all of that" few_lines
}

# few_lines: whatever the number of requests that failed.
few_lines() {
	test "$(new_log | grep -c dm_remap)" -lt 20
}

gone_again_and_again() {
	local turn
	for ((turn = 1; turn <= 3 * effort; turn++)); do
		goes_away
		within 60 mode_is suspect
		comes_back
		within 60 mode_is rw
	done
	equal "no block was relocated when main went and came $((3 * effort)) times" \
		'used=8 relocated_auto=0' "$(remap_values remap used relocated_auto)"
}

# What is under way when main is gone does not keep the device from changing or ending.
gone_at_the_end() {
	goes_away
	refused "a read fails when main is gone" dd if="$dev" of=/dev/null bs=4k count=1 iflag=direct
	check "main is suspected" mode_is suspect
	dmsetup reload remap --table "$(dmsetup table remap)"
	check "the device can be suspended then" timeout 60 dmsetup suspend remap
	check "and resumed with another table" timeout 60 dmsetup resume remap
	refused "a read fails there, too" dd if="$dev" of=/dev/null bs=4k count=1 iflag=direct
	check "main is suspected again" mode_is suspect
	check "the device can be removed then" timeout 60 dmsetup remove remap
	comes_back
	remap_create remap /dev/mapper/main /dev/spare
	equal "the next activation finds every block where it was" 'mode=rw used=8' \
		"$(remap_values remap mode used)"
	dmsetup remove remap
}

main
