#!/bin/bash
#
# Each new relocation, and each change of the mode or the health, raises a device-mapper event,
# and the log has a line; but a burst of them raises few events, and fills no log.

# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap

events() {
	dmsetup info -c --noheadings -o events remap
}

# settles HEALTH: waits until the health, which follows what happens a little later, is this one, and
# all who wait have been told: a suspend waits for what the device does by itself.
settles() {
	within 60 health_is "$1"
	dmsetup suspend remap
	dmsetup resume remap
}

health_is() {
	[[ $(remap_values remap health) == "health=$1" ]]
}

# wait_and COMMAND...: how dmsetup wait ends when COMMAND runs meanwhile.
wait_and() {
	local waiting status=0
	while :; do
		timeout 120 dmsetup wait remap "$(events)" >/tmp/wait &
		waiting=$!
		within 60 waits_or_has_ended "$waiting"
		[[ -n $(jobs -r) ]] && break
		# An event that is not about the command came first.
		wait "$waiting"
	done
	"$@"
	wait "$waiting" || status=$?
	echo "$status"
}

# waits_or_has_ended PID: whether the child of this background process waits for an event, or the process has ended.
waits_or_has_ended() {
	local child
	[[ -n $(jobs -r) ]] || return 0
	child=$(pgrep -P "$1") && grep -q dm_wait_event "/proc/$child/stack" 2>/dev/null
}

message() {
	dmsetup message remap 0 "$@"
}

null_disk main 16 '' max_sectors=1024
null_disk spare 16
remap_create remap /dev/main /dev/spare

before=$(events)
equal "dmsetup wait returns when a block is relocated" 0 "$(wait_and message add 100)"
after=$(events)
check "the number of events has grown" test "$after" -gt "$before"
message add 100
equal "a message that relocates nothing raises no event" "$after" "$(events)"
refused "a message that is refused fails" message add 100000000
equal "and raises no event" "$after" "$(events)"
message add 1000 4000
check "another relocation raises another event" test "$(events)" -gt "$after"

null_bad main 24000-24003
mark_log
equal "it returns when a write fails and is relocated" 0 "$(wait_and sectors write "$dev" 24001 1 new)"
expect_log "the log names the device, the sector, what was done and why" \
	'25[0-9]:[0-9]+: sector 24000: .*relocated to spare 0 \(write\), 3 sectors are unreadable'
# From here on the health stays as it is.
settles watch
null_bad main 24100-24100
equal "and when a read fails" 0 "$(wait_and sectors lost "$dev" 24100 1)"
expect_log "the log names that sector, too" 'sector 24096: .*relocated to spare 0 \(read\), 1 sectors are unreadable'
before=$(events)
sectors lost "$dev" 24100 1
equal "a sector that is known to be unreadable raises no event" "$before" "$(events)"

null_bad main 16000-16511
before=$(events)
mark_log
check "a write over 64 bad blocks succeeds" dd if=/dev/zero of="$dev" bs=256k seek=$((16000 * 512)) count=1 \
	oflag=direct,seek_bytes status=none
after=$(events)
equal "all of them were relocated" 'used=567 relocated_auto=66' "$(remap_values remap used relocated_auto)"
check "and raised an event" test "$after" -gt "$before"
check "but not one for each of them" test $((after - before)) -le 32
equal "the health has not changed again" 'health=watch' "$(remap_values remap health)"
explain "$(remap remap health)"
check "nor has the log a line for each" test "$(new_log | grep -c 'was relocated')" -lt 64

equal "it returns when the mode changes" 0 "$(wait_and message set auto 0)"
before=$(events)
message set auto 0
equal "but not when the mode stays" "$before" "$(events)"
equal "and when it changes back" 0 "$(wait_and message set auto 1)"
