#!/bin/bash
#
# Only media faults relocate: every error that a disk of the stock kernel can be made to
# return is counted and dealt with as the table in docs/relocation.md says.

# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap
page=/docs/relocation.md

# What nothing in the stock kernel can be made to return for a request at a moment of ours.
# The block layer keeps the first two to itself, SCSI has the third in the moment in which a
# disk is taken away, and the last is for what is refused before it is sent.
not_made=' BLK_STS_RESOURCE BLK_STS_DEV_RESOURCE BLK_STS_OFFLINE BLK_STS_INVAL '

main() {
	null_disk spare 4
	scsi_disk 8
	# shellcheck disable=SC2154 # scsi_disk sets it.
	disk=$scsi_disk
	dmsetup create below --table "0 $(blockdev --getsz "$disk") linear $disk 0"
	remap_create remap /dev/mapper/below /dev/spare 'block_size 8'
	sectors write "$dev" 0 4096 old
	late &
	late=$!
	every_status
	end_late
	passed_on_too
	path_is_down
	is_offline
	is_taken_away
}

# every_status: goes through the table, whose columns are the status, the errno, the
# counter, and what is done.
every_status() {
	local rows row status errno counter action names count=0
	mapfile -t rows < <(sed -n '/^| status of the device/,/^$/p' "$page" | sed -n '3,$s/`//gp')
	for row in "${rows[@]}"; do
		IFS='|' read -r _ status errno counter action _ <<<"$row"
		read -r -a names <<<"${status//[!A-Z_ ]/}"
		for status in "${names[@]}"; do
			[[ $status == BLK_STS_* ]] || continue
			count=$((count + 1))
			[[ $not_made == *" $status "* ]] || one_status "$status" "${errno// /}" "$counter" "$action"
		done
	done
	equal "the table has all statuses but those of zoned disks and of the block layer's own" 15 "$count"
}

# one_status NAME ERRNO COUNTER ACTION: a read and a write that end with it.  Each has a
# block of its own.
one_status() {
	local verb result=$2 counter=other_errors
	for verb in read write; do
		case $1 in
		# That takes another disk, and long.
		BLK_STS_TIMEOUT)
			late_result=$result
			return
			;;
		# Only those give it that must not wait.
		BLK_STS_AGAIN | BLK_STS_NOTSUPP) [[ $verb == read ]] || return 0 ;;
		esac
		case $3 in
		' other_errors ') ;;
		' read_errors, write_errors ' | ' the same ') counter=${verb}_errors ;;
		*) fail "what is the counter \"$3\"?" ;;
		esac
		case $4 in
		' passed on '* | ' passed on: '*) ;;
		' it '*'a fault of the medium'*) result=ok ;;
		*) fail "what is done, when it is \"$4\"?" ;;
		esac
		sector=$((sector + 16))
		remap remap stats reset
		equal "a $verb that ends with $1 gives $result" "$result" "$(ends_with "$1" "$verb")"
		equal "it counts in $counter" "$counter=1" \
			"$(remap remap stats | grep -E '^(read|write|other)_errors=[^0]' | paste -sd ' ')"
		if [[ $result == ok ]]; then
			equal "and is relocated" "ff $verb" "$(remap remap list $sector 1 | cut -d ' ' -f 5,6)"
		else
			equal "and not relocated" 'main mode=rw' \
				"$(remap remap lookup $sector) $(remap_values remap mode)"
			check "main has what it had" sectors holds "$dev" $sector 8 old
		fi
	done
}
sector=800

fail() {
	explain "$1"
	return 1
}

# late: reads and writes a disk that answers when it is far too late.  That takes half a minute,
# because the kernel looks first what is on the disk.
late() {
	local reading
	special_disk slow size=4 irqmode=2 completion_nsec=10000000000
	special_disk other size=4
	echo 1000 >/sys/block/slow/queue/io_timeout
	remap_create late /dev/slow /dev/other
	/tests/attempt.py read /dev/mapper/late 800 >/tmp/read &
	reading=$!
	/tests/attempt.py write /dev/mapper/late 1600 >/tmp/write
	wait "$reading"
}

# end_late: the checks of what came of that.
end_late() {
	wait "$late"
	equal "a read and a write that end with BLK_STS_TIMEOUT give $late_result" \
		"$late_result $late_result" "$(</tmp/read) $(</tmp/write)"
	equal "they count as other_errors=2, and are not relocated" \
		'mode=rw used=0 read_errors=0 write_errors=0 other_errors=2' \
		"$(remap_values late mode used read_errors write_errors other_errors)"
	dmsetup remove late
	rmdir /sys/kernel/config/nullb/slow /sys/kernel/config/nullb/other
}

