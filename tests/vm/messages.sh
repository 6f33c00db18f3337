#!/bin/bash
#
# Messages do what they say and answer in real text.  A malformed or refused one changes
# nothing and returns the fitting errno, with one line in the kernel log that says why.

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

dev=/dev/mapper/remap
size=16381
huge=18446744073709551616

scenario() {
	null_disk main 8
	null_disk spare 8
	# The last block is a part of one, of 5 sectors.
	flat odd /dev/main "$size"
	sectors write /dev/main 0 "$size" data
	remap_create remap /dev/mapper/odd /dev/spare 'block_size 8'

	relocating_and_looking
	malformed_messages
	refused_messages
	bringing_back
	settings
	counting
	dmsetup remove remap
	blkdiscard -z /dev/spare
	long_lists
	dmsetup remove remap
	blkdiscard -z /dev/spare
	behind_another_target
}

# said PROMISE EXPECTED VERB [ARGUMENT...]: the reply to a message.
said() {
	equal "$1" "$2" "$(remap remap "${@:3}")"
}

relocating_and_looking() {
	local before after list line place
	said "list says nothing while nothing is relocated" '' list
	said "lookup says main for a sector of main" main lookup 20

	printf -v before '%(%s)T' -1
	said "add says nothing" '' add 20
	printf -v after '%(%s)T' -1
	list=$(remap remap list)
	matches "add relocates the block that a sector lies in, and list shows it" \
		'^16 8 0 [0-9]+ ff message [0-9]+$' "$list"
	read -r -a line <<<"$list"
	place=${line[3]}
	# The kernel's time of day is that of its last tick.
	check "list shows when it was relocated" test $((before - 1)) -le "${line[6]}" -a "${line[6]}" -le "$after"
	check "and where the block is on the spare" sectors holds /dev/spare "$place" 8 data 16
	said "lookup shows where the first sector of a block is" "spare 0 $place ff" lookup 16
	said "lookup shows where another sector of a block is" "spare 0 $((place + 4)) ff" lookup 20
	said "lookup shows where the last sector of a block is" "spare 0 $((place + 7)) ff" lookup 23
	said "the sector before a relocated block is on main" main lookup 15
	said "the sector behind a relocated block is on main" main lookup 24

	remap remap add 39 2
	equal "add relocates every block that a range touches" '16:ff 32:ff 40:ff' "$(live_masks remap)"
	remap remap add $((size - 1))
	equal "the last block may be shorter" '16376 5 0 1f' "$(remap remap list 16376 | cut -d ' ' -f 1-3,5)"
	check "the device holds what it held" sectors holds "$dev" 0 "$size" data

	list=$(remap remap list)
	remap remap add 16 32
	equal "add relocates what is not relocated yet" '16:ff 24:ff 32:ff 40:ff 16376:1f' "$(live_masks remap)"
	equal "and leaves the rest of its range as it is" "$list" "$(remap remap list | grep -v '^24 ')"
	remap remap remove 24
	before="$(changes main spare) $(remap_values remap used relocated)"
	remap remap add 20
	remap remap add 39 2
	equal "add of relocated blocks changes nothing" "$list" "$(remap remap list)"
	equal "and writes nothing" "$before" "$(changes main spare) $(remap_values remap used relocated)"
}

