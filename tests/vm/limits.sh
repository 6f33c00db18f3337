#!/bin/bash
#
# Flush, FUA, discard, write zeroes and secure erase reach every device that holds a part of
# the range.  Queue limits are stacked from main and all spares, and NOWAIT works.  Whatever
# else can be asked of a disk is asked of main.

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

dev=/dev/mapper/remap
size=8192

scenario() {
	load_module
	alike
	stacked
	nowait
	discarding
	flushing
	zeroing_and_ioctls
}

# limits NAME: prints all limits of the mapped device NAME, one a line.
limits() {
	local queue
	queue=/sys/block/$(basename "$(readlink -f "/sys/dev/block/$(dmsetup info -c --noheadings --separator : -o major,minor "$1")")")/queue
	(cd "$queue" && grep -s . -- *)
}

# limit NAME LIMIT: prints one of them.
limit() {
	limits "$1" | sed -n "s/^$2://p"
}

alike() {
	special_disk main size=4 discard=1
	special_disk alike size=4 discard=1
	remap_create remap /dev/main /dev/alike
	flat linear /dev/main "$size"
	equal "with a spare like main, every limit is that of linear on main" "$(limits linear)" "$(limits remap)"
	matches "discards are possible then" '^[1-9]' "$(limit remap discard_max_bytes)"
	dmsetup remove remap
}

# Linear with main and a spare, one behind the other, has the limits that both of them bear.
stacked() {
	limits_with "a spare with large sectors" logical_block_size 4096 blocksize=4096 discard=1
	limits_with "a spare that takes small requests only" max_sectors_kb 16 max_sectors=32 discard=1
	limits_with "a spare without discards" discard_max_bytes 0
	limits_with "a spare with a volatile cache" write_cache 'write back' cache_size=1 discard=1
	limits_with "a spare with a volatile cache and FUA" fua 1 cache_size=1 fua=1 discard=1
	limits_with "a rotating spare" rotational 1 rotational=1 discard=1
	limits_with "a spare with a boundary in memory" virt_boundary_mask 4095 virt_boundary=1 discard=1
	limits_of_three
	dmsetup remove linear
}

# limits_with KIND LIMIT VALUE ATTRIBUTE...: the limits with a spare that has these attributes.
limits_with() {
	special_disk worse size=4 "${@:4}"
	remap_create remap /dev/main /dev/worse
	dmsetup create both --table "0 $size linear /dev/main 0
$size $size linear /dev/worse 0"
	equal "$1 makes $2 $3" "$3" "$(limit remap "$2")"
	equal "with $1 every limit is what both disks bear" "$(limits both)" "$(limits remap)"
	dmsetup remove both
	dmsetup remove remap
	rmdir /sys/kernel/config/nullb/worse
}

limits_of_three() {
	special_disk worse size=4 max_sectors=32 discard=1
	special_disk worst size=4 max_sectors=64 blocksize=2048
	dmsetup create remap --table "0 $size remap /dev/main 2 /dev/worse /dev/worst"
	dmsetup create all --table "0 $size linear /dev/main 0
$size $size linear /dev/worse 0
$((2 * size)) $size linear /dev/worst 0"
	equal "with two spares every limit is what all disks bear" "$(limits all)" "$(limits remap)"
	dmsetup remove all
	dmsetup remove remap
	rmdir /sys/kernel/config/nullb/{worse,worst}
}

# nowait_reads FIRST: reads a sector without waiting.
nowait_reads() {
	python3 -IS - "$dev" "$1" <<-'END'
		import mmap, os, sys
		device = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)
		os.preadv(device, [mmap.mmap(-1, 512)], 512 * int(sys.argv[2]), os.RWF_NOWAIT)
	END
}

nowait() {
	blkdiscard -z /dev/alike
	remap_create remap /dev/main /dev/alike
	remap remap add 0 8
	check "a sector of main can be read without waiting" nowait_reads 100
	check "a sector of a spare can be read without waiting" nowait_reads 0
	dmsetup remove remap
	modprobe dm-delay
	dmsetup create slow --table "0 $size delay /dev/alike 0 0"
	remap_create remap /dev/main /dev/mapper/slow
	matches "that is not offered when a spare cannot do it" 'Operation not supported' "$(nowait_reads 100 2>&1)"
	dmsetup remove remap
	dmsetup remove slow
	blkdiscard -z /dev/alike
}

