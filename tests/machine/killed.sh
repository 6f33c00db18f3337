#!/bin/bash
#
# A machine loses its power, again and again, while sectors are written and blocks move, and
# with it its disks lose what was not flushed.  When it has booted again, the device comes up and has
# all that was flushed, with a spare missing, too.
#
# The argument is the seed of an earlier run: what happens, and for how long, is the same
# then, but not at which instruction it ends.

# shellcheck source=common.sh
. "$(dirname "$0")/../../scripts/common.sh"
# shellcheck source=tap.sh
. "$TOP/tests/tap.sh"

host_packages python3
vm=$TOP/scripts/vm
guest=$TOP/tests/machine/guest/killed
effort=${DM_REMAP_EFFORT:-1} seed=${1:-$RANDOM}
cuts=$((20 * effort))
RANDOM=$seed
folder=$(mktemp -d)
at_end clean_up
clean_up() {
	kill "$server" 2>/dev/null || true
	rm -rf "$folder"
}

# start_disks: serves the disks of the machine, and sets disks to the options for it.
start_disks() {
	local disk
	disks=()
	for disk in main journal spare0 spare1; do
		disks+=(--disk "$folder/$disk")
	done
	"$TOP/tests/machine/volatile-disks" "$seed" "$folder"/{main:2,journal:1:safe,spare0:2,spare1:2} \
		>"$folder/server" &
	server=$!
	within 60 grep -q ready "$folder/server"
}

# has_begun: the work has begun, or will not.
has_begun() {
	grep -q '^works' "$folder/output" || [[ ! -d /proc/$machine ]]
}

# lose_power NUMBER: boots the machine, and kills it at some moment of its work.
lose_power() {
	local status=0
	: >"$folder/output"
	VM_LOG=$folder/log "$vm" --cpus 1 "${disks[@]}" "$guest" "$seed-$1" >"$folder/output" 2>&1 &
	machine=$!
	within 600 has_begun
	sleep "$((RANDOM % 3)).$((RANDOM % 10))"
	kill -TERM "$machine" 2>/dev/null || true
	wait "$machine" || status=$?
	equal "what was flushed is there, and the power is cut under load, time $1 (seed $seed)" 143 "$status"
	explain "$(sed '/^works/d' "$folder/output")"
	refused "the kernel has not complained, time $1" grep -E 'WARNING:|BUG[: ]|Oops|Call Trace' "$folder/log"
}

start_disks
for number in $(seq "$cuts"); do
	# After a loss nothing that follows means anything.
	[[ $failures -gt 0 ]] || lose_power "$number"
done
[[ $failures -gt 0 ]] ||
	check "what was flushed is there after all of it" "$vm" --cpus 1 "${disks[@]}" "$guest" "$seed" --stop
lost=$(awk -F '[: ]+' '{ lost += $2 } END { print lost + 0 }' "$folder/server")
check "the power cuts had something to lose: $lost sectors" test "$lost" -gt 0
