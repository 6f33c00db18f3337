# shellcheck shell=bash
#
# What scenarios share in which disks fail for reads, for writes or for both, at any
# moment.

# shellcheck source=lib-interface.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib-interface.sh"

# failing_disk NAME DISK: makes the disk /dev/mapper/NAME, which is DISK.
failing_disk() {
	modprobe dm_flakey
	/tests/failing.py make "$@"
}

# failing NAME DISK [RANGE...]: from now on these ranges of it fail, and no others.  A
# RANGE is KIND:FIRST:COUNT, where KIND is reads, writes or all.
failing() {
	/tests/failing.py set "$@"
}

# scsi_fails COUNT OPCODE HOST STATUS KEY ASC ASCQ: the next COUNT commands of the SCSI
# disk with this first byte end so, all numbers but COUNT in hexadecimal: with the byte
# of the host adapter, the status, and, of the sense data, the key, the code and its
# qualifier.
scsi_fails() {
	echo "2 -$1 $2 $3 0 ${*:4}" >"$(scsi_errors)"
}

scsi_errors() {
	compgen -G '/sys/kernel/debug/scsi_debug/*/error'
}

# The first bytes of the commands that the SCSI disk gets.
# shellcheck disable=SC2034 # For the scenarios.
scsi_read=0x28 scsi_write=0x2a scsi_flush=0x35 scsi_write_same=0x93

# causes NAME: prints "<sector>:<cause>" of every relocated block, in one line.
causes() {
	local list line causes=()
	list=$(remap "$1" list)
	[[ -n $list ]] || return 0
	while read -r -a line; do
		causes+=("${line[0]}:${line[5]}")
	done <<<"$list"
	printf '%s\n' "${causes[*]}"
}
