#!/bin/bash
#
# Each new relocation raises a device-mapper event.

# shellcheck source=lib.sh
. /tests/lib.sh

events() {
	dmsetup info -c --noheadings -o events remap
}

# wait_and COMMAND...: how dmsetup wait ends when COMMAND runs meanwhile.
wait_and() {
	local waiting status=0
	timeout 10 dmsetup wait remap "$(events)" >/tmp/wait &
	waiting=$!
	within 5 grep -q dm_wait_event "/proc/$(within 5 pgrep -P "$waiting")/stack"
	"$@"
	wait "$waiting" || status=$?
	echo "$status"
}

message() {
	dmsetup message remap 0 "$@"
}

null_disk main 16
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
