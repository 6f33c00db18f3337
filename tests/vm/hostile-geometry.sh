#!/bin/bash
#
# Disks as large as the kernel takes them, whose sectors have numbers near the powers of two:
# what the format has no room for is refused with a sentence, everything else works from the
# first sector to the last, and the spares are as dmremap wants them.

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

dev=/dev/mapper/remap
files=/dev/shm

# The most blocks of main, and slots of a spare; the most sectors that device mapper and loop
# devices have.
blocks=$((1 << 32)) slots=$(((1 << 27) - 1)) most=$(((1 << 54) - 1))

scenario() {
	local size by
	modprobe loop max_loop=0
	load_module
	for size in 1 8 64; do
		for by in -1 0; do
			works "$size" $((blocks * size + by)) 65536
		done
		too_large "$size" $((blocks * size + 1)) 65536
		# All of the slots that there can be, and some more than that.
		works "$size" $((1 << 32)) $((slots * size + 30000000))
	done
	too_large 64 "$most" 65536
	works 64 "$((1 << 33))" "$most" "$most"
	works 1 $(((1 << 32) - 1)) 100 "$most" 100
	works 8 16 "$most"
	more_than_a_number_holds
}

# disk NAME SECTORS: makes a disk of so many sectors, all zero, and sets disk to its path.
disk() {
	truncate -s $(($2 * 512)) "$files/$1"
	disk=$(losetup --find --show "$files/$1")
}

# lend BLOCK_SIZE MAIN SPARE...: makes disks of these sizes, and sets table_line to a table line of them.
lend() {
	local size
	disk main "$2"
	main=$disk spares=()
	for size in "${@:3}"; do
		disk "spare${#spares[@]}" "$size"
		spares+=("$disk")
	done
	table_line="0 $2 remap $main ${#spares[@]} ${spares[*]} 2 block_size $1"
}

give_back() {
	losetup --detach "$main" "${spares[@]}"
	rm "$files"/{main,spare*}
}

# too_large BLOCK_SIZE MAIN SPARE...
too_large() {
	lend "$@"
	check "main with $2 sectors is too large for blocks of $1" is_not_activated 'main_dev ' "$table_line"
	give_back
}

# works BLOCK_SIZE MAIN SPARE...: the device works at all the places that are special.
works() {
	local what="blocks of $1 sectors, main with $2, spares with ${*:3}" places place list table
	lend "$@"
	check "$what: the device is made" dmsetup create remap --table "$table_line"
	[[ -e $dev ]] || return 0
	table=$(dmsetup table remap)
	check "$what: there are slots, and no more than there can be" \
		test "$(remap_status remap total)" -gt 0 -a "$(remap_status remap total)" -le $((slots * ${#spares[@]}))
	mapfile -t places < <(places_below "$2" "$1")
	for place in "${places[@]}"; do
		sectors write "$dev" "$place" 1 before
		remap remap add "$place"
	done
	sectors write "$dev" "${places[0]}" 1 after
	equal "$what: these are relocated" "${places[*]}" \
		"$(remap remap list | cut -d ' ' -f 1 | named "$1" "${places[@]}")"
	refused "$what: behind the last sector there is nothing" remap remap add "$2"
	refused "$what: and beyond it neither" remap remap add 0 $(($2 + 1))
	refused "$what: nor around the end of numbers" remap remap remove 18446744073709551615 2
	check "$what: all of it is brought back at once" remap remap remove 0 "$2"
	remap remap add "${places[-1]}"
	remap remap add "${places[0]}"
	list=$(remap remap list)
	dmsetup remove remap
	check "$what: dmremap finds nothing to mend" dmremap check --main "$2" "${spares[@]}"
	dmsetup create remap --table "$table"
	equal "$what: the next activation finds what there was" "$list" "$(remap remap list)"
	check "$what: also the data" has_data "${places[@]}"
	dmsetup remove remap
	give_back
}

# places_below SECTORS BLOCK_SIZE: prints sectors of different blocks, in order.
places_below() {
	local bits by place
	{
		echo 0
		for bits in 5 27 31 32 33 38; do
			for by in -1 0; do
				place=$(((1 << bits) + by))
				[[ $place -ge $1 ]] || echo "$place"
			done
		done
		echo $(($1 - 1))
	} | sort -nu | awk -v size="$2" 'int($1 / size) != last { print } { last = int($1 / size) } BEGIN { last = -1 }'
}

# named BLOCK_SIZE PLACE...: reads the first sectors of blocks, and prints the places that are in them.
named() {
	local first place found=()
	while read -r first; do
		for place in "${@:2}"; do
			[[ $((place / $1 * $1)) -ne $first ]] || found+=("$place")
		done
	done
	printf '%s\n' "${found[*]}"
}

# has_data PLACE...: the sectors are as works has left them.
has_data() {
	local place
	sectors holds "$dev" "$1" 1 after
	for place in "${@:2}"; do
		sectors holds "$dev" "$place" 1 before
	done
}

# Table lines that say of a small disk that it is large.
more_than_a_number_holds() {
	local length
	lend 8 4096 4096
	dmsetup create refused --notable
	for length in 4097 4294967295 4294967296 $((most - 1)) "$most"; do
		table_refused "a length of $length sectors" EINVAL 'main_dev is smaller' "0 $length remap $main 1 ${spares[0]}"
	done
	report_refusals
	dmsetup remove refused
	give_back
}

scenario