# ends_with STATUS read|write: has a request end so, and prints what came of it.
ends_with() {
	local opcode=scsi_$2 verb=$2
	case $1 in
	BLK_STS_MEDIUM) scsi_fails 1 "${!opcode}" 0 2 3 11 0 ;;
	# No host adapter.
	BLK_STS_IOERR) scsi_fails 1 "${!opcode}" 1 0 0 0 0 ;;
	BLK_STS_NOSPC) scsi_fails 1 "${!opcode}" 0 2 7 27 7 ;;
	BLK_STS_TRANSPORT) scsi_fails 1 "${!opcode}" f 0 0 0 0 ;;
	# The hardware of the disk.
	BLK_STS_TARGET) scsi_fails 1 "${!opcode}" 0 2 4 44 0 ;;
	BLK_STS_RESV_CONFLICT) scsi_fails 1 "${!opcode}" 0 18 0 0 0 ;;
	# A checksum that is wrong on the way to the disk.
	BLK_STS_PROTECTION) scsi_fails 1 "${!opcode}" 0 2 b 10 1 ;;
	BLK_STS_DURATION_LIMIT) scsi_fails 1 "${!opcode}" 0 2 f 55 a ;;
	# The disk below would have to wait, because it is suspended.
	BLK_STS_AGAIN)
		dmsetup suspend --noflush below
		verb=nowait
		;;
	# The disk below cannot say whether it would have to wait.
	BLK_STS_NOTSUPP)
		failing below "$disk" writes:0:8
		verb=nowait
		;;
	*) fail "how is $1 made?" ;;
	esac
	/tests/attempt.py "$verb" "$dev" $sector
	case $1 in
	BLK_STS_AGAIN) dmsetup resume below ;;
	BLK_STS_NOTSUPP) failing below "$disk" ;;
	esac
}

# Errors of requests that are not for data, that nobody waits for, or with which nobody
# can do anything.
passed_on_too() {
	dmsetup remove remap
	blkdiscard -z /dev/spare
	remap_create remap /dev/mapper/below /dev/spare
	sectors write "$dev" 0 8 new
	scsi_fails 1 $scsi_flush 0 2 3 11 0
	matches "a flush that fails on main fails" '^E' "$(/tests/attempt.py flush "$dev" 0)"
	equal "and counts in other_errors" 'used=0 read_errors=0 write_errors=0 other_errors=1' \
		"$(remap_values remap used read_errors write_errors other_errors)"
	scsi_bad 808 1
	equal "nobody waits for readahead over a bad sector" ok "$(/tests/attempt.py readahead "$dev" 808)"
	check "it is counted" within 60 counts read_errors=1
	equal "but relocates nothing" used=0 "$(remap_values remap used)"
	equal "a read of it fails" ENODATA "$(/tests/attempt.py read "$dev" 808)"
	equal "and relocates it, with a sector unreadable" 'used=1 unreadable=1' \
		"$(remap_values remap used unreadable)"
	check "that sector fails again" sectors lost "$dev" 808 1
	equal "without another relocation" 'used=1 unreadable=1 relocated=1' \
		"$(remap_values remap used unreadable relocated)"
	scsi_good
}

# counts KEY=VALUE: the status has it.
counts() {
	[[ $(remap_values remap "${1%=*}") == "$1" ]]
}

# Reads and writes end with a transport that was disrupted, however often they are tried.
path_is_down() {
	transport_fails 100000
	main_is_gone "on a bad path"
	transport_fails 0
	main_is_back "on a bad path"
}

transport_fails() {
	scsi_fails "$1" $scsi_read e 0 0 0 0
	scsi_fails "$1" $scsi_write e 0 0 0 0
}

is_offline() {
	local state=/sys/block/${disk##*/}/device/state
	echo offline >"$state"
	main_is_gone "offline"
	echo running >"$state"
	main_is_back "offline"
}

# The kernel gives the disk up, and does not find it again.
is_taken_away() {
	echo 1 >"/sys/block/${disk##*/}/device/delete"
	main_is_gone "taken away"
	check "the device can be removed then" timeout 120 dmsetup remove remap
}

main_is_gone() {
	equal "a write fails when main is $1" EIO "$(/tests/attempt.py write "$dev" 1600)"
	equal "and so does a read" EIO "$(/tests/attempt.py read "$dev" 1600)"
	equal "main is suspected, and nothing is relocated" 'mode=suspect used=1 relocated_auto=1' \
		"$(remap_values remap mode used relocated_auto)"
}

main_is_back() {
	check "it is not any more when it was $1 and answers again" within 60 counts mode=rw
	check "it has what it had" sectors holds "$dev" 1600 8 old
	equal "it is written" ok "$(/tests/attempt.py write "$dev" 3200)"
	equal "without a relocation" used=1 "$(remap_values remap used)"
}

main
