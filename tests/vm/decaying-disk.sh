#!/bin/bash
#
# Filesystems at work on a disk that decays: while 2 % of its sectors go bad for writing, at
# random moments, nothing that uses the filesystem sees an error, and no byte is wrong.  When
# as many go bad for reading, exactly those are errors, until they are written.

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh
# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap
mnt=/mnt
state=/root/bad
survey=(/tests/survey.py remap /dev/disk /dev/spare "$state")
seconds=$((4 * effort))
seed=$RANDOM

main() {
	local type
	explain "seed $seed"
	null_disk spare 32
	modprobe -a btrfs xfs
	for type in ext4 btrfs xfs; do
		case $type in
		ext4) decaying "$type" 40 2 ;;
		btrfs) decaying "$type" 128 2 ;;
		# The least size of an XFS.
		xfs) decaying "$type" 304 1 ;;
		esac
	done
}

promise() {
	printf '%s: %s' "$type" "$1"
}

# decaying TYPE MIB SHARE: a filesystem on a disk of that size.
decaying() {
	local type=$1 share=$3
	null_disk disk "$2"
	failing_disk main /dev/disk
	blkdiscard -z /dev/spare
	remap_create remap /dev/mapper/main /dev/spare
	"mkfs.$type" -q "$dev"
	mount -t "$type" "$dev" "$mnt"
	rm -f "$state"
	mark_log
	bad_for_writing
	# Which filesystem it is makes no difference for that.
	[[ $type != ext4 && $effort -eq 1 ]] || bad_for_reading
	umount "$mnt"
	dmsetup remove remap
	dmsetup remove main
	rmdir /sys/kernel/config/nullb/disk
}

# goes_bad KIND: begins to let more of the disk go bad.
goes_bad() {
	/tests/failing.py decay main /dev/disk "$1" "$share" "$seconds" "$seed" "$state" &
	decaying=$!
}

is_going_bad() {
	[[ -e /proc/$decaying ]]
}

bad_for_writing() {
	local status=0
	goes_bad writes
	files_at_work || status=$?
	equal "$(promise "files are written and read back while sectors go bad for writing")" 0 "$status"
	wait "$decaying"
	check "$(promise "and when all of them are bad")" work
	matches "$(promise "some writes have failed, and their blocks were relocated")" '=[1-9].*=[1-9]' \
		"$(remap_values remap write_errors relocated_auto)"
	equal "$(promise "no sector is unreadable")" 'mode=rw unreadable=0 refused=0' \
		"$(remap_values remap mode unreadable refused)"
	equal "$(promise "neither filesystem nor block layer has anything to say")" '' "$(complaints)"
	check "$(promise "all files are as written")" all_files
	check "$(promise "the filesystem finds nothing wrong with itself")" sound
	explain "$(dmsetup status remap)"
}

files_at_work() {
	while is_going_bad; do
		work || return
	done
}

# work: writes a file at random places and reads it back, and replaces a tree of files.
work() {
	fio --output=/root/fio --directory="$mnt" --name=file --rw=randwrite --bsrange=1k-64k --size=4m \
		--fsync=16 --end_fsync=1 --verify=crc32c --verify_fatal=1 &&
		rm -rf "$mnt/tree" && copy_tree && sync
}

copy_tree() {
	local tree
	tree=$(python3 -IS -c 'import email; print(email.__path__[0])')
	mkdir "$mnt/tree" && cp -r "${tree%/*}"/{email,json,http,asyncio,unittest} "$mnt/tree"
}

all_files() {
	local name original
	sync
	echo 3 >/proc/sys/vm/drop_caches
	original=$(python3 -IS -c 'import os; print(os.path.dirname(os.__file__))')
	for name in "$mnt"/tree/*; do
		diff -r "$name" "$original/${name##*/}" || return
	done
	fio --output=/root/fio --directory="$mnt" --name=file --rw=randwrite --bsrange=1k-64k --size=4m \
		--verify=crc32c --verify_fatal=1 --verify_only
}

# complaints: what the kernel has said of a mapped device or a filesystem.
complaints() {
	new_log | grep -E 'I/O error.*dm-|(EXT4-fs|XFS|BTRFS).*(error|warning|corrupt|metadata I/O)' || true
}

# sound: the filesystem on the disk, unmounted but for btrfs's own look at its checksums.
sound() {
	if [[ $type == btrfs ]]; then
		btrfs scrub start -B -r "$mnt" >/root/scrub || return
		grep 'no errors found' /root/scrub || return
	fi
	umount "$mnt"
	case $type in
	ext4) e2fsck -fn "$dev" ;;
	xfs) xfs_repair -n "$dev" ;;
	btrfs) btrfs check "$dev" ;;
	esac || return
	mount -t "$type" "$dev" "$mnt"
}

bad_for_reading() {
	local errors status=0
	umount "$mnt"
	goes_bad all
	while is_going_bad; do
		# What this finds is for the survey.
		dd if="$dev" of=/dev/null bs=64k iflag=direct conv=noerror status=none 2>/dev/null || true
	done
	wait "$decaying" || status=$?
	errors=$("${survey[@]}") || status=$?
	equal "$(promise "reads give what was written, or errors for exactly the bad sectors")" 0 "$status"
	equal "$(promise "which are counted")" "unreadable=$errors" "$(remap_values remap unreadable)"
	check "$(promise "some are bad")" test "$errors" -gt 0
	check "$(promise "status agrees with list")" agree remap
	check "$(promise "all of them can be written")" "${survey[@]}" restore
	equal "$(promise "and none is an error any more")" '0 unreadable=0' \
		"$("${survey[@]}") $(remap_values remap unreadable)"
	mount -t "$type" "$dev" "$mnt"
	check "$(promise "all files are as written again")" all_files
	check "$(promise "and the filesystem finds nothing wrong with itself again")" sound
	explain "$(dmsetup status remap)"
}

main