malformed_messages() {
	local verb wrong before many
	before="$(remap remap list) $(changes main spare) $(dmsetup status remap) $(dmsetup table remap)"
	many=$(printf 'x %.0s' {1..500})

	for wrong in nonsense ADD adds -; do
		message_refused "the message \"$wrong\"" EINVAL 'message refused: there is no such message' "$wrong 0"
	done
	message_refused "the message of 500 words" EINVAL 'message refused: there is no such message' "$many"
	for verb in add remove lookup; do
		message_refused "$verb without a sector" EINVAL 'message refused: sector is missing' "$verb"
	done
	for verb in add remove lookup list; do
		for wrong in -1 +1 0x10 1.5 1e3 x '\ ' "$huge" "$(printf '1%.0s' {1..3000})"; do
			message_refused "$verb of the sector \"${wrong:0:40}\"" EINVAL 'message refused: sector must be a number' \
				"$verb $wrong 1"
		done
		message_refused "$verb of the sector behind the last one" EINVAL \
			'message refused: sector lies beyond the end' "$verb $size"
		message_refused "$verb of the sector 2^64 - 2" EINVAL \
			'message refused: sector lies beyond the end' "$verb 18446744073709551614"
	done
	for verb in add remove; do
		for wrong in 0 -1 +1 0x8 x "$huge"; do
			message_refused "$verb of \"$wrong\" sectors" EINVAL 'message refused: count must be a number greater than 0' \
				"$verb 0 $wrong"
		done
		message_refused "$verb across the end" EINVAL 'message refused: count reaches beyond the end' \
			"$verb $((size - 1)) 2"
		message_refused "$verb of 2^64 - 1 sectors" EINVAL 'message refused: count reaches beyond the end' \
			"$verb 0 18446744073709551615"
		message_refused "$verb up to the sector 2^64" EINVAL 'message refused: sector and count together are too large' \
			"$verb 1 18446744073709551615"
		message_refused "$verb with a third number" EINVAL 'message refused: the message has more words' "$verb 0 8 8"
	done
	message_refused "lookup of two sectors" EINVAL 'message refused: the message has more words' 'lookup 0 8'
	for wrong in 0 -1 x "$huge"; do
		message_refused "list of \"$wrong\" blocks" EINVAL 'message refused: max must be a number greater than 0' \
			"list 0 $wrong"
	done
	message_refused "list with a third number" EINVAL 'message refused: the message has more words' 'list 0 1 1'
	message_refused "set without a name" EINVAL 'message refused: name is missing' 'set'
	message_refused "set without a value" EINVAL 'message refused: value is missing' 'set auto'
	for wrong in unknown block_size main_id AUTO manual; do
		message_refused "set of \"$wrong\"" EINVAL 'message refused: name must be auto, ' "set $wrong 1"
	done
	wrong_settings auto 2 -1 yes "$huge"
	wrong_settings scan_interval -1 1h 4294967296 "$huge"
	wrong_settings scan_rate 0 -1 32M 4294967296
	wrong_settings read_retries -1 101 256 x
	message_refused "set with a second value" EINVAL 'message refused: the message has more words' 'set auto 1 1'
	message_refused "stats of something" EINVAL 'message refused: stats takes nothing or reset' 'stats x'
	message_refused "stats reset with a further word" EINVAL 'message refused: the message has more words' 'stats reset x'
	for verb in sync help; do
		message_refused "$verb with a further word" EINVAL 'message refused: the message has more words' "$verb x"
	done

	report_refusals
	equal "malformed messages change nothing" "$before" \
		"$(remap remap list) $(changes main spare) $(dmsetup status remap) $(dmsetup table remap)"
}

# wrong_settings NAME VALUE...: set refuses each VALUE.
wrong_settings() {
	local value
	for value in "${@:2}"; do
		message_refused "set $1 to \"$value\"" EINVAL "message refused: $1 must be" "set $1 $value"
	done
}

refused_messages() {
	local before writes verb suspended='failed because the device is suspended'
	before="$(remap remap list) $(remap_values remap mode used relocated)"
	writes=$(changes main spare)
	message_refused "add of more blocks than there are spare ones" ENOSPC \
		'add failed because there are not enough free spare blocks' "add 0 $size"
	report_refusals
	equal "status counts what was refused for want of room" 1 "$(remap_status remap refused)"
	equal "nothing was written for it" "$writes" "$(changes main spare)"

	dmsetup suspend remap
	# That may have written down how long the device was in service.
	writes=$(changes main spare)
	for verb in 'add 0' 'remove 16' 'set auto 0' sync; do
		message_refused "$verb while the device is suspended" EBUSY "${verb%% *} $suspended" "$verb"
	done
	report_refusals
	check "lookup answers while the device is suspended" remap remap lookup 16
	equal "nothing is written for any of these" "$writes" "$(changes main spare)"
	dmsetup resume remap
	equal "refused messages change nothing" "$before" \
		"$(remap remap list) $(remap_values remap mode used relocated)"
}

bringing_back() {
	local list before
	sectors write "$dev" 16 8 new
	said "remove says nothing" '' remove 20
	equal "remove brings back the block that a sector lies in" '32:ff 40:ff 16376:1f' "$(live_masks remap)"
	said "lookup says so" main lookup 16
	check "main has the data of the spare then" sectors holds /dev/main 16 8 new

	list=$(remap remap list)
	before="$(changes main spare) $(remap_values remap used removed)"
	remap remap remove 16
	remap remap remove 0 32
	remap remap remove 48 16328
	equal "remove of what is not relocated changes nothing" "$list" "$(remap remap list)"
	equal "and writes nothing" "$before" "$(changes main spare) $(remap_values remap used removed)"

	remap remap remove 0 "$size"
	said "remove of everything leaves nothing" '' list
	check "the device holds what it held before the blocks" sectors holds "$dev" 0 16 data
	check "the device holds what it held behind them" sectors holds "$dev" 24 $((size - 24)) data
}

settings() {
	set_and_kept scan_interval 77
	set_and_kept scan_rate 4294967295
	set_and_kept read_retries 0
	dmsetup remove remap
	remap_create remap /dev/mapper/odd /dev/spare 'scan_rate 9'
	matches "an option that the line gives holds over the one that was set" ' scan_rate 9( |$)' "$(dmsetup table remap)"
	activate_again
	matches "but only for that line" ' scan_rate 4294967295( |$)' "$(dmsetup table remap)"

	equal "the device relocates by itself unless it is told otherwise" rw "$(remap_status remap mode)"
	said "set auto says nothing" '' set auto 0
	equal "set auto 0 makes the device manual" manual "$(remap_status remap mode)"
	matches "and the table" ' manual( |$)' "$(dmsetup table remap)"
	activate_again
	equal "a manual device is so after the next activation" manual "$(remap_status remap mode)"
	remap remap set auto 1
	equal "set auto 1 ends that" rw "$(remap_status remap mode)"
	refused "also in the table" grep -w manual <(dmsetup table remap)
	activate_again
	equal "and after the next activation" rw "$(remap_status remap mode)"
}

