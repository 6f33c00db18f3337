#!/bin/bash
#
# Power cuts under load, with disks that lose all that they have not flushed.  What was
# written with FUA, or flushed later, is there after the next activation; no sector goes
# back behind that; and every message that was answered has its effect.

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh

dev=/dev/mapper/remap
disks=(/dev/mapper/main /dev/mapper/spare)
state=/dev/shm/state
mapfile -t cuts < <(seq $((3 * effort)))

# logged_disk NAME: makes the disk /dev/mapper/NAME, which records what happens to it,
# and /dev/NAME-copy, of the same size.
logged_disk() {
	busy_disk "$1" 8
	null_disk "$1-copy" 8
	null_disk "$1-log" 256
	dmsetup create "$1" --table "0 16384 log-writes /dev/$1 /dev/$1-log"
}

# record: while churn runs, notes at random moments what has to survive.
record() {
	local cut
	for cut in "${cuts[@]}"; do
		sleep "0.$((RANDOM % 10))"
		/tests/churn.py keep remap "${disks[@]}" "${churn[@]}" --kept "$state-$cut" \
			--mark "cut-$cut" --logs main spare
	done
}

# cut_power CUT: the disks are as they were after that one, and get power again.
cut_power() {
	local disk before=''
	[[ $1 -eq 1 ]] || before=cut-$(($1 - 1))
	for disk in main spare; do
		/tests/cut.py "/dev/$disk-log" "$before" "cut-$1" "/dev/$disk-copy"
		dd if="/dev/$disk-copy" of="/dev/$disk" bs=1M iflag=direct oflag=direct status=none
	done
	remap_create remap /dev/main /dev/spare
}

looks() {
	/tests/churn.py check remap /dev/main /dev/spare "${churn[@]}" --state "$state-$1" 2>&1 |
		tee -a /tmp/looks
}

# begin OPTION...: everything anew, with other options of churn.
begin() {
	local disk
	rm -f "$state"*
	for disk in /sys/kernel/config/nullb/*/power; do
		[[ ! -e $disk ]] || rmdir "$(dirname "$disk")"
	done
	logged_disk main
	logged_disk spare
	remap_create remap "${disks[@]}"
	churn=("$@" --writers 4 --readers 1 --state "$state")
}

# end PROMISE: the load has ended.
end() {
	end_churn "$1"
	if mountpoint -q /mnt; then
		umount /mnt
	fi
	dmsetup remove remap
	dmsetup remove "${disks[@]}"
}

cut_device() {
	local cut
	begin --count 512 --span 12 --largest 3 --flush
	begin_churn remap "${disks[@]}" "${churn[@]}"
	record
	end "sectors of the device are written, flushed and moved"
	for cut in "${cuts[@]}"; do
		cut_power "$cut"
		check "what was flushed is there after power cut $cut" looks "$cut"
		dmsetup remove remap
	done
	check "the cuts were real: something that was not flushed was lost" \
		grep -E '^[1-9][0-9]* sectors have lost' /tmp/looks
}

cut_file() {
	local cut
	begin --file /mnt/file --count 256 --span 8 --largest 128 --durable
	# The log cannot hold what is discarded.
	mkfs.ext4 -q -E nodiscard "$dev"
	mount "$dev" /mnt
	dd if=/dev/zero of=/mnt/file bs=128k count=1 oflag=direct conv=fsync status=none
	sync
	begin_churn remap "${disks[@]}" "${churn[@]}"
	record
	end "a file is written with FUA while the blocks of its filesystem are moved"
	for cut in "${cuts[@]}"; do
		cut_power "$cut"
		mount "$dev" /mnt
		check "what was written with FUA is there after power cut $cut" looks "$cut"
		umount /mnt
		check "the filesystem is sound after it" e2fsck -fn "$dev"
		dmsetup remove remap
	done
}

load_module
modprobe dm-log-writes
cut_device
cut_file
