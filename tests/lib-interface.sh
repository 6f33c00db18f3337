# shellcheck shell=bash
#
# What scenarios share that look at the interface: what is refused and how, and what was
# done to a disk.

# shellcheck source=lib-sectors.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib-sectors.sh"

# flat NAME DEVICE SECTORS [FIRST]: makes /dev/mapper/NAME of a part of DEVICE.
flat() {
	dmsetup create "$1" --table "0 $3 linear $2 ${4-0}"
}

# contents DEVICE...: prints a checksum of all that is on each of the devices.
contents() {
	# Device mapper writes past the page cache.
	blockdev --flushbufs "$@"
	cksum "$@"
}

# statistic DISK NUMBER: prints a number of the disk's statistics, see
# Documentation/block/stat.rst.
statistic() {
	local numbers
	read -r -a numbers <"/sys/block/${1##*/}/stat"
	printf '%s\n' "${numbers[$2 - 1]}"
}

reads_of() { statistic "$1" 1; }
writes_of() { statistic "$1" 5; }
discards_of() { statistic "$1" 12; }
flushes_of() { statistic "$1" 16; }

# under_way NAME: prints how many requests for a mapped device have not ended yet.
under_way() {
	local reads writes
	read -r reads writes <"/sys/block/$(dmsetup info -c --noheadings -o blkdevname "$1")/inflight"
	echo $((reads + writes))
}

# changes DISK...: prints how many requests of each disk could have changed it, or made
# changes stable: writes, discards and flushes.
changes() {
	local disk
	for disk in "$@"; do
		printf '%s: %s %s %s\n' "$disk" "$(writes_of "$disk")" "$(discards_of "$disk")" "$(flushes_of "$disk")"
	done
}

# table_refused PROMISE ERRNO REGEX LINE and message_refused PROMISE ERRNO REGEX WORDS:
# checks for report_refusals to make, all together, because to start a process for each
# takes long.  REGEX is what the sentence in the log begins with.
#
# The table is that of the device "refused", the message is for the device "remap".
table_refused() {
	expect_refusal "$1" "table	refused	$2	remap: $3.* \(-$2\)$	$4"
}

message_refused() {
	expect_refusal "$1" "message	remap	$2	$3	$4"
}

expect_refusal() {
	refusal_promises+=("$1")
	refusals+=("$2")
}
refusal_promises=() refusals=()

report_refusals() {
	local answers at
	mapfile -t answers < <(printf '%s\n' "${refusals[@]}" | "$(dirname "${BASH_SOURCE[0]}")/refusals.py")
	for at in "${!refusals[@]}"; do
		if [[ ${answers[at]-it was not asked for} == ok ]]; then
			report ok "${refusal_promises[at]}"
		else
			report 'not ok' "${refusal_promises[at]}"
			explain "${refusals[at]//$'\t'/ | }" "${answers[at]-}"
		fi
	done
	refusal_promises=() refusals=()
}

# is_not_activated REGEX LINE [OPTION...]: device mapper takes the table line, but the
# spares are refused when it is to become active, and the log says why in a sentence
# that begins so.  The options are for dmsetup.
is_not_activated() {
	mark_log
	if dmsetup create refused "${@:3}" --table "$2"; then
		dmsetup remove refused
		return 1
	fi
	within 60 logged "dm_remap: .*: $1" && within 60 logged 'preresume failed'
}
