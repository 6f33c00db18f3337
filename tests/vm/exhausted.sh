#!/bin/bash
#
# Spares that become full: it is said at 80 %, at 95 % and at the end, by the health, the log
# and an event; then errors are passed up, and all that is relocated is served.

# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap

main() {
	local total used
	null_disk disk 8
	null_disk spare_disk 1
	failing_disk main /dev/disk
	failing_disk spare /dev/spare_disk
	remap_create remap /dev/mapper/main /dev/mapper/spare 'block_size 8'
	sectors write "$dev" 0 8192 old
	total=$(remap_values remap total | cut -d = -f 2)
	used=0
	step watch $((total * 80 / 100 - 2)) ''
	step replace $(((total * 80 + 99) / 100)) '80 % of the spare blocks are used'
	step critical $(((total * 95 + 99) / 100)) '95 % of the spare blocks are used'
	step critical "$total" 'no spare block is free'
	is_full
	is_less_full
}

events() {
	dmsetup info -c --noheadings -o events remap
}

health_is() {
	[[ $(remap_values remap health) == "health=$1" ]]
}

# model_is LEVEL: so said the model when it was asked last.
model_is() {
	[[ $(remap remap health) == *$'\n'model="$1"$'\n'* ]]
}

# step HEALTH USED REGEX: has blocks relocated until USED of them are, the last one by a write
# that fails.  The health is that then, and the log, if REGEX is not empty, has a new line.
step() {
	local before last=$((($2 - 1) * 8))
	mark_log
	remap remap add $((used * 8)) $(((${2} - used - 1) * 8))
	before=$(events)
	fails "writes:$last:8"
	check "a write that fails succeeds on a spare of which $2 of $total blocks are used" \
		sectors write "$dev" $((last + 3)) 1 new
	fails
	used=$2
	check "the health is $1 then" within 60 health_is "$1"
	equal "as many are used" "used=$2" "$(remap_values remap used)"
	if [[ -n $3 ]]; then
		expect_log "the log says so" "$3"
		check "once" test "$(new_log | grep -c "$3")" -eq 1
	fi
	check "events are raised" test "$(events)" -gt "$before"
}

fails() {
	failing main /dev/disk "$@"
}

# is_full: no block is free any more.
is_full() {
	local last=$(((total - 1) * 8)) beyond=$((total * 8)) before place
	before=$(remap remap list)
	fails "all:$beyond:4" "all:$((beyond + 100)):4" "all:$last:8"
	refused "a write that fails is an error when the spare is full" sectors write "$dev" "$beyond" 1 lost
	equal "it was refused a place" 'refused=1 write_errors=1' \
		"$(remap_values remap refused write_errors | sed 's/write_errors=.*/write_errors=1/')"
	check "a read that fails is one, too" sectors lost "$dev" $((beyond + 100)) 4
	check "beside it main is read" sectors holds "$dev" $((beyond + 104)) 8 old
	check "what is relocated is read" sectors holds "$dev" $((last + 3)) 1 new
	check "and written" sectors write "$dev" "$last" 8 newer
	check "for good" sectors holds "$dev" "$last" 8 newer
	refused "a message is refused, too" remap remap add "$beyond"
	equal "nothing has moved" "$before" "$(remap remap list)"

	place=$(spare_sector remap "$last")
	failing spare /dev/spare_disk "writes:$place:1"
	refused "a write that the spare refuses is an error when it is full" sectors write "$dev" "$last" 1 lost
	check "what the block held is there" sectors holds "$dev" $((last + 1)) 7 newer
	equal "in its place" "$before" "$(remap remap list)"
	failing spare /dev/spare_disk

	dmsetup remove remap
	mark_log
	remap_create remap /dev/mapper/main /dev/mapper/spare
	equal "the next activation is as full" "health=critical used=$total" "$(remap_values remap health used)"
	check "and has the data" sectors holds "$dev" $((last + 1)) 7 newer
	fails
	check "what could not be relocated is as it was" sectors holds "$dev" "$beyond" 104 old
}

is_less_full() {
	local before beyond=$((total * 8))
	# The health would follow the room if the model had not been asked.
	within 60 model_is critical
	before=$(events)
	remap remap remove 0 $((total * 8 / 2))
	equal "the health does not get better before some days have passed" health=critical "$(remap_values remap health)"
	check "an event says so" test "$(events)" -gt "$before"
	fails "writes:$beyond:4"
	check "and a write that fails succeeds" sectors write "$dev" "$beyond" 2 new
	check "on the spare" sectors holds "$dev" "$beyond" 2 new
	dmsetup remove remap
}

main
