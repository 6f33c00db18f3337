#!/bin/bash
#
# Swap on a device whose main fails while memory is short: what waits to be written to a bad
# block is what has to be written before there is memory again.
#
# kernel: stock
# vm: --mem 256
# disk: 384M
# disk: 64M

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh
# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap

main() {
	local memory swapped turn
	# Other drivers take what they need in a hurry from what is kept free, and complain when it is gone.
	echo 16384 >/proc/sys/vm/min_free_kbytes
	memory=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
	failing_disk main /dev/vda
	remap_create remap /dev/mapper/main /dev/vdb
	mkswap "$dev" >/dev/null
	# A place of 32 KiB in each MiB takes no data, from one of its sectors on.
	mapfile -t bad < <(seq 1001 2048 780000 | sed 's/.*/writes:&:64/')
	failing main /dev/vda "${bad[@]}"
	swapon "$dev"
	for ((turn = 1; turn <= effort; turn++)); do
		check "a process with more data than memory has all of it, time $turn, on a swap device with bad places" \
			/tests/swapped.py $((memory + 40)) 1
	done
	swapped=$(awk '/^pswpout/ { print $2 }' /proc/vmstat)
	check "much was swapped out" test "$swapped" -gt 25600
	check "blocks were relocated meanwhile" test "$(remap_values remap relocated_auto | cut -d = -f 2)" -gt 50
	equal "and nothing else went wrong" 'mode=rw unreadable=0 read_errors=0 refused=0 meta_errors=0' \
		"$(remap_values remap mode unreadable read_errors refused meta_errors)"
	explain "$(dmsetup status remap)" "$swapped pages were swapped out"
	check "swapping ends" swapoff "$dev"
	dmsetup remove remap
}

main
