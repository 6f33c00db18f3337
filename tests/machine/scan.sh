#!/bin/bash
#
# A machine loses its power while a background pass is paused, and again while it runs.  The
# pass is found as it was left, no further back than where it was last saved, and what
# it has read before that it does not read again.

# shellcheck source=common.sh
. "$(dirname "$0")/../../scripts/common.sh"
# shellcheck source=tap.sh
. "$TOP/tests/tap.sh"

size=16384
folder=$(mktemp -d)
at_end clean_up
clean_up() {
	rm -rf "$folder"
}

# until_power_cut STEP: boots the machine for a step, at the end of which its power is cut.
until_power_cut() {
	local status=0
	"$TOP/scripts/vm" --cpus 1 --disk "$folder/main" --disk "$folder/spare" "$TOP/tests/machine/guest/scan" "$1" \
		>"$folder/output" 2>"$folder/errors" || status=$?
	equal "the machine works until its power is cut, while a pass is to be $1" 125 "$status"
	[[ $status -eq 125 ]] || explain "$(<"$folder/errors")"
	explain "$(<"$folder/output")"
}

# said WORD: prints what the machine has said after the word.
said() {
	sed -n "s/^$1 //p" "$folder/output"
}

truncate -s $((size * 512)) "$folder/main"
truncate -s 4M "$folder/spare"
until_power_cut begun
paused_at=$(said at)
check "a pass has read something before it is paused: $paused_at sectors" test "$paused_at" -gt 0

until_power_cut paused
equal "the spare has the position at which it was paused" "$paused_at" "$(said saved)"
equal "it is paused after the power cut" paused "$(said begins)"
equal "at that position" "$paused_at" "$(said at)"
reached=$(said reaches) gone=$(said goes)
check "it goes on from there, to $reached, and after a suspend to $gone" \
	test "$paused_at" -lt "$reached" -a "$reached" -lt "$gone"

until_power_cut running
saved=$(said saved)
check "the spare has the position of the suspend, or a later one: $saved" test "$saved" -ge "$reached"
equal "the pass runs after the power cut" running "$(said begins)"
equal "it reads what is left from that position on, each sector once" $((size - saved)) "$(said reads)"
