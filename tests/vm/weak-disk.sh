#!/bin/bash
#
# A disk whose sectors grow weak, so that they can be read at the third attempt only, and go bad
# later.  What a pass has found in time is not lost; of everything else exactly the bad
# sectors are errors.  And a pass reads what lives somewhere, once, and nothing else.
#
# The second argument is the seed of an earlier run, which had the same sectors.
#
# kernel: stock

# shellcheck source=lib-weak.sh
. /tests/lib-weak.sh

dev=/dev/mapper/remap
size=16384
middle=8100
effort=${1:-1} seed=${2:-$RANDOM}

main() {
	explain "seed $seed"
	weak_disk $((size / 2048))
	null_disk spare 4
	remap_create remap /dev/nbd0 /dev/spare 'block_size 8 scan_interval 0'
	sectors write "$dev" 0 "$size" old
	reads_what_lives
	for ((turn = 1; turn <= effort; turn++)); do
		in_time "$turn"
		begin_anew
		half_in_time "$turn"
		begin_anew
	done
	slow_sectors
	dmsetup remove remap
}

begin_anew() {
	dmsetup remove remap
	weak good 0 "$size"
	blkdiscard -z /dev/spare
	remap_create remap /dev/nbd0 /dev/spare 'block_size 8 scan_interval 0 scan_rate 1000000'
	sectors write "$dev" 0 "$size" old
}

# choose TURN COUNT: sets chosen to so many sectors in order, the first and the last among them.
choose() {
	mapfile -t chosen < <({
		shuf -i 1-$((size - 2)) -n $(($2 - 2)) --random-source=<(yes "$seed $1")
		echo 0
		echo $((size - 1))
	} | sort -n)
}

# fate weak|bad SECTOR...: what becomes of the sectors.
fate() {
	local sector
	for sector in "${@:2}"; do
		weak "$1" "$sector" 1
	done
}

# whole_pass: begins a pass, and succeeds when it has ended.
whole_pass() {
	local before
	before=$(remap_status remap scan_passes)
	remap remap scan start
	within 120 passes_are $((before + 1))
}

passes_are() {
	[[ $(remap_status remap scan_passes) == "$1" ]]
}

# old_but [SECTOR...]: every sector can be read and holds what was written, and these, which are
# in order, are errors.
old_but() {
	local next=0 sector
	for sector in "$@" "$size"; do
		[[ $sector -eq $next ]] || sectors holds "$dev" "$next" $((sector - next)) old || return
		[[ $sector -eq $size ]] || sectors lost "$dev" "$sector" 1 || return
		next=$((sector + 1))
	done
}

# blocks_of SECTOR...: prints the first sectors of the blocks that hold them.
blocks_of() {
	printf '%s\n' "$@" | awk '{ print $1 - $1 % 8 }' | uniq
}

reads_what_lives() {
	local before
	weak forget
	check "a pass over a device without relocations ends" whole_pass
	equal "it has read each sector of main once" '1 1' "$(weak reads 0 "$size")"
	remap remap add 4000 240
	weak forget
	before=$(statistic spare 3)
	check "so does one over a device with some" whole_pass
	equal "what lives on the spare is not read on main" '0 0' "$(weak reads 4000 240)"
	equal "what lives on main is, before that" '1 1' "$(weak reads 0 4000)"
	equal "and behind it" '1 1' "$(weak reads 4240 $((size - 4240)))"
	equal "what lives on the spare is read there" 240 $(($(statistic spare 3) - before))
	weak bad 6000 2
	check "and one that finds unreadable sectors" whole_pass
	weak forget
	check "and the next one" whole_pass
	equal "which leaves out what is known to be unreadable" '0 0' "$(weak reads 6000 8)"
	equal "none of them has any more to say" 'unreadable=2 read_errors=0 scan_errors=2' \
		"$(remap_values remap unreadable read_errors scan_errors)"
}

in_time() {
	local blocks
	begin_anew
	choose "$1" 80
	fate weak "${chosen[@]}"
	mapfile -t blocks < <(blocks_of "${chosen[@]}")
	check "a pass over a disk with weak sectors ends" whole_pass
	equal "it has relocated every block that has one, and no other, with all sectors" \
		"${blocks[*]/%/:ff}" "$(live_masks remap)"
	equal "because it has found them" "${blocks[*]/%/:scan}" "$(causes remap)"
	equal "it counts the blocks as weak" \
		"used=${#blocks[@]} unreadable=0 relocated_auto=${#blocks[@]} scan_errors=${#blocks[@]}" \
		"$(remap_values remap used unreadable relocated_auto scan_errors)"
	fate bad "${chosen[@]}"
	check "when the sectors go bad nothing is lost" old_but
	equal "and no request has met an error" read_errors=0 "$(remap_values remap read_errors)"
}

half_in_time() {
	local position=0 saved=() lost=() sector blocks
	choose "$1 half" 80
	fate weak "${chosen[@]}"
	weak hold "$middle" 1
	remap remap scan start
	check "a pass comes to the middle of a disk with weak sectors" within 120 disk_is_held
	check "it is paused there" remap remap scan pause
	position=$(remap_status remap scan_pos)
	equal "before the step that it is at" $((middle - middle % 256)) "$position"
	fate bad "${chosen[@]}"
	for sector in "${chosen[@]}"; do
		if [[ $sector -lt $position ]]; then
			saved+=("$sector")
		else
			lost+=("$sector")
		fi
	done
	mapfile -t blocks < <(blocks_of "${saved[@]}")
	equal "what lies before its position is saved, when all go bad" "${blocks[*]/%/:ff}" "$(live_masks remap)"
	weak release
	remap remap scan resume
	check "the pass goes on over sectors that are bad, to its end" within 120 passes_are 1
	check "exactly those that it found too late are errors" old_but "${lost[@]}"
	equal "as it has counted" \
		"mode=rw unreadable=${#lost[@]} scan_errors=$((${#blocks[@]} + ${#lost[@]}))" \
		"$(remap_values remap mode unreadable scan_errors)"
	check "status agrees with list" agree remap
	for sector in "${lost[@]}"; do
		sectors write "$dev" "$sector" 1 old || break
	done
	check "when they are written, nothing is an error any more" old_but
	equal "on a disk that is as bad as before" unreadable=0 "$(remap_values remap unreadable)"
}

disk_is_held() {
	[[ $(weak waits) == 1 ]]
}

# A step of 128 KiB that takes far longer than is usual: longer than all others together.  On a
# busy machine others may be slow, too.
slow_sectors() {
	mark_log
	SECONDS=0
	weak hold "$middle" 1
	remap remap scan start
	within 120 disk_is_held
	sleep $((SECONDS + 2))
	weak release
	check "a pass over a disk that is slow in one place ends" within 120 passes_are 1
	expect_log "it has told which step was slow" "sector $((middle - middle % 256)): main is slow here: [0-9]{4,} ms"
	check "and counted it" test "$(remap remap scan status | sed -n 's/^scan_slow=//p')" -ge 1
	equal "and relocated nothing" used=0 "$(remap_values remap used)"
}

main
