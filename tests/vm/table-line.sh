#!/bin/bash
#
# A table line that is malformed or cannot be used is refused with a sentence that names
# the argument, and nothing is written then.  What is accepted comes out of "dmsetup
# table" as a line that makes the same device again.

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

main=/dev/ram0 spare=/dev/ram1 spare2=/dev/ram2
sectors=2048

uuid=01234567-89ab-cdef-0123-456789abcdef
# dmsetup takes "#" for the begin of a comment.
printable=$(printf '%b' "$(printf '\\x%x' {33,34} {36..91} {93..98})")

scenario() {
	ram_disks 19 1
	read -r main_number <"/sys/block/${main##*/}/dev"
	read -r spare_number <"/sys/block/${spare##*/}/dev"
	read -r spare2_number <"/sys/block/${spare2##*/}/dev"
	sectors write "$main" 0 "$sectors" data
	load_module

	malformed_lines
	unusable_devices
	loading_writes_nothing
	accepted_lines
	the_same_device_again
	foreign_spares
	other_sets
}

# malformed PROMISE REGEX ARGUMENTS: a line with these arguments is refused when loaded.
malformed() {
	table_refused "$1" EINVAL "$2" "0 $sectors remap $3"
}

malformed_lines() {
	local before wrong name devices="$main 1 $spare"
	before=$(contents "$main" "$spare")
	check "a line without arguments" is_empty_line_refused
	dmsetup create refused --notable

	malformed "a line without #spares" '#spares is missing' "$main"
	malformed "a missing main" 'main_dev must be a device' "- 1 $spare"
	for wrong in 0 16 -1 +1 0x1 1.0 one '\ ' 18446744073709551617 99999999999999999999; do
		malformed "#spares \"$wrong\"" '#spares must be a number from 1 to 15' "$main $wrong $spare"
	done
	malformed "fewer spares than #spares" 'spare_dev: there are fewer than #spares' "$main 2 $spare"
	malformed "sixteen spares" '#spares must be a number from 1 to 15' \
		"$main 16 $(printf '/dev/ram%d ' {1..16})"
	malformed "only missing spares" 'spare_dev must be a device for at least one spare' "$main 2 - -"
	malformed "more spares than #spares" '#feature_args must be a number, and #spares' "$devices $spare2"
	for wrong in -1 +1 0x1 manual 18446744073709551616; do
		malformed "#feature_args \"$wrong\"" '#feature_args must be a number' "$devices $wrong manual"
	done
	malformed "fewer feature arguments than #feature_args" '#feature_args is more than there are' "$devices 2 manual"
	malformed "no feature argument where one is announced" '#feature_args is more than there are' "$devices 1"
	malformed "more feature arguments than #feature_args" '#feature_args is less than there are' "$devices 1 manual manual"
	malformed "a feature argument where none is announced" '#feature_args is less than there are' "$devices 0 manual"
	malformed "a name whose value is not counted" '#feature_args ends before the value' "$devices 1 block_size 8"
	malformed "a name whose value is missing" '#feature_args is more than there are' "$devices 2 block_size"

	for wrong in unknown MANUAL manually block-size -; do
		malformed "the feature argument \"$wrong\"" 'unknown feature argument' "$devices 1 $wrong"
	done
	malformed "manual twice" 'manual is given twice' "$devices 2 manual manual"
	for wrong in 'block_size 8' 'scan_interval 0' 'scan_rate 1' 'read_retries 0' 'main_id x' "uuid $uuid"; do
		name=${wrong% *}
		malformed "$name twice" "$name is given twice" "$devices 4 $wrong $wrong"
		malformed "$name twice, with manual between" "$name is given twice" "$devices 5 $wrong manual $wrong"
	done

	wrong_values block_size 0 3 65 128 -8 +8 0x8 8.0 8s eight 18446744073709551624
	wrong_values scan_interval -1 +1 0x10 1h 4294967296 18446744073709551616
	wrong_values scan_rate 0 -1 0x10 32M 4294967296
	wrong_values read_retries -1 101 256 4294967296 three
	wrong_values main_id "${printable}x" $'bell\a' $'\x7f' äö 'a\ b' "$(printf 'x%.0s' {1..4000})"
	wrong_values uuid 00000000-0000-0000-0000-000000000000 "${uuid//-/}" "${uuid%?}" "${uuid}0" "{$uuid}" \
		"${uuid/0/g}" 0123456-789ab-cdef-0123-456789abcdef "$uuid-" - x

	report_refusals
	dmsetup remove refused
	equal "refused lines write nothing" "$before" "$(contents "$main" "$spare")"
}

