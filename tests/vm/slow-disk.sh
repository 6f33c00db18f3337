#!/bin/bash
#
# A disk that takes for ever over a bad block: nothing waits for that but what needs the block,
# or has failed itself.

# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap

main() {
	null_disk disk 8
	null_disk spare 4
	# Sectors 96 to 99 answer only when the disk below them is not suspended.
	flat slow /dev/disk 4 96
	dmsetup create main <<-END
		0 96 linear /dev/disk 0
		96 4 linear /dev/mapper/slow 0
		100 1 error
		101 99 linear /dev/disk 101
		200 1 error
		201 16183 linear /dev/disk 201
	END
	remap_create remap /dev/mapper/main /dev/spare 'block_size 8'
	sectors write "$dev" 0 100 old
	sectors write "$dev" 104 96 old
	remap remap add 400

	dmsetup suspend --noflush slow
	begin failed sectors_alone write 100 1 new
	# The block is marked, and the worker waits for the rest of it.
	within 60 is_moving
	check "other blocks are read meanwhile" sectors holds "$dev" 0 96 old
	check "and written" sectors write "$dev" 104 8 new
	check "those on the spare, too" sectors write "$dev" 400 8 new
	check "status answers" timeout 60 dmsetup status remap
	check "lookup, too" timeout 60 dmsetup message remap 0 lookup 96
	begin deferred sectors_alone write 96 1 newer
	begin other sectors_alone write 200 1 new
	check "the disk is still at it" all_run failed deferred other
	dmsetup resume slow
	ends_well failed "when it has answered the write that had failed succeeds"
	ends_well deferred "so does one to the same block"
	ends_well other "and one that had failed elsewhere"
	check "each has its data: the first" sectors holds "$dev" 100 1 new
	check "the second" sectors holds "$dev" 96 1 newer
	check "the third" sectors holds "$dev" 200 1 new
	check "and what was beside them" sectors holds "$dev" 97 3 old
	equal "two blocks were relocated" 'used=3 relocated_auto=2 unreadable=0' \
		"$(remap_values remap used relocated_auto unreadable)"
	a_suspend_is_given_up
	dmsetup remove remap
	dmsetup remove main
}

# Whoever suspends the device does not want to wait any more for a request that hangs.
a_suspend_is_given_up() {
	remap remap scan start
	dmsetup suspend --noflush main
	begin hanging sectors_alone write 0 8 newest
	check "a request hangs" within 60 is_under_way
	refused "a suspend that waits for it can be given up" timeout 3 dmsetup suspend remap
	check "which leaves the request as it is" all_run hanging
	dmsetup resume main
	ends_well hanging "it ends when the disk answers"
	check "blocks can be relocated then" remap remap add 800
	check "and the background pass goes on" within 60 pass_has_ended
	check "what was written is there" sectors holds "$dev" 0 8 newest
}

is_under_way() {
	[[ $(under_way remap) -gt 0 ]]
}

pass_has_ended() {
	[[ $(remap_status remap scan_passes) -ge 1 ]]
}

declare -A running

# begin NAME COMMAND...: runs a command beside others.
begin() {
	"${@:2}" &
	running[$1]=$!
}

# sectors_alone VERB FIRST COUNT TEXT: like sectors, by a process of its own.
sectors_alone() {
	[[ $(/tests/sectors.py <<<"$1 $dev ${*:2}") == ok ]]
}

all_run() {
	local name
	for name in "$@"; do
		[[ -e /proc/${running[$name]} ]] || return
	done
}

# ends_well NAME PROMISE: a check that the command ends, and without an error.
ends_well() {
	local status=0
	wait "${running[$1]}" || status=$?
	equal "$2" 0 "$status"
}

# is_moving: the block at 96 is relocated, or about to be.
is_moving() {
	[[ $(remap remap lookup 96) == spare* ]]
}

main
