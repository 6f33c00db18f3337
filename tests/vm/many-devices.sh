#!/bin/bash
#
# One module instance serves any number of devices, each with its own state: twenty of
# them at once, with blocks that come and go on all of them at the same time.
#
# races: possible

# shellcheck source=lib-sectors.sh
. /tests/lib-sectors.sh

devices=20
sectors_each=384

main() {
	make_disks
	load_module
	equal "nothing uses the module yet" 0 "$(users)"
	make_devices
	equal "each device uses the module" "$devices" "$(users)"
	move_blocks
	remove_some
	everything_again
}

users() {
	cat /sys/module/dm_remap/refcnt
}

# for_each COMMAND: calls COMMAND with the number of each device, all at the same time.
for_each() {
	local number pid pids=() status=0
	for ((number = 0; number < devices; number++)); do
		"$1" "$number" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || status=$?
	done
	return "$status"
}

make_disks() {
	local number
	for ((number = 0; number < devices; number++)); do
		null_disk "main$number" 2
		null_disk "spare$number" 1
	done
}

create() {
	dmsetup create "d$1" --table "0 4096 remap /dev/main$1 1 /dev/spare$1 1 manual"
}

make_devices() {
	check "devices can be made all at the same time" for_each create
	write_all first
	equal "each device has its own data" '' "$(all_data first)"
}

# write_all TEXT: writes to every device TEXT and its number.
write_all() {
	local number
	for ((number = 0; number < devices; number++)); do
		sectors write "/dev/mapper/d$number" 0 "$sectors_each" "$1-$number"
	done
}

# all_data TEXT: says what else than TEXT and its number a device holds, or its spare
# where list tells.
all_data() {
	local number
	for number in $(dmsetup ls | sed -n 's/^d\([0-9]*\)\t.*/\1/p'); do
		sectors holds "/dev/mapper/d$number" 0 "$sectors_each" "$1-$number" || true
		spare_data "$1" "$number"
	done
}

spare_data() {
	local place count sector
	remap "d$2" list | rows >/root/rows
	while read -r place count sector; do
		sectors holds "/dev/spare$2" "$place" "$count" "$1-$2" "$sector" || true
	done </root/rows
}

# rows: of a list, prints the blocks that follow each other on main and on the spare as
# one row: its first sector on the spare, its sectors, and its first sector.
rows() {
	awk '
		$1 == sector + count && $4 == place + count { count += $2; next }
		count { print place, count, sector }
		{ sector = $1; count = $2; place = $4 }
		END { if (count) print place, count, sector }
	'
}

# move NUMBER: relocates some blocks of a device and brings some back.
move() {
	local first=$((($1 * 5 + round * 11) % 16 * 8))
	remap "d$1" add "$first" $((64 + $1 * 8))
	remap "d$1" remove $((first + 16)) $((16 + round * 8))
}

move_blocks() {
	local round mover moved
	for round in 1 2 3; do
		moved=0
		for_each move &
		mover=$!
		write_all "round$round"
		wait "$mover" || moved=$?
		equal "blocks of all devices move at the same time, round $round" 0 "$moved"
		equal "each device has its own data, and its own spare, round $round" '' "$(all_data "round$round")"
	done
	equal "no two devices have one set" "$devices" "$(sets | sort -u | wc -l)"
	refused "no device takes another one's spare" \
		dmsetup create wrong --table "0 4096 remap /dev/main0 1 /dev/spare1"
}

# sets: prints the uuid of the set on each spare.
sets() {
	local number
	for ((number = 0; number < devices; number++)); do
		od -A n -j 16 -N 16 -t x1 "/dev/spare$number"
	done
}

# lists: prints the relocations of all devices.
lists() {
	local number
	for ((number = 0; number < devices; number++)); do
		remap "d$number" list
	done
}

remove_some() {
	local number
	list=$(lists)
	for ((number = 0; number < devices; number += 2)); do
		dmsetup remove "d$number"
	done
	equal "each device lets go of the module" $((devices / 2)) "$(users)"
	equal "the other devices have their data" '' "$(all_data round3)"
	refused "the module cannot be unloaded under them" rmmod dm_remap
}

everything_again() {
	local number
	for ((number = 1; number < devices; number += 2)); do
		dmsetup remove "d$number"
	done
	equal "nothing uses the module in the end" 0 "$(users)"
	check "it can be unloaded" rmmod dm_remap
	load_module
	check "all devices can be made again" for_each create
	equal "every relocation is there" "$list" "$(lists)"
	equal "and all data" '' "$(all_data round3)"
}

main
