#!/bin/bash
#
# Random table lines and messages, thousands of them: each is refused with a sentence that
# says what is wrong, and then nothing was written, or it does what it says.  None makes the
# kernel stumble, wait or keep memory.
#
# The first argument says how many times as many as usual are tried, the second with which
# seed.

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

effort=${1:-1} seed=${2:-$SRANDOM}

# hostile KIND COUNT: tries so many of a kind.
hostile() {
	local verdict promise why status=0
	while IFS=$'\t' read -r verdict promise why; do
		report "$verdict" "$promise"
		[[ -z $why ]] || explain "$why"
	done < <(/tests/hostile.py "$@" "$seed")
	wait $! || status=$?
	equal "all $1 were tried" 0 "$status"
}

explain "seed: $seed"
null_disk main 2
for disk in first second third; do
	null_disk "$disk" 1
done
special_disk coarse size=4 blocksize=4096
special_disk zoned size=4 zoned=1 zone_size=1
flat hostile /dev/main 8
flat tiny /dev/third 24
load_module
before=$(contents /dev/main)
hostile tables $((1000 * effort))
equal "main is as it was" "$before" "$(contents /dev/main)"
hostile messages $((1500 * effort))