# is_empty_line_refused: only dmsetup can ask for it.
is_empty_line_refused() {
	mark_log
	! dmsetup create refused --table "0 $sectors remap" && within 60 logged 'remap: main_dev is missing.*\(-EINVAL\)$'
}

# wrong_values NAME VALUE...: the argument NAME is refused with each VALUE.
wrong_values() {
	local value shown
	for value in "${@:2}"; do
		printf -v shown '%q' "${value:0:80}"
		malformed "$1 \"$shown\"" "$1 must be" "$main 1 $spare 2 $1 $value"
	done
}

unusable_devices() {
	local before long watched=("$main" "$spare" "$spare2" /dev/zoned /dev/coarse)
	# The partition is from sector 1024 to the end of the second spare.
	printf '%b' '\0\0\0\0\x83\0\0\0\0\x04\0\0\0\x04\0\0' | dd of="$spare2" bs=1 seek=446 conv=notrunc status=none
	printf '%b' '\x55\xaa' | dd of="$spare2" bs=1 seek=510 conv=notrunc status=none
	blockdev --rereadpt "$spare2"
	special_disk zoned size=4 zoned=1 zone_size=1
	special_disk coarse size=1 blocksize=4096
	flat tiny "$spare" 24
	flat fits "$spare" 48
	before=$(contents "${watched[@]}")
	long=$(printf '/x%.0s' {1..2000})
	dmsetup create refused --notable

	table_refused "a main that is not there" ENOENT 'main_dev cannot be opened' "0 8 remap /dev/nothing 1 $spare"
	table_refused "a spare that is not there" ENOENT 'spare_dev cannot be opened' "0 8 remap $main 1 /dev/nothing"
	table_refused "a main with a very long name" ENOENT 'main_dev cannot be opened' "0 8 remap $long 1 $spare"
	table_refused "a spare with a very long name" ENOENT 'spare_dev cannot be opened' "0 8 remap $main 1 $long"
	table_refused "a main that is no block device" ENOTBLK 'main_dev cannot be opened' "0 8 remap /dev/null 1 $spare"
	table_refused "a spare that is a folder" ENOTBLK 'spare_dev cannot be opened' "0 8 remap $main 1 /dev"
	malformed "a spare that is main" 'spare_dev is main_dev' "$main 1 $main"
	malformed "a second spare that is main" 'spare_dev is main_dev' "$main 2 $spare $main"
	malformed "a spare that is another spare" 'spare_dev is named twice' "$main 2 $spare $spare"
	table_refused "a spare that is a partition of main" EBUSY spare_dev "0 $sectors remap $spare2 1 ${spare2}p1"
	table_refused "a spare that has main as a partition" EBUSY spare_dev "0 1024 remap ${spare2}p1 1 $spare2"
	table_refused "a spare that is a partition of another spare" EBUSY spare_dev \
		"0 $sectors remap $main 2 $spare2 ${spare2}p1"
	malformed "a zoned main" 'main_dev is a zoned device' "/dev/zoned 1 $spare"
	malformed "a zoned spare" 'spare_dev is a zoned device' "$main 1 /dev/zoned"
	malformed "a spare without room for a block" 'spare_dev is too small' "$main 1 /dev/mapper/tiny"
	malformed "a second spare without room for a block" 'spare_dev is too small' "$main 2 $spare2 /dev/mapper/tiny"
	malformed "a spare without room for a large block" 'spare_dev is too small' \
		"$main 1 /dev/mapper/fits 2 block_size 64"
	malformed "a block_size smaller than a logical block of the spare" 'block_size is less' \
		"$main 1 /dev/coarse 2 block_size 4"
	malformed "a block_size smaller than a logical block of main" 'block_size is less' \
		"/dev/coarse 1 $spare 2 block_size 4"
	table_refused "a main smaller than the table" EINVAL 'main_dev is smaller' "0 $((sectors + 1)) remap $main 1 $spare"
	report_refusals
	blockdev --setro "$spare"
	malformed "a read-only spare" 'spare_dev is read-only' "$main 1 $spare"
	report_refusals
	blockdev --setrw "$spare"
	blockdev --setro "$main"
	malformed "a read-only main" 'main_dev is read-only' "$main 1 $spare"
	report_refusals
	blockdev --setrw "$main"

	dmsetup remove refused
	equal "lines with unusable devices write nothing" "$before" "$(contents "${watched[@]}")"
	check "a spare with room for just one block is accepted" makes "0 $sectors remap $main 1 /dev/mapper/fits"
	dmsetup remove tiny
	dmsetup remove fits
	wipe "$spare"
	dd if=/dev/zero of="$spare2" count=1 status=none
	blockdev --rereadpt "$spare2"
}