# The blocks at 0, 128, 256, ... are relocated.
discarding() {
	local place sector
	remap_create remap /dev/main /dev/alike 'block_size 8'
	sectors write "$dev" 0 "$size" data
	for ((sector = 0; sector < size; sector += 128)); do
		remap remap add "$sector"
	done
	place=$(spare_sector remap 128)
	check "a part of the device can be discarded" blkdiscard -f -o $((100 * 512)) -l $((30 * 512)) "$dev"
	check "a discarded range is discarded on main" sectors zero /dev/main 100 28
	check "and on the spare" sectors zero /dev/alike "$place" 2
	check "the sectors before it stay" sectors holds "$dev" 0 100 data
	check "the sectors behind it stay" sectors holds "$dev" 130 $((size - 130)) data
	check "also those on the same spare" sectors holds /dev/alike $((place + 2)) 6 data 130
	check "all of the device can be discarded" blkdiscard -f "$dev"
	check "then nothing is left of it" sectors zero "$dev" 0 "$size"
	matches "secure erase is refused where no disk can do it" 'Operation not supported' \
		"$(blkdiscard -s -f "$dev" 2>&1)"
	equal "blocks stay relocated through all that" $((size / 128)) "$(remap_status remap used)"
	dmsetup remove remap
	rmdir /sys/kernel/config/nullb/{main,alike}
}

# flushed COMMAND...: prints how many flushes each disk gets from COMMAND.
flushed() {
	local disk before=()
	for disk in main spare more; do
		before+=("$(flushes_of "$disk")")
	done
	"$@"
	for disk in main spare more; do
		printf '%s ' "$disk=$(($(flushes_of "$disk") - before[0]))"
		before=("${before[@]:1}")
	done
}

# write_through FIRST: writes a sector with O_DSYNC, which is a write with FUA and a flush.
write_through() {
	dd if=/dev/zero of="$dev" bs=512 seek="$1" count=1 oflag=direct,dsync conv=notrunc status=none
}

flushing() {
	local disk
	for disk in main spare more; do
		special_disk "$disk" size=4 cache_size=1 fua=0
	done
	dmsetup create remap --table "0 $size remap /dev/main 2 /dev/spare /dev/more 1 manual"
	remap remap add 0
	remap remap add 8
	matches "the two blocks are on different spares" '(0.*1|1.*0)' \
		"$(remap remap lookup 0 | cut -d ' ' -f 2) $(remap remap lookup 8 | cut -d ' ' -f 2)"
	equal "fsync reaches main and every spare" 'main=1 spare=1 more=1 ' "$(flushed sync "$dev")"
	equal "FUA to a sector of main is for main" 'main=2 spare=1 more=1 ' "$(flushed write_through 100)"
	case $(remap remap lookup 0) in
	spare\ 0*) equal "FUA to a relocated sector is for its spare" 'main=1 spare=2 more=1 ' "$(flushed write_through 0)" ;;
	spare\ 1*) equal "FUA to a relocated sector is for its spare" 'main=1 spare=1 more=2 ' "$(flushed write_through 0)" ;;
	esac
	dmsetup remove remap
}

# The scsi disk can write zeroes by itself.  It is main and, in its second half, the spare.
zeroing_and_ioctls() {
	local main=/dev/mapper/first spare=/dev/mapper/second place
	scsi_disk 8 lbpws=1
	flat first "$scsi_disk" "$size"
	flat second "$scsi_disk" "$size" "$size"
	remap_create remap "$main" "$spare" 'block_size 8'
	sectors write "$dev" 0 400 data
	remap remap add 96 16
	place=$(spare_sector remap 100)
	check "zeroes can be written to a part of the device" fallocate -z -o $((100 * 512)) -l $((50 * 512)) "$dev"
	check "they are on main" sectors zero "$main" 112 38
	check "and on the spare" sectors zero "$spare" "$place" 4
	check "the sectors before them stay" sectors holds "$dev" 0 100 data
	check "the sectors behind them stay" sectors holds "$dev" 150 250 data
	check "a hole can be punched" fallocate -p -o $((98 * 512)) -l $((2 * 512)) "$dev"
	check "there are zeroes, too" sectors zero "$dev" 98 2
	check "but not before it" sectors holds "$dev" 96 2 data
	matches "secure erase is refused there, too" 'Operation not supported' "$(blkdiscard -s -f "$dev" 2>&1)"
	dmsetup remove remap
	dmsetup remove first

	blkdiscard -z /dev/more
	remap_create remap "$scsi_disk" /dev/more
	check "an ioctl of a SCSI disk is answered by main" scsi_answers
	check "also for those without the right to raw I/O" without_raw_io scsi_answers
	dmsetup remove remap
	dmsetup create remap --table "0 100 remap $scsi_disk 1 /dev/more"
	check "when the table is shorter than main, too" scsi_answers
	refused "but then not without the right to raw I/O" without_raw_io scsi_answers
}

# scsi_answers: asks the device for the version of its SCSI interface.
scsi_answers() {
	"${prefix[@]}" python3 -IS - "$dev" <<-'END'
		import fcntl, os, sys
		SG_GET_VERSION_NUM = 0x2282
		fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), SG_GET_VERSION_NUM, bytes(4))
	END
}
prefix=()

without_raw_io() {
	local prefix=(setpriv --bounding-set=-sys_rawio --inh-caps=-sys_rawio)
	"$@"
}

scenario
