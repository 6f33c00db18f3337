#!/bin/bash
#
# How the device says it is: a model that learns from what fails, over all activations.

# shellcheck source=lib-failing.sh
. /tests/lib-failing.sh

dev=/dev/mapper/remap

# health KEY: prints the value of KEY in the reply to the message health.
health() {
	remap remap health | sed -n "s/^$1=//p"
}

# fails_at BLOCK: a write to the block fails, and is carried out on the spare.
fails_at() {
	failing main /dev/disk "writes:$(($1 * 8)):8"
	sectors write "$dev" $(($1 * 8)) 8 new
	failing main /dev/disk
}

# above A B: the number A, which may have a fraction, is greater than B.
above() {
	awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > b) }'
}

# asked: the model was asked since the last block moved.
asked() {
	above "$(health rate)" "${rate-0}"
}

main() {
	null_disk disk 16
	null_disk spare 4
	failing_disk main /dev/disk
	remap_create remap /dev/mapper/main /dev/spare 'block_size 8'
	sectors write "$dev" 0 16384 old
	check "the model of a new device has been asked" within 60 model_is '*'
	equal "a new device is good" 'good good -' "$(health health) $(health model) $(health exhaustion_days)"
	rate=$(health rate)
	equal "and says the same in its status" 'health=good exhaustion_days=-' \
		"$(remap_values remap health exhaustion_days)"

	one_of_64_is_timed

	fails_at 100
	check "a block that fails raises the rate" within 60 asked
	rate=$(health rate)
	# One at a time, or the model may be asked in between.
	for block in {200..207}; do
		fails_at "$block"
		check "another one, block $block, raises it more" within 60 asked
		rate=$(health rate)
	done
	check "the rate lies between its bounds" above "$rate" "$(health rate_low)"
	check "on both sides" above "$(health rate_high)" "$rate"
	remap remap add 8000 80
	refused "what a message relocates says nothing about main" above "$(health rate)" "$rate"

	dmsetup remove remap
	remap_create remap /dev/mapper/main /dev/spare
	check "the model is asked at the next activation" within 60 model_is '*'
	check "and has not forgotten what it learned" above "$(health rate)" "$(health rate_low)"
	check "it is no new one" above "$(health rate_high)" "$(awk "BEGIN { print $rate / 2 }")"

	remap remap add 0 $((520 * 8))
	check "half of the spare used is a reason to watch" within 60 level watch
	remap remap add 0 $((820 * 8))
	check "80 % to replace the disk" within 60 level replace
	remap remap add 0 $((960 * 8))
	check "95 % is critical" within 60 level critical
	check "for the model, too" within 60 model_is critical
	equal "the status says so" health=critical "$(remap_values remap health)"
	remap remap remove 0 16384
	check "it does not get better at once" level critical
}

# The latencies are those of one request of 64 on each of the two processors.
one_of_64_is_timed() {
	local timed
	remap remap stats reset
	dd if="$dev" of=/dev/null bs=4k count=1024 iflag=direct status=none
	timed=$(remap remap stats | sed -n 's/^main_read_us=//p' | tr , '\n' | awk '{ sum += $1 } END { print sum }')
	check "one read of 64 is timed ($timed of 1024)" test "$timed" -ge 14 -a "$timed" -le 18
	matches "which stats says" '^latency_sample=64$' "$(remap remap stats | grep sample)"
}

level() {
	[[ $(health health) == "$1" ]]
}

# model_is PATTERN: the model has been asked, and this is its level.
model_is() {
	local model
	model=$(health model)
	# shellcheck disable=SC2053 # It is a pattern.
	[[ -n $model && $model == $1 ]]
}

main
