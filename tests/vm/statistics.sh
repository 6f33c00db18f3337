#!/bin/bash
#
# The statistics are exact: whatever is sent, to main and to each of several spares, whole or
# in parts, by one process or by many, is counted once, and so is what fails and what moves.

# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap
effort=${1:-1} seed=${2:-$RANDOM}

# unmerged_disk NAME MIB [ATTRIBUTE=VALUE]...: a disk whose statistics show each request that it
# was sent.
unmerged_disk() {
	null_disk "$1" "$2" '' "${@:3}"
	echo 2 >"/sys/block/$1/queue/nomerges"
}

main() {
	local jobs
	explain "seed $seed"
	unmerged_disk disk 8
	unmerged_disk spare0 2
	unmerged_disk spare1 2
	load_module
	dmsetup create remap --table "0 16384 remap /dev/disk 2 /dev/spare0 /dev/spare1 4 block_size 8 scan_interval 0"
	relocate_here_and_there
	for jobs in 1 4; do
		check "$jobs processes are counted, key by key, and by the disks" \
			/tests/counted.py remap /dev/disk /dev/spare{0,1} --seed "$seed" --jobs "$jobs" --requests $((1500 * effort))
	done
	dmsetup remove remap
	times
	causes_and_errors
}

# Single blocks, and some in a row.
relocate_here_and_there() {
	local block
	for block in $(shuf -i 0-2000 -n 60 --random-source=<(yes "$seed")); do
		remap remap add $((block * 8)) $((1 + block % 3 * 8))
	done
	equal "both spares have blocks" '0 1' \
		"$(remap remap list | cut -d ' ' -f 3 | sort -u | paste -sd ' ')"
}

# histogram KEY: prints "<class>:<count>" for each class that counts something.
histogram() {
	remap remap stats | sed -n "s/^$1=//p" | tr , '\n' | awk '$1 > 0 { print NR - 1 ":" $1 }'
}

# A disk that takes three milliseconds: class 12 begins at 2048 microseconds.
times() {
	local key place histograms=(main_read_us main_write_us spare_read_us spare_write_us)
	unmerged_disk slow 8 irqmode=2 completion_nsec=3000000
	unmerged_disk slow-spare 2 irqmode=2 completion_nsec=3000000
	remap_create remap /dev/slow /dev/slow-spare 'block_size 8'
	remap remap add 0 1024
	remap remap stats reset
	# Of 256 requests of each kind on one processor four are timed.
	for place in 0 1000; do
		taskset -c 0 dd if="$dev" of=/dev/null bs=2048 count=256 skip="$place" iflag=direct status=none
		taskset -c 0 dd if=/dev/zero of="$dev" bs=2048 count=256 seek="$place" oflag=direct status=none
	done
	for key in "${histograms[@]}"; do
		equal "$key has one request of 64" 4 "$(histogram "$key" | awk -F : '{ sum += $2 } END { print sum }')"
		check "none of which took less than the disk takes" test "$(histogram "$key" | head -n 1 | cut -d : -f 1)" -ge 12
	done
	remap remap stats reset
	equal "a reset forgets them" '' "$(for key in "${histograms[@]}"; do histogram "$key"; done)"
	dmsetup remove remap
}

# numbers: prints what stats says of errors and relocations.
numbers() {
	remap remap stats | grep -E '_errors=|^(relocated|relocated_auto|removed|refused)=' | paste -sd ' '
}

# attempts read|write SECTOR...: a request of one sector each, which may fail.
attempts() {
	local sector
	for sector in "${@:2}"; do
		case $1 in
		read) dd if="$dev" of=/dev/null bs=512 count=1 skip="$sector" iflag=direct status=none 2>/dev/null || true ;;
		write) dd if=/dev/zero of="$dev" bs=512 count=1 seek="$sector" oflag=direct status=none 2>/dev/null || true ;;
		esac
	done
}

causes_and_errors() {
	local place
	failing_disk below /dev/disk
	blkdiscard -z /dev/spare0
	remap_create remap /dev/mapper/below /dev/spare0 'block_size 8 scan_interval 0 manual'
	failing below /dev/disk all:100:1 all:200:1 all:304:16 reads:408:2 reads:500:1
	attempts read 100 101 200
	attempts write 200 201
	equal "errors of a manual device are counted by kind" \
		'read_errors=2 write_errors=1 other_errors=0 relocated=0 relocated_auto=0 removed=0 refused=0 meta_errors=0' "$(numbers)"
	remap remap set auto 1
	remap remap stats reset
	attempts read 100
	equal "a read that fails is one" \
		'read_errors=1 write_errors=0 other_errors=0 relocated=1 relocated_auto=1 removed=0 refused=0 meta_errors=0' "$(numbers)"
	attempts write 200 304 312
	equal "so is each write that fails, although it succeeds" \
		'read_errors=1 write_errors=3 other_errors=0 relocated=4 relocated_auto=4 removed=0 refused=0 meta_errors=0' "$(numbers)"
	remap remap scan start
	within 60 test_passes 1
	equal "what a pass finds is no error of a request" \
		'read_errors=1 write_errors=3 other_errors=0 relocated=6 relocated_auto=6 removed=0 refused=0 meta_errors=0' "$(numbers)"
	remap remap add 1000 24
	equal "what a message relocates is not automatic" \
		'read_errors=1 write_errors=3 other_errors=0 relocated=9 relocated_auto=6 removed=0 refused=0 meta_errors=0' "$(numbers)"
	place=$(spare_sector remap 1000)
	null_bad spare0 "$place-$place"
	attempts write 1000
	equal "nor is a block new that leaves a bad place on the spare, which is an error of the write" \
		'read_errors=1 write_errors=4 other_errors=0 relocated=9 relocated_auto=6 removed=0 refused=0 meta_errors=0' "$(numbers)"
	remap remap remove 1008 16
	equal "what is brought back is counted by itself" \
		'read_errors=1 write_errors=4 other_errors=0 relocated=9 relocated_auto=6 removed=2 refused=0 meta_errors=0' "$(numbers)"
	refused "a range that is too long for the spare is refused" remap remap add 0 16384
	equal "and counted" \
		'read_errors=1 write_errors=4 other_errors=0 relocated=9 relocated_auto=6 removed=2 refused=1 meta_errors=0' "$(numbers)"
	equal "each block says why it was relocated" \
		'96:read 200:write 304:write 312:write 408:scan 496:scan 1000:spare' "$(causes remap)"
	equal "and stats how many there were of each reason since it began to count, also what was brought back" \
		'relocated_read=1 relocated_write=3 relocated_scan=2 relocated_message=3 relocated_spare=1' \
		"$(remap remap stats | grep -E '^relocated_[^a]' | paste -sd ' ')"
	equal "what could not be read is counted in the end" 'used=7 unreadable=18' "$(remap_values remap used unreadable)"
	check "and listed" agree remap
	dmsetup remove remap
	dmsetup remove below
}

test_passes() {
	[[ $(remap_status remap scan_passes) == "$1" ]]
}

main
