#!/bin/bash
#
# The background pass: it reads main where its sectors live, saves what is weak, and
# keeps its position.
#
# races: possible

# shellcheck source=lib-sectors.sh
. /tests/lib-sectors.sh

dev=/dev/mapper/remap

# scan KEY: prints the value of KEY in the state of the pass.
scan() {
	remap remap scan status | sed -n "s/^$1=//p"
}

# passes NUMBER: so many passes have ended, or more.
passes() {
	[[ $(remap_status remap scan_passes) -ge $1 ]]
}

main() {
	null_disk main 8
	null_disk spare 4
	remap_create remap /dev/main /dev/spare 'block_size 8'
	sectors write "$dev" 0 2048 old
	equal "no pass runs on a new set" 'scan=idle scan_pos=0 scan_passes=0 scan_errors=0' \
		"$(remap_values remap scan scan_pos scan_passes scan_errors)"
	null_bad main 1000-1001
	null_bad main 1500-1500
	check "a pass can be started" remap remap scan start
	check "it comes to an end" within 30 passes 1
	equal "it has found what cannot be read" '1000:fc 1496:ef' "$(live_masks remap)"
	equal "and counted it" 'scan=idle scan_pos=0 scan_passes=1 scan_errors=3' \
		"$(remap_values remap scan scan_pos scan_passes scan_errors)"
	check "what could be read is saved" sectors holds "$dev" 1002 498 old
	check "a slow pass can be started" remap remap set scan_rate 64
	check "a second one" remap remap scan start
	refused "but no third one beside it" remap remap scan start
	check "it moves" within 30 moves
	check "it can be paused" remap remap scan pause
	position=$(scan scan_pos)
	dmsetup remove remap
	remap_create remap /dev/main /dev/spare 'block_size 8'
	equal "it stays paused over an activation, at its position" "scan=paused scan_pos=$position" \
		"$(remap_values remap scan scan_pos)"
	check "it goes on when told to" remap remap scan resume
	rate_held
	check "and moves again" within 30 moves
	dmsetup suspend remap
	position=$(scan scan_pos)
	sleep 1
	equal "it stands while the device is suspended" "$position" "$(scan scan_pos)"
	dmsetup resume remap
	check "and goes on after that" within 30 moves
	check "its rate can be changed while it runs" remap remap set scan_rate 1000000
	check "it comes to its end" within 30 passes 2
	equal "it has found nothing new" scan_errors=3 "$(remap_values remap scan_errors)"
	refused "a pass that is not there cannot be resumed" remap remap scan resume
	refused "nor paused" remap remap scan pause
	refused "nor stopped" remap remap scan stop
	check "a pass that is due begins by itself" remap remap set scan_interval 1
	check "and ends" within 30 passes 3
}

# The pass keeps inside its rate, however long this takes: a step may be ahead of it.
rate_held() {
	local first last milliseconds
	first=$(scan scan_pos) milliseconds=$((-${EPOCHREALTIME/./} / 1000))
	sleep 4
	last=$(scan scan_pos) milliseconds=$((milliseconds + ${EPOCHREALTIME/./} / 1000))
	check "it reads no more than scan_rate allows" \
		test $(((last - first) / 2)) -le $((64 * milliseconds / 1000 + 256))
}

# moves: the pass has moved since this was asked last.
moves() {
	local before=${position-0}
	position=$(scan scan_pos)
	[[ $position -gt $before ]]
}

main
