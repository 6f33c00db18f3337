#!/bin/bash
#
# Several spares: blocks on all of them, one more added while blocks are relocated, and
# one missing.  Then only its blocks fail.
#
# races: possible

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

dev=/dev/mapper/remap

main() {
	null_disk main 8
	null_disk a 1
	null_disk b 1
	null_disk c 1
	two_spares
	a_third_spare
	wrong_spares
	a_missing_spare
	it_comes_back
	all_full
}

# table SPARE...: prints a table with these spares.
table() {
	echo "0 16384 remap /dev/main $# $* 1 manual"
}

# on_spare INDEX: prints the first sectors of the blocks on a spare.
on_spare() {
	remap remap list | awk -v spare="$1" '$3 == spare { print $1 }'
}

# blocks_hold FIRST END TEXT: every relocated block among these sectors holds TEXT, on the
# spare where list says.
blocks_hold() {
	local sector sectors spare place rest disks=(/dev/a /dev/b /dev/c)
	while read -r sector sectors spare place rest; do
		[[ $sector -ge $1 && $sector -lt $2 ]] || continue
		sectors holds "${disks[spare]}" "$place" "$sectors" "$3" "$sector" || return 1
	done < <(remap remap list)
}

two_spares() {
	load_module
	dmsetup create remap --table "$(table /dev/a /dev/b)"
	sectors write "$dev" 0 2048 one
	check "blocks are relocated to one spare" remap remap add 800 128
	check "and to the other one" remap remap add 928 128
	# With a sector that cannot be saved.
	null_bad main 2001-2001
	check "and one more to one of them" remap remap add 2000
	equal "both spares are online" 'spares=2/2 used=33 unreadable=1' "$(remap_values remap spares used unreadable)"
	check "the first spare has some of them" test -n "$(on_spare 0)"
	check "the second spare has some of them" test -n "$(on_spare 1)"
	check "reads find every sector" sectors holds "$dev" 0 2000 one
	check "every block is on the spare that list tells" blocks_hold 800 1056 one
	sectors write "$dev" 700 500 two
	check "writes are read back" sectors holds "$dev" 700 500 two
	check "every block was written where list tells" blocks_hold 800 1056 two
	check "main holds nothing new beneath them" sectors holds /dev/main 800 256 one
}

a_third_spare() {
	local list total before
	list=$(remap remap list)
	total=$(remap_status remap total)
	dmsetup load remap --table "$(table /dev/a /dev/b /dev/c)"
	check "a reload adds a spare while blocks are relocated" dmsetup resume remap
	equal "it is online" spares=3/3 "$(remap_values remap spares)"
	check "there are more spare blocks" test "$(remap_status remap total)" -gt "$total"
	equal "every relocation is where it was" "$list" "$(remap remap list)"
	check "all data is there" sectors holds "$dev" 700 500 two
	equal "the table has the three of them" 3 "$(dmsetup table remap | cut -d ' ' -f 5)"

	dmsetup remove remap
	before=$(changes main a b c)
	dmsetup create remap --table "$(table /dev/a /dev/b /dev/c)"
	equal "nothing was left to be written at the next activation" "$before" "$(changes main a b c)"

	check "blocks can be relocated to it" remap remap add 1056 144
	check "some of them are on it" test -n "$(on_spare 2)"
	check "the data of all blocks is where list tells" blocks_hold 800 1200 two
	list=$(remap remap list)
	dmsetup remove remap
	dmsetup create remap --table "$(table /dev/a /dev/b /dev/c)"
	equal "the next activation finds the blocks on all three" "$list" "$(remap remap list)"
	check "and their data" sectors holds "$dev" 700 500 two
	check "and what is unreadable" sectors lost "$dev" 2001 1
}

# refused_table PROMISE SPARE...: no device comes up with these spares.
refused_table() {
	refused "$1" dmsetup create wrong --table "$(table "${@:2}")"
	dmsetup remove wrong 2>/dev/null || true
}

wrong_spares() {
	dmsetup remove remap
	refused_table "spares in another order are refused" /dev/b /dev/a /dev/c
	refused_table "fewer spares than the set has are refused" /dev/a /dev/b
	refused_table "a set without any of its spares is refused" - - -
	refused_table "a missing spare that the others do not know is refused" /dev/a /dev/b /dev/c -
}

