#!/bin/bash
#
# Metadata that is torn, damaged, old or hostile: one good copy is enough and mends the
# other one, anything else is refused before anything is written, and no page with a valid
# checksum, whatever it says, makes the kernel stumble or two sectors share a place.
#
# The first argument says how many times as many random changes and changed bytes as usual
# are tried, the second with which seed.

# shellcheck source=lib.sh
. /tests/lib.sh

effort=${1:-1}

for disk in first second smaller; do
	null_disk "$disk" 1
done
null_disk main 2
null_disk larger 3
load_module
keep_pools
dmsetup create remap --table '0 8 linear /dev/main 0'

status=0
while IFS=$'\t' read -r verdict promise why; do
	report "$verdict" "$promise"
	[[ -z $why ]] || explain "$why"
done < <(/tests/damage.py $((100 * effort)) "${@:2}")
wait $! || status=$?
equal "every case was tried" 0 "$status"
