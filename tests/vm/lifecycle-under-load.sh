#!/bin/bash
#
# Suspend, resume, reload and remove at any moment, under load, while relocating: no
# request is lost, and none is answered twice.

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh

busy_disk main 16
busy_disk spare 32
busy_disk more 32

cycles() {
	/tests/cycles.py remap "$@"
}

# refusal MESSAGE: prints what dmsetup says when the message is refused.
refusal() {
	if timeout 10 dmsetup message remap 0 "$@" 2>&1; then
		echo accepted
	fi
}

refuses_messages() {
	local message
	dmsetup suspend remap
	for message in 'add 0' 'remove 0' 'set read_retries 4' sync; do
		matches "\"$message\" is refused while the device is suspended" \
			'Device or resource busy' "$(refusal "$message")"
	done
	check "status answers while the device is suspended" timeout 10 dmsetup status remap
	check "lookup, too" timeout 10 dmsetup message remap 0 lookup 0
	dmsetup resume remap
}

remap_create remap /dev/main /dev/spare
table=$(dmsetup table remap)
changed="$table 5 manual scan_rate 1000 read_retries 7"

begin_churn remap /dev/main /dev/spare /dev/more --count 1024 --writers 4 --readers 1 --span 12 --suspends
check "the device can be suspended and resumed, whatever goes on" \
	cycles $((100 * effort)) suspend
check "it can be reloaded with the same table" cycles $((40 * effort)) reload "$table"
check "and with changed feature arguments" \
	cycles $((40 * effort)) reload "$changed" "$table"
check "a table that is loaded and cleared again changes nothing" \
	cycles $((40 * effort)) clear "$changed" "$table"
refuses_messages
refused "a device in use cannot be removed" dmsetup remove --retry remap
check "that does it no harm" dmsetup message remap 0 add 8 8
dmsetup reload remap --table "$table 2 block_size 16"
refused "a reload with another block size is refused at the latest when it is resumed" \
	dmsetup resume remap
dmsetup reload remap --table "$table"
check "the device goes on with the table that it had" dmsetup resume remap
more="${table/ 1 / 2 } $(lsblk -dno MAJ:MIN /dev/more | tr -d ' ')"
dmsetup reload remap --table "$more"
check "a reload may add a spare" dmsetup resume remap
equal "both spares are there then" 2/2 "$(remap_status remap spares)"
end_churn "no write was lost, and no stale sector was read, through all of that"
dmsetup remove remap