# The spare that is missing is the one with the block that has an unreadable sector,
# which main can read again.
a_missing_spare() {
	local spares=(/dev/a /dev/b /dev/c) index sector
	dmsetup create remap --table "$(table "${spares[@]}")"
	list=$(remap remap list)
	index=$(remap remap lookup 2000 | cut -d ' ' -f 2)
	mapfile -t missing < <(on_spare "$index" | grep -vx 2000)
	mapfile -t there < <(awk -v spare="$index" '$3 != spare { print $1 }' <<<"$list")
	dmsetup remove remap
	null_good main 2001-2001

	spares[index]=-
	dmsetup create remap --table "$(table "${spares[@]}")"
	equal "the device comes up without the spare" 'mode=ro spares=2/3' "$(remap_values remap mode spares)"
	matches "its health says so" '^health=(replace|critical)$' "$(remap_values remap health)"
	equal "as many blocks are relocated" "$(wc -l <<<"$list")" "$(remap remap list | wc -l)"
	equal "table shows that it is missing" "$index" "$(dmsetup table remap | cut -d ' ' -f 6-8 |
		tr ' ' '\n' | grep -nx -e - | cut -d : -f 1 | awk '{ print $1 - 1 }')"

	equal "blocks on the other spares have their data" '' \
		"$(for sector in "${there[@]}"; do sectors holds "$dev" "$sector" 8 two || true; done)"
	check "healthy sectors have their data" sectors holds "$dev" 0 700 one
	equal "blocks on the missing spare are an error" '' \
		"$(for sector in "${missing[@]}"; do sectors lost "$dev" "$sector" 8 || true; done)"
	check "so are the sectors of a block that were saved" sectors lost "$dev" 2002 6
	check "but not the one that lives on main still" sectors holds "$dev" 2001 1 one

	check "a relocated block can be written on the other spares" sectors write "$dev" "${there[0]}" 8 three
	check "a healthy block can be written" sectors write "$dev" 0 100 three
	refused "a block on the missing spare cannot be written" sectors write "$dev" "${missing[0]}" 8 three
	refused "nor a sector of it that lives on main still" sectors write "$dev" 2001 1 three
	refused "no block is relocated while metadata cannot be written" remap remap add 4096
	refused "no block is brought back either" remap remap remove "${there[0]}"
	dmsetup remove remap
}

it_comes_back() {
	local sector
	null_bad main 2001-2001
	dmsetup create remap --table "$(table /dev/a /dev/b /dev/c)"
	equal "the device comes up whole when the spare is back" 'mode=manual spares=3/3' \
		"$(remap_values remap mode spares)"
	equal "every relocation is there" "$list" "$(remap remap list)"
	equal "the blocks on it have their data" '' \
		"$(for sector in "${missing[@]}"; do sectors holds "$dev" "$sector" 8 two || true; done)"
	check "what was unreadable is so again" sectors lost "$dev" 2001 1
	check "and its neighbours are not" sectors holds "$dev" 2002 6 one
	check "what was written without it to a healthy block is there" sectors holds "$dev" 0 100 three
	check "and what was written to another spare" sectors holds "$dev" "${there[0]}" 8 three
	null_good main 2001-2001
}

all_full() {
	local total
	check "all blocks can be brought back from three spares" remap remap remove 0 16384
	sectors write "$dev" 0 16384 full
	total=$(remap_status remap total)
	mark_log
	refused "more blocks than there is room for are refused" remap remap add 0 $((total * 8 + 1))
	expect_log "the log says why" 'not enough free spare blocks'
	equal "and nothing has changed" "used=0 refused=1" "$(remap_values remap used refused)"
	check "as many as there is room for are relocated" remap remap add 0 $((total * 8))
	equal "all spare blocks are used" "used=$total total=$total" "$(remap_values remap used total)"
	refused "one more is refused" remap remap add $((total * 8))
	check "reads find every sector on full spares" sectors holds "$dev" 0 16384 full
	check "every block is where list tells" blocks_hold 0 16384 full
	dmsetup remove remap
}

main
