#!/bin/bash
#
# Relocation under filesystems, on disks in use: files on a bad part of the disk can be
# written again, and no file is harmed when its blocks move while it is written.

# shellcheck source=lib-sectors.sh
. /tests/lib-sectors.sh

dev=/dev/mapper/remap
mnt=/mnt
# What the files must hold, on another disk.
copies=/root/copies

main() {
	null_disk spare 16

	scsi_disk 64
	# shellcheck disable=SC2154 # scsi_disk sets it.
	type=ext4 disk=$scsi_disk
	disk_bad() { scsi_bad "$1" "$2"; }
	filesystem

	null_disk plain 320
	type=xfs disk=/dev/plain
	disk_bad() { null_bad plain "$1-$(($1 + $2 - 1))"; }
	filesystem
}

filesystem() {
	blkdiscard -z /dev/spare
	remap_create remap "$disk" /dev/spare
	"mkfs.$type" -q "$dev"
	mount -t "$type" "$dev" "$mnt"
	mkdir "$copies"
	files_on_good_disk
	files_on_bad_disk
	files_on_the_move
	files_afterwards
	rm -r "$copies"
}

promise() {
	printf '%s: %s' "$type" "$1"
}

# write_file NAME: writes a file over, in place, and keeps a copy.
write_file() {
	head -c 131072 /dev/urandom >"$copies/$1"
	dd if="$copies/$1" of="$mnt/$1" bs=64k conv=notrunc,fsync status=none
}

# all_files: every file holds what was written, on the disk.
all_files() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	diff -r -x lost+found "$copies" "$mnt"
}

# extent NAME: prints the first sector of a file on the device, and how many follow.
extent() {
	filefrag -v -b512 "$mnt/$1" | awk '$1 == "0:" {
		first = $4 + 0
		print first, $5 - first + 1
	}'
}

files_on_good_disk() {
	local name
	for name in victim {0..4}; do
		write_file "$name"
	done
	sync
	check "$(promise "files are as written")" all_files
}

# The first part of a file goes bad, but for its first sectors.
files_on_bad_disk() {
	local first count
	read -r first count < <(extent victim)
	check "$(promise "the file has sectors enough to go bad")" test "$count" -ge 64
	disk_bad $((first + 3)) 30
	echo 3 >/proc/sys/vm/drop_caches
	refused "$(promise "a file on bad sectors cannot be read")" cmp "$mnt/victim" "$copies/victim"
	check "$(promise "the bad sectors are relocated under the mounted filesystem")" \
		remap remap add $((first + 3)) 30
	equal "$(promise "as many are unreadable as are bad")" unreadable=30 "$(remap_values remap unreadable)"
	echo 3 >/proc/sys/vm/drop_caches
	refused "$(promise "what was lost is still an error")" cmp "$mnt/victim" "$copies/victim"
	check "$(promise "the file can be written again")" write_file victim
	equal "$(promise "nothing is unreadable then")" unreadable=0 "$(remap_values remap unreadable)"
	check "$(promise "all files are good again")" all_files
}

# Blocks of files are relocated and brought back while the files are written.
files_on_the_move() {
	local writer status=0 written=0
	touch /root/writing
	: >/root/written
	write_files &
	writer=$!
	move_files 8
	move_files 16
	# The writer may not have had its turns yet.
	until [[ $(times_written) -ge 8 || ! -e /proc/$writer ]]; do
		move_files 8
	done
	rm /root/writing
	wait "$writer" || written=$?
	equal "$(promise "all blocks could be moved while files were written")" 0 "$status"
	equal "$(promise "all files could be written while blocks moved")" 0 "$written"
	check "$(promise "files were written many times meanwhile")" test "$(times_written)" -ge 8
	check "$(promise "all files are as written last")" all_files
}

# move_files SECTORS: relocates the blocks of all files and brings some of them back, from so many
# sectors on, which is not where they were relocated.  Sets status when that fails.
move_files() {
	local name first count
	for name in {0..4}; do
		read -r first count < <(extent "$name")
		remap remap add "$first" "$count" || status=$?
	done
	for name in {0..4}; do
		read -r first count < <(extent "$name")
		remap remap remove $((first + $1)) $((count / 2)) || status=$?
	done
}

times_written() {
	wc -l </root/written
}

write_files() {
	local name
	while [[ -e /root/writing ]]; do
		for name in {0..4}; do
			write_file "$name"
			echo "$name" >>/root/written
		done
	done
}

files_afterwards() {
	local used
	if fstrim "$mnt" 2>/dev/null; then
		check "$(promise "all files are there after a discard of the free space")" all_files
	fi
	used=$(remap_values remap used)
	umount "$mnt"
	check "$(promise "the filesystem is clean")" clean
	dmsetup remove remap
	remap_create remap "$disk" /dev/spare
	equal "$(promise "as many blocks are relocated after the next activation")" "$used" "$(remap_values remap used)"
	check "$(promise "the filesystem is clean after the next activation")" clean
	mount -t "$type" "$dev" "$mnt"
	check "$(promise "all files are there after the next activation")" all_files
	umount "$mnt"
	dmsetup remove remap
}

clean() {
	case $type in
	ext4) e2fsck -fn "$dev" ;;
	xfs) xfs_repair -n "$dev" ;;
	esac
}

main
