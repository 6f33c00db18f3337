#!/bin/bash
#
# What relocations cost in writes and flushes: one by message on idle devices at most 4
# writes and 3 flushes in all, however large the table is, many together less than that
# for each, what fails together shares all but its data, and an activation that has nothing to
# repair only makes stable what it has read.

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

disks=(main spare more)
size=32768
one="0 $size remap /dev/main 1 /dev/spare"
two="0 $size remap /dev/main 2 /dev/spare /dev/more"

scenario() {
	load_module
	make_disks 0
	dmsetup create remap --table "$one 3 block_size 1 manual"
	costs "with one spare" "$one" 2
	drop_disks

	# A write with FUA costs a disk without it another flush.
	make_disks 0
	dmsetup create remap --table "$two 3 block_size 1 manual"
	cost remap remap add 8
	at_most 4 4 "one relocation, with two spares without FUA,"
	drop_disks

	make_disks 1
	dmsetup create remap --table "$two 3 block_size 1 manual"
	costs "with two spares" "$two" 3
	dmsetup remove remap
	cost dmsetup create remap --table "0 $size remap /dev/main 2 /dev/spare -"
	equal "an activation with a spare missing writes nothing, and flushes the other one" '0 1' "$writes $flushes"
	drop_disks

	make_disks 0
	dmsetup create remap --table "$one 2 block_size 8"
	failing_together
}

# failing_together: blocks that fail together.  A round that has no more time leaves some of
# them to the next one, which writes the others once more.
failing_together() {
	local blocks=100 first=8000 reads rounds
	null_bad main "$first-$((first + blocks * 8 - 1))"
	disks=(spare)
	reads=$(reads_of main)
	cost dd if=/dev/zero of=/dev/mapper/remap bs=$((blocks * 4096)) count=1 seek=$((first * 512)) \
		oflag=direct,seek_bytes status=none
	reads=$(($(reads_of main) - reads)) rounds=$((flushes / 3))
	equal "a write over $blocks bad blocks relocates them" used=$blocks "$(remap_values remap used)"
	check "it brings all of their data, so main is read only to see that it answers" test "$reads" -le "$rounds"
	check "they share their flushes, 3 for each of $rounds rounds" \
		test $((flushes % 3)) -eq 0 -a $((rounds * 4)) -lt $blocks
	# The slots of so many blocks lie in two pages at most.
	check "the spare sees each block once, and two copies of the pages that they touch, $rounds times" \
		test "$writes" -ge $((blocks + 2)) -a "$writes" -le $((rounds * (blocks + 4)))
}

# make_disks FUA: makes disks with a volatile cache that have FUA or not.
make_disks() {
	local disk
	for disk in "${disks[@]}"; do
		special_disk "$disk" size=16 cache_size=1 fua="$1"
	done
}

drop_disks() {
	local disk
	dmsetup remove remap
	for disk in "${disks[@]}"; do
		rmdir "/sys/kernel/config/nullb/$disk"
	done
}

# cost COMMAND...: sets writes and flushes to what COMMAND causes on all disks.
cost() {
	local disk
	writes=0 flushes=0
	for disk in "${disks[@]}"; do
		flushes=$((flushes - $(flushes_of "$disk")))
		writes=$((writes - $(writes_of "$disk")))
	done
	"$@"
	for disk in "${disks[@]}"; do
		flushes=$((flushes + $(flushes_of "$disk")))
		writes=$((writes + $(writes_of "$disk")))
	done
	# The kernel counts a flush as a write, too.
	writes=$((writes - flushes))
	explain "$*: $writes writes, $flushes flushes"
}

# costs WITH LINE COPIES: checks of the device remap, which LINE makes again, and which keeps so
# many copies of a page.
costs() {
	local rounds
	cost remap remap stats reset
	equal "a message that changes nothing costs nothing, $1" '0 0' "$writes $flushes"
	cost remap remap add 8
	at_most 4 3 "one relocation, $1,"
	check "it writes the block and two copies of its page, $1" test "$writes" -ge 3 -a "$flushes" -ge 2
	cost remap remap remove 8
	at_most 4 3 "one removal, $1,"

	cost remap remap add 100 10000
	check "10,000 relocations together write each block, $1" test "$writes" -ge 10000
	# How many blocks are relocated in a round depends on the time that it takes.
	rounds=$((flushes / 3))
	check "in each of $rounds rounds $3 copies of two pages at most, $1" \
		test $((writes - 10000)) -le $((rounds * 2 * $3))
	check "with three flushes for a round, and four blocks at least for a flush, $1" \
		test $((flushes % 3)) -eq 0 -a $((flushes * 4)) -lt 10000
	cost remap remap add 16000
	at_most 4 3 "one relocation beside 10,000, $1,"

	dmsetup remove remap
	cost dmsetup create remap --table "$2"
	equal "an activation with nothing to repair writes nothing, and flushes each spare, $1" "0 $(($3 - 1))" "$writes $flushes"
	equal "but knows every block, $1" 10001 "$(remap_status remap used)"
	cost dmsetup remove remap
	equal "and ends without a write, $1" '0 0' "$writes $flushes"
	dmsetup create remap --table "$2"
}

# at_most WRITES FLUSHES WHAT: a check of the last cost.
at_most() {
	check "$3 costs at most $1 writes and $2 flushes, not $writes and $flushes" \
		test "$writes" -le "$1" -a "$flushes" -le "$2"
}

scenario