# set_and_kept NAME VALUE: set changes an option, the table shows it, and the spare keeps it.
set_and_kept() {
	said "set $1 says nothing" '' set "$1" "$2"
	matches "the table shows $1 $2" " $1 $2( |\$)" "$(dmsetup table remap)"
	activate_again
	matches "a line without it makes a device with $1 $2" " $1 $2( |\$)" "$(dmsetup table remap)"
}

# activate_again: makes the device again, in the shortest form.
activate_again() {
	dmsetup remove remap
	remap_create remap /dev/mapper/odd /dev/spare
}

counting() {
	local help verb
	help=$(remap remap help)
	for verb in add remove lookup list set stats 'stats reset' sync help; do
		matches "help names $verb" $'(^|\n)'"$verb"'( |$)' "$help"
	done

	read_times 7
	matches "stats counts requests" $'(^|\n)reads=7(\n|$)' "$(remap remap stats)"
	refused "every line of stats is a key with a value" grep -vE '^[a-z0-9_]+=[^ ]+$' <(remap remap stats)
	said "stats reset says nothing" '' stats reset
	matches "then stats counts anew" $'(^|\n)reads=0(\n|$)' "$(remap remap stats)"
	read_times 3
	matches "from there on" $'(^|\n)reads=3(\n|$)' "$(remap remap stats)"
	equal "status counts since the activation" 10 "$(remap_status remap reads)"
	said "sync says nothing" '' sync
}

# read_times COUNT: reads so many sectors, each by itself.
read_times() {
	dd if="$dev" of=/dev/null bs=512 count="$1" iflag=direct status=none
}

long_lists() {
	local list pages page from=0 last
	remap_create remap /dev/main /dev/spare 'block_size 1'
	remap remap add 1000 12000
	list=$(remap remap list)
	equal "a list of 12,000 blocks is complete and in order" \
		"$(seq 1000 12999 | sed 's/$/ 1 0 1 message/')" "$(cut -d ' ' -f 1-3,5-6 <<<"$list")"
	equal "each of them has its own place" 12000 "$(cut -d ' ' -f 4 <<<"$list" | sort -u | wc -l)"
	pages=
	while page=$(remap remap list "$from" 5000) && [[ -n $page ]]; do
		pages+=$page$'\n'
		last=${page##*$'\n'}
		from=$((${last%% *} + 1))
	done
	equal "page by page it is the same list" "$list" "${pages%$'\n'}"
	equal "list begins at the sector" 12000 "$(remap remap list 12000 1 | cut -d ' ' -f 1)"
	equal "list has no more blocks than wanted" 1 "$(remap remap list 0 1 | wc -l)"
	equal "list ends with the last block" 2 "$(remap remap list 12998 100 | wc -l)"
	said "list behind the last block says nothing" '' list 13000
	dmsetup suspend remap
	said "a long list is the same while the device is suspended" "$list" list
	dmsetup resume remap
	remap remap remove 0 16384
	said "remove brings them all back" '' list
	equal "status counts them" 'used=0 relocated=12000 removed=12000' "$(remap_values remap used relocated removed)"
}

# Sectors are counted from the start of the mapped device, wherever the target begins.
behind_another_target() {
	local place
	null_disk first 1
	dmsetup create remap --table "0 1000 linear /dev/first 0
1000 8000 remap /dev/main 1 /dev/spare 2 block_size 8"
	sectors write "$dev" 0 9000 data
	dmsetup message remap 1000 add 1003
	matches "behind another target, add and list count from the start of the device" \
		'^1000 8 0 [0-9]+ ff message [0-9]+$' "$(dmsetup message remap 1000 list)"
	place=$(dmsetup message remap 1000 lookup 1000)
	matches "so does lookup" '^spare 0 [0-9]+ ff$' "$place"
	place=${place#spare 0 }
	check "the block is there" sectors holds /dev/spare "${place% *}" 8 data 1000
	check "and where it was on the device" sectors holds "$dev" 0 9000 data
	refused "a sector of the other target is refused" dmsetup message remap 1000 lookup 999
	refused "a sector behind the device is refused" dmsetup message remap 1000 lookup 9000
	null_bad main 100-100
	check "a bad sector of main is one of the device" sectors lost "$dev" 1100 1
	matches "so does status" ' last_error=1100 ' "$(dmsetup status remap)"
}

scenario
