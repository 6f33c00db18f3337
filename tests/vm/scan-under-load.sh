#!/bin/bash
#
# Background passes beside heavy writes and reads that are verified, while sectors go bad for
# writing where those are, and were bad for reading where only the pass comes by.

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh
# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap
bad=(2048 2500-2503 3000-3030 3600 4095)
unreadable=38
state=/root/bad
seed=${2:-$RANDOM}

passes() {
	[[ $(remap_status remap scan_passes) -eq $1 ]]
}

main() {
	local range pass
	explain "seed $seed"
	busy_disk disk 2
	busy_disk spare 8
	failing_disk main /dev/disk
	remap_create remap /dev/mapper/main /dev/spare 'block_size 8 scan_interval 0'
	sectors write "$dev" 2048 2048 old
	for range in "${bad[@]}"; do
		echo "all:${range%-*}:$((${range#*-} - ${range%-*} + 1))"
	done >"$state"
	mapfile -t range <"$state"
	failing main /dev/disk "${range[@]}"

	for ((pass = 1; pass <= effort; pass++)); do
		begin_churn remap /dev/disk /dev/spare --count 2048 --writers 4 --movers 0 --span 8 --bad-main --seed "$seed$pass"
		remap remap scan start
		/tests/failing.py decay main /dev/disk writes 5 5 "$seed$pass" "$state"
		check "a pass comes to its end under load, while sectors go bad" within 300 passes "$pass"
		end_churn "each read and the last look find what was written"
	done
	equal "what the passes found is unreadable, and nothing else" "mode=rw unreadable=$unreadable refused=0" \
		"$(remap_values remap mode unreadable refused)"
	check "what goes bad for writing was relocated by itself" test "$(causes remap | grep -o :write | wc -l)" -gt 0
	check "what only the pass has read, by it" test "$(causes remap | grep -o :scan | wc -l)" -ge 8
	for range in "${bad[@]}"; do
		check "the bad sectors $range are errors" sectors lost "$dev" "${range%-*}" $((${range#*-} - ${range%-*} + 1))
	done
	check "what is between them is as it was" sectors holds "$dev" 2049 451 old
	check "all of it" sectors holds "$dev" 3031 569 old
	check "status agrees with list" agree remap
	dmsetup remove remap
	dmsetup remove main
}

main
