#!/bin/bash
#
# A machine loses its power while sectors are written and moved.  When it has booted again, the
# device comes up, has what was flushed, and lists its blocks consistently.

# shellcheck source=tap.sh
. "$(dirname "$0")/../tap.sh"

here=$(dirname "$0")
vm=$here/../../scripts/vm
guest=$here/guest/power-cut
folder=$(mktemp -d)
at_end remove_folder
remove_folder() {
	rm -rf "$folder"
}

disks=()
for disk in main spare state; do
	truncate -s 8M "$folder/$disk"
	disks+=(--disk "$folder/$disk")
done

# has_saved COUNT: so often has the guest saved what must survive.
has_saved() {
	[[ $(grep -c '^saved' "$folder/output") -ge $1 ]]
}

# cut_power: starts the load and cuts the power at some moment.
cut_power() {
	local machine status=0
	: >"$folder/output"
	"$vm" "${disks[@]}" "$guest" load >"$folder/output" 2>&1 &
	machine=$!
	within 120 has_saved 3
	sleep "0.$((RANDOM % 10))"
	kill -TERM "$machine"
	wait "$machine" || status=$?
	equal "the power is cut under load, time $1" 143 "$status"
	copy=$(sed -n 's/^saved //p' "$folder/output" | tail -n 1)
}

for time in $(seq $((2 * ${DM_REMAP_EFFORT:-1}))); do
	cut_power "$time"
	check "what was flushed is there after it, and the list is consistent, time $time" \
		"$vm" "${disks[@]}" "$guest" look "$copy"
done