loading_writes_nothing() {
	local before
	before=$(contents "$main" "$spare")
	dmsetup create loaded --notable
	check "a good line can be loaded" dmsetup load loaded --table "$(line)"
	dmsetup clear loaded
	dmsetup remove loaded
	equal "loading and clearing a line leaves a new spare as it was" "$before" "$(contents "$main" "$spare")"

	dmsetup create active --table "$(line)"
	before=$(contents "$main" "$spare")
	dmsetup load active --table "$(line 2 scan_rate 5)"
	dmsetup clear active
	equal "loading and clearing a line leaves a set in use as it was" "$before" "$(contents "$main" "$spare")"
	dmsetup remove active
	wipe "$spare"
}

# line [FEATURES]: prints a line for main and the first spare.
line() {
	printf '0 %s remap %s 1 %s%s' "$sectors" "$main" "$spare" "${*:+ $*}"
}

# wipe DEVICE...: zeroes devices.
wipe() {
	local device
	for device in "$@"; do
		blkdiscard -z "$device"
	done
}

# accepted PROMISE FEATURES [KEY=VALUE]: a new set with these feature arguments can be used,
# "dmsetup table" shows them, and status the value.
accepted() {
	check "$1" makes_and_shows "$2" "${3-mode=}"
	wipe "$spare"
}

makes_and_shows() {
	local shown status
	dmsetup create accepted --table "$(line "$1")" || return 1
	shown=$(dmsetup table accepted)
	status=$(dmsetup status accepted)
	dmsetup remove accepted
	echo "$shown, $status"
	[[ $shown == "0 $sectors remap $main_number 1 $spare_number${1:+ $1}" && $status == *" $2"* ]]
}

accepted_lines() {
	local size name
	accepted "the shortest form, with blocks of 4 KiB" '' 'block=8 '
	for size in 1 2 4 8 16 32 64; do
		accepted "block_size $size" "2 block_size $size" "block=$size "
	done
	accepted "manual" '1 manual' 'mode=manual '
	for name in 'scan_interval 0' 'scan_interval 4294967295' 'scan_rate 1' 'scan_rate 4294967295' \
		'read_retries 0' 'read_retries 100' 'main_id x' "main_id $printable" "uuid $uuid"; do
		accepted "$name" "2 $name"
	done
	check "a UUID in capitals" makes "$(line "2 uuid ${uuid^^}")"
	check "numbers with leading zeroes" makes "$(line "2 uuid $uuid" | sed 's/ 1 / 01 /; s/ 2 / 0002 /')"
	check "many blanks between the words" makes "$(line "2 uuid $uuid" | sed 's/ /   /g')"
	check "a table shorter than main" makes "0 100 remap $main 1 $spare"
	wipe "$spare"
	check "fifteen spares" makes "0 $sectors remap $main 15 $(printf '/dev/ram%d ' {1..15})"
	wipe /dev/ram{1..15}
}

makes() {
	dmsetup create accepted --table "$1" && dmsetup remove accepted
}

the_same_device_again() {
	local shown list status features
	features="13 manual block_size 16 scan_interval 60 scan_rate 1000 read_retries 7 main_id disk-1 uuid $uuid"
	dmsetup create first --table "0 $sectors remap $main 2 $spare $spare2 $features"
	shown=$(dmsetup table first)
	equal "the line shows every feature argument" \
		"0 $sectors remap $main_number 2 $spare_number $spare2_number $features" "$shown"
	remap first add 100 200
	list=$(remap first list)
	status=$(remap_values first mode block spares used total)
	dmsetup remove first
	dmsetup create second --table "$shown"
	equal "the line, fed back, is shown again" "$shown" "$(dmsetup table second)"
	equal "it makes a device with the same relocated blocks" "$list" "$(remap second list)"
	equal "and the same status" "$status" "$(remap_values second mode block spares used total)"
	check "and the same data" sectors holds /dev/mapper/second 0 "$sectors" data
	dmsetup remove second

	dmsetup create third --table "0 $sectors remap $main 2 $spare $spare2"
	equal "the shortest form makes a device with the same relocated blocks, too" "$list" "$(remap third list)"
	equal "options that were given in another line are not kept" \
		"0 $sectors remap $main_number 2 $spare_number $spare2_number" "$(dmsetup table third)"
	dmsetup remove third
	wipe "$spare" "$spare2"

	# Device mapper takes a backslash for a quotation mark when it splits a line.
	check "a main_id with a backslash is refused, or comes out so that it can be fed back" \
		comes_back "$(line '2 main_id a\\b')"
	wipe "$spare"
}

