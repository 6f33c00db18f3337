#!/bin/bash
#
# The sessions that README.md and docs/remap.md show, line by line, on disks as they say:
# what each command prints is there behind it, and nothing else.

# shellcheck source=lib.sh
. /tests/lib.sh

main() {
	modprobe -a sd_mod loop
	page_of_the_user
	readme
}

page_of_the_user() {
	mkdir /tmp/spares
	cd /tmp/spares
	load_module
	truncate -s 16M second.img
	losetup /dev/loop1 second.img
	# What is behind # is a command.
	follow < <(session /docs/remap.md | sed -E 's/^# /command /; t; s/^/output /')
	cd /
	dmsetup remove safe
	losetup -D
	within 60 rmmod scsi_debug
	rmmod dm_remap
}

readme() {
	disks
	mkfs.ext4 -q /dev/sdb
	# In the third block, near its end.
	scsi_bad 17174 2
	mkdir -p /checkout/build
	ln -s / "/checkout/build/$(uname -r)"
	cd /checkout
	# What is behind # is what comes out.
	follow < <(session /README.md | sed -E 's/^# /output /; t; s/^/command /')
	cd /
	scsi_good
	umount /mnt
	check "the filesystem is whole in the end" e2fsck -f -n /dev/mapper/safe
}

# disks: makes the disk sdb, and the spare sdc1 of 8 MiB; the same sectors of both are bad, but the spare is beyond them.
disks() {
	modprobe scsi_debug add_host=3 per_host_store=1 dev_size_mb=64 delay=0
	within 60 test -b /dev/sdc
	partition /dev/sdc
	within 60 test -b /dev/sdc1
}

# partition DISK: gives the disk a table with a partition of 16384 sectors from sector 65536 on.
partition() {
	local table=/tmp/table
	truncate -s 512 "$table"
	printf '\0\0\0\0\203\0\0\0\0\0\1\0\0\100\0\0' | dd of="$table" bs=1 seek=446 conv=notrunc status=none
	printf '\125\252' | dd of="$table" bs=1 seek=510 conv=notrunc status=none
	dd if="$table" of="$1" bs=512 oflag=direct status=none
	blockdev --rereadpt "$1"
}

# session FILE: prints what is between fences in the chapter "A session".
session() {
	awk '/^## / { found = /A session/ } found && /^`+$/ { inside = !inside; next } found && inside' "$1"
}

# follow: does what standard input says, and compares what comes out.  It all is the same shell.
follow() {
	local lines line command='' expected=() done=0
	mapfile -t lines
	for line in "${lines[@]}"; do
		if [[ $line == 'output '* ]]; then
			expected+=("${line#output }")
			continue
		fi
		try "$command" "${expected[@]}"
		command=${line#command } expected=()
		done=$((done + 1))
	done
	try "$command" "${expected[@]}"
	check "there were commands" test "$done" -gt 5
}

# try COMMAND LINE...: does it, and compares what it prints.
try() {
	local pattern
	[[ -n $1 ]] || return 0
	eval "$1" </dev/null >/tmp/printed 2>&1 || true
	# A disk is there some time later.
	[[ $1 != 'modprobe '* ]] || within 60 test -b /dev/sda
	# The time may be another one, and what dots stand for.
	pattern=$(printf '%s\n' "${@:2}" | sed -E 's/[][()*^$+?{}|\\]/\\&/g; s/\.\.\.$/.*/; s/[0-9]{10}$/[0-9]{10}/')
	matches "$1" "^$pattern\$" "$(</tmp/printed)"
}

main
