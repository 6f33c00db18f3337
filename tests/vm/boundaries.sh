#!/bin/bash
#
# A request that straddles relocated and other sectors is split exactly there, and
# others are never split: requests of every size and alignment, for small, usual and
# large blocks, against a model that knows what every sector must hold.  So are requests whose
# end is polled for.

# shellcheck source=lib-sectors.sh
. /tests/lib-sectors.sh

main() {
	local size
	for size in 1 8 64; do
		# The last block is cut short.
		length=$((32768 - size / 2))
		make_device "$size"
		live_blocks "$size"
		unreadable_blocks "$size"
		dmsetup remove remap
		rmdir /sys/kernel/config/nullb/{main,spare}
	done
	polled
}

# make_device SIZE: one without relocations.
make_device() {
	local disk
	null_disk main 16
	null_disk spare 16
	for disk in main spare; do
		# What was split must not be merged again before it is counted.
		echo 2 >"/sys/block/$disk/queue/nomerges"
	done
	sectors write /dev/spare 1024 20000 stale
	load_module
	dmsetup create remap --table "0 $length remap /dev/main 1 /dev/spare 3 block_size $1 manual"
	remap remap set read_retries 0
}

boundaries() {
	/tests/boundaries.py remap /dev/main /dev/spare "$1"
}

# Of the last blocks of the device some are relocated: one alone, two that follow
# each other on the spare as well, two that do not, one more, and the last one.
live_blocks() {
	local first=$(((length - 1) / $1 - 13))
	relocate "$1" $((first + 2)) 1
	relocate "$1" $((first + 4)) 2
	relocate "$1" $((first + 8)) 1
	relocate "$1" $((first + 7)) 1
	relocate "$1" $((first + 10)) 1
	relocate "$1" $((first + 13)) 1
	check "block size $1: reads get the data from where it lives, and are split only there" boundaries reads
	check "block size $1: writes go where the data lives, and are split only there" boundaries writes
	check "block size $1: everything can be brought back" remap remap remove 0 "$length"
	check "block size $1: a long request is split at each boundary" boundaries long
}

# relocate SIZE BLOCK COUNT: COUNT blocks, of which the last one may be cut short.
relocate() {
	remap remap add $(($1 * $2)) $(($1 * $3 - $1 / 2))
}

# polled: device mapper hands a flag of its own down to what remains of a polled request that was split, and
# takes it for granted that no target does so.
polled() {
	local disk block
	for disk in main spare; do
		special_disk "$disk" size=16 poll_queues=1
		# null_blk takes memory for what is written first, and may not sleep for that when it is polled.
		dd if=/dev/zero of="/dev/$disk" bs=1M count=16 oflag=direct status=none
		dmsetup create "below_$disk" --table "0 32768 linear /dev/$disk 0"
	done
	dmsetup create remap --table '0 32768 remap /dev/mapper/below_main 1 /dev/mapper/below_spare 3 block_size 8 manual'
	equal "the ends of requests can be polled for" 1 "$(cat "/sys/block/dm-$(dmsetup info -c --noheadings -o minor remap)/queue/io_poll")"
	for block in {1..15..2}; do
		remap remap add $((block * 8)) 8
	done
	check "requests that are polled for are split" fio --output=/tmp/fio --filename=/dev/mapper/remap --direct=1 --name=one \
		--ioengine=io_uring --hipri --iodepth=4 --rw=randwrite --bs=8k --size=64k --loops=20 \
		--verify=crc32c --verify_fatal=1
	dmsetup remove remap
}

unreadable_blocks() {
	check "block size $1: reads and writes of unreadable sectors touch no other ones" boundaries unreadable
	check "block size $1: the status agrees with the list" agree remap
}

main