# comes_back LINE: the line is refused, or what "dmsetup table" makes of it is accepted again.
comes_back() {
	local shown
	dmsetup create quoted --table "$1" || return 0
	shown=$(dmsetup table quoted)
	dmsetup remove quoted
	makes "$shown"
}

# not_used PROMISE REGEX ARGUMENTS: the spares are refused, and nothing is written.
not_used() {
	local before
	before=$(contents "${watched[@]}")
	check "$1" is_not_activated "$2" "0 ${length-$sectors} remap $3"
	equal "$1: nothing is written" "$before" "$(contents "${watched[@]}")"
}

foreign_spares() {
	local sector watched=("$main" "$spare")
	for sector in 0 7 $((sectors - 8)) $((sectors - 1)); do
		sectors write "$spare" "$sector" 1 foreign
		not_used "somebody's data in sector $sector of the spare" \
			'spare 0 is refused: .* not metadata of dm-remap' "$main 1 $spare"
		wipe "$spare"
	done
	sectors write "$spare2" 0 1 foreign
	watched+=("$spare2")
	not_used "somebody's data on the second spare" 'spare 1 is refused: .* not metadata of dm-remap' \
		"$main 2 $spare $spare2"
	wipe "$spare2"
	sectors write "$spare" 8 $((sectors - 16)) old
	check "old data between the first and last page of the spare does not matter" makes "$(line)"
	wipe "$spare"
}

other_sets() {
	local other=01234567-89ab-cdef-0123-000000000000
	local watched=("$main" /dev/ram{1..7})
	dmsetup create one --table "0 $sectors remap $main 2 $spare $spare2 4 main_id disk-1 uuid $uuid"
	remap one add 0 80
	dmsetup remove one
	dmsetup create two --table "0 $sectors remap /dev/ram3 2 /dev/ram4 /dev/ram5 2 uuid $other"
	dmsetup remove two

	not_used "a spare of another set" "spare [01] belongs to the set .* but the other" "$main 2 $spare /dev/ram5"
	not_used "another uuid" "uuid is $other but spare 0 belongs to $uuid" "$main 2 $spare $spare2 2 uuid $other"
	not_used "another main_id" 'main_id is not disk-1' "$main 2 $spare $spare2 2 main_id disk-2"
	not_used "another block_size" 'block_size is 16 but .* 8' "$main 2 $spare $spare2 2 block_size 16"
	not_used "spares in another order" 'spare 0 of the table line is spare 1' "$main 2 $spare2 $spare"
	not_used "a spare too few" 'the table line has 1 spares but the set has 2' "$main 1 $spare"
	not_used "two spares too many" 'the table line has 4 spares but the set has 2' \
		"$main 4 $spare $spare2 /dev/ram6 /dev/ram7"
	not_used "a new spare in the place of a member" 'spare 1 is all zero' "$main 2 $spare /dev/ram6"
	not_used "a missing spare that nobody knows" 'spare 1 is missing' "$main 2 /dev/ram6 -"

	dmsetup create one --table "0 $sectors remap $main 2 $spare $spare2"
	not_used "a spare that another device uses" "spare_dev $spare_number is in use by another remap device" "/dev/ram3 1 $spare"
	not_used "a main that another device uses" "main_dev $main_number is in use by another remap device" "$main 1 /dev/ram6"
	dmsetup remove one

	flat smaller "$main" $((sectors - 8))
	watched=(/dev/mapper/smaller "$spare" "$spare2")
	length=$((sectors - 8)) not_used "a main of another size" "main_dev has $((sectors - 8)) sectors but .* $sectors" \
		"/dev/mapper/smaller 2 $spare $spare2"
	flat shorter "$spare" $((sectors - 8))
	watched=("$main" "$spare" "$spare2")
	not_used "a spare of another size" 'spare 0 ' "$main 2 /dev/mapper/shorter $spare2"
	dmsetup remove smaller
	dmsetup remove shorter
	check "the right line is accepted after all that" makes \
		"0 $sectors remap $main 2 $spare $spare2 6 main_id disk-1 uuid $uuid block_size 8"
}

scenario
