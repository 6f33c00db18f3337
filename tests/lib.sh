# shellcheck shell=bash
#
# What scenarios in the virtual machine share: the checks of tap.sh, what the kernel
# log says, and disks that fail as told.

. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

# --- The kernel log ---

log_mark='vm: the command starts'

# mark_log: from here on, only newer lines count for logged.
mark_log() {
	log_mark="mark $EPOCHREALTIME"
	printf '%s\n' "$log_mark" >/dev/kmsg
}

# new_log: prints the kernel log since the mark.
new_log() {
	dmesg | awk -v mark="$log_mark" 'found { print } index($0, mark) { found = 1 }'
}

# logged REGEX: the kernel log since the mark has a line that matches.
logged() {
	new_log | grep -E -- "$1"
}

# expect_log PROMISE REGEX: the same as a check.  A line can only be read when other processors
# have ended those that they began before.
expect_log() {
	check "$1" within 60 logged "$2"
}

# --- Disks ---

# null_disk NAME MIB [BAD [ATTRIBUTE=VALUE]...]: makes the disk /dev/NAME in memory,
# with the sectors BAD, written as FIRST-LAST, bad from the start, and with other
# attributes that null_blk has in configfs.
null_disk() {
	local disk=/sys/kernel/config/nullb/$1 attribute
	[[ -d /sys/kernel/config/nullb ]] || modprobe null_blk nr_devices=0
	mkdir "$disk"
	echo "$2" >"$disk/size"
	echo 512 >"$disk/blocksize"
	echo 1 >"$disk/memory_backed"
	echo 1 >"$disk/discard"
	for attribute in "${@:4}"; do
		echo "${attribute#*=}" >"$disk/${attribute%%=*}"
	done
	[[ -z ${3-} ]] || null_bad "$1" "$3"
	echo 1 >"$disk/power"
}

# keep_pools: has device mapper keep its pools of requests of each size, as it does while a
# device needs them.  To make and to destroy them takes most of the time in which a table is
# replaced by one of another target.
keep_pools() {
	null_disk kept0 2
	null_disk kept1 1
	dmsetup create kept_linear --table '0 8 linear /dev/kept0 0'
	dmsetup create kept --table '0 4096 remap /dev/kept0 1 /dev/kept1 2 scan_interval 0'
}

# special_disk NAME ATTRIBUTE=VALUE...: makes the disk /dev/NAME in memory with other
# attributes of null_blk than those of null_disk.
special_disk() {
	local disk=/sys/kernel/config/nullb/$1 attribute
	[[ -d /sys/kernel/config/nullb ]] || modprobe null_blk nr_devices=0
	mkdir "$disk"
	for attribute in memory_backed=1 blocksize=512 "${@:2}" power=1; do
		echo "${attribute#*=}" >"$disk/${attribute%%=*}"
	done
}

# null_bad NAME FIRST-LAST and null_good NAME FIRST-LAST: from now on, plain I/O
# errors for every read and write that touches the sectors, or no longer.
null_bad() {
	echo "+$2" >"/sys/kernel/config/nullb/$1/badblocks"
}

null_good() {
	echo "-$2" >"/sys/kernel/config/nullb/$1/badblocks"
}

# ram_disks COUNT MIB: makes the disks /dev/ram0 and following, all zero.  They are
# faster than the others, but they never fail and do not count what they do.
ram_disks() {
	modprobe brd rd_nr="$1" rd_size=$(($2 * 1024)) max_part=4
}

# scsi_disk MIB [OPTION...]: makes a SCSI disk with options of scsi_debug, and sets
# scsi_disk to its path.  There can be only one.
scsi_disk() {
	local blocks='/sys/bus/pseudo/drivers/scsi_debug/adapter0/host*/target*/*/block'
	modprobe -a sd_mod
	modprobe scsi_debug "dev_size_mb=$1" delay=0 "${@:2}"
	within 60 compgen -G "$blocks/*" >/dev/null
	scsi_disk=/dev/$(basename "$(compgen -G "$blocks/*")")
	within 60 test -b "$scsi_disk"
}

# scsi_bad FIRST COUNT: from now on, medium errors for reads of these sectors, as
# of an unreadable part of a disk.  scsi_good: for none.
scsi_bad() {
	echo "$1" >/sys/module/scsi_debug/parameters/medium_error_start
	echo "$2" >/sys/module/scsi_debug/parameters/medium_error_count
	echo 2 >/sys/module/scsi_debug/parameters/opts
}

scsi_good() {
	echo 0 >/sys/module/scsi_debug/parameters/opts
}

# --- dm-remap ---

# load_module: loads the module that the tests are about.
load_module() {
	[[ -d /sys/module/dm_remap ]] || insmod /dm-remap.ko
}

# remap_create NAME MAIN SPARE [FEATURE...]: makes /dev/mapper/NAME, as long as MAIN,
# with words of features such as "manual" or "block_size 8".
remap_create() {
	local name=$1 main=$2 spare=$3 features
	load_module
	read -r -a features <<<"${*:4}"
	[[ ${#features[@]} -eq 0 ]] || features=("${#features[@]}" "${features[@]}")
	dmsetup create "$name" --table \
		"0 $(blockdev --getsz "$main") remap $main 1 $spare ${features[*]}"
}

# remap_status NAME KEY: prints the value of KEY in the status of the device NAME.
remap_status() {
	dmsetup status "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"
}

# --- The end ---

# remove_all: takes away whatever the scenario made, the module and its devices
# among it.  It fails when something is still held.
remove_all() {
	local mounts disk
	mapfile -t mounts < <(findmnt -rn -o TARGET -t ext2,ext3,ext4,xfs,btrfs | grep -vx / | tac)
	[[ ${#mounts[@]} -eq 0 ]] || umount "${mounts[@]}"
	within 60 remove_mapped
	[[ ! -d /sys/module/dm_remap ]] || rmmod dm_remap
	for disk in /sys/kernel/config/nullb/*/power; do
		[[ ! -e $disk ]] || rmdir "$(dirname "$disk")"
	done
	[[ ! -d /sys/module/scsi_debug ]] || within 60 rmmod scsi_debug
	[[ ! -d /sys/module/brd ]] || rmmod brd
}

# remove_mapped: removes all mapped devices that nothing uses, and succeeds when
# none is left.
remove_mapped() {
	dmsetup remove_all
	[[ $(dmsetup ls) == 'No devices found' ]]
}

removes_all() {
	check "in the end every device can be removed, and the module unloaded" remove_all
}

at_end removes_all
