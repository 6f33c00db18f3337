#!/bin/bash
#
# A disk that dies: block after block fails, until the spare is nearly full.  The health gets
# worse from level to level, in order, never better; and whoever waits for events sees each.

# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap
all='good watch replace critical'

# health KEY: prints the value of KEY in the reply to the message health.
health() {
	remap remap health | sed -n "s/^$1=//p"
}

model_says() {
	[[ $(health model) == "$1" ]]
}

# asked: the model was asked since the last block failed.
asked() {
	awk -v now="$(health rate)" -v before="$rate" 'BEGIN { exit !(now > before) }'
}

# watch_events: does nothing but wait for events, and notes the health after each.
watch_events() {
	local number=0
	while number=$(dmsetup info -c --noheadings -o events remap) &&
		remap_status remap health >>/tmp/seen &&
		dmsetup wait remap "$number" >/tmp/wait; do
		:
	done
}

# seen LEVEL: the last that was noted after an event.
seen() {
	[[ $(tail -n 1 /tmp/seen) == "$1" ]]
}

# says_the_same: status and health do, unless the model is just asked.
says_the_same() {
	[[ $(remap_values remap exhaustion_days) == "exhaustion_days=$(health exhaustion_days)" ]]
}

# in_turn: of lines, prints each that is not like the one before, in one line.
in_turn() {
	uniq | paste -sd ' '
}

main() {
	local block=0 total rate=0 level=good before='' levels=() reached=''
	null_disk disk 16
	null_disk spare 1
	failing_disk main /dev/disk
	remap_create remap /dev/mapper/main /dev/spare 'block_size 8 scan_interval 0'
	total=$(remap_status remap total)
	failing main /dev/disk writes:0:16384
	within 60 model_says good
	: >/tmp/seen
	watch_events 2>/dev/null &
	watcher=$!
	within 60 seen good
	mark_log

	levels=(good)
	while [[ $((block * 100)) -lt $((total * 97)) ]]; do
		rate=$(health rate) before=$level
		fails $((block < 16 ? 1 : 8))
		level=$(remap_status remap health)
		levels+=("$level")
		if [[ $level != "$before" ]]; then
			within 60 seen "$level" || break
			reached+="$level with $block of $total blocks, "
		fi
	done
	explain "${reached%, }"
	equal "the health gets worse from level to level, and never better" "$all" "$(printf '%s\n' "${levels[@]}" | in_turn)"
	equal "whoever waits for events sees each level" "$all" "$(in_turn </tmp/seen)"
	check "the log tells of each once" within 60 has_told "${all#* }"
	equal "no write was lost" "used=$block unreadable=0 relocated_auto=$block refused=0" \
		"$(remap_values remap used unreadable relocated_auto refused)"
	check "the status has the forecast of the model" within 60 says_the_same
	matches "which is a number of days" '^[0-9]+$' "$(health exhaustion_days)"
	stays
}

# has_told LEVELS: the log has these levels, in this order.
has_told() {
	[[ $(new_log | sed -n 's/.*the health of main is: //p' | paste -sd ' ') == "$1" ]]
}

# fails COUNT: so many more blocks fail, and the model has heard of it.
fails() {
	sectors write "$dev" $((block * 8)) $(($1 * 8)) new
	block=$((block + $1))
	within 60 asked
}

stays() {
	within 60 model_says critical
	remap remap set auto 0
	failing main /dev/disk
	remap remap remove 0 16384
	equal "when the spare is empty again the level stays" 'health=critical used=0' "$(remap_values remap health used)"
	dmsetup remove remap
	wait "$watcher" || true
	remap_create remap /dev/mapper/main /dev/spare
	check "and over an activation" within 60 model_says critical
	equal "nobody who waits has seen it getting better" "$all" "$(grep . /tmp/seen | in_turn)"
	dmsetup remove remap
	dmsetup remove main
}

main
