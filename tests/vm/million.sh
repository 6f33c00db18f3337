#!/bin/bash
#
# A million relocated blocks: a message makes them, the next activation finds them again, data
# is where it was, and each takes 24 bytes of memory at most.
#
# A kernel that checks its memory adds to each piece of it what it remembers of that.
#
# kernel: stock
# vm: --mem 3072

# shellcheck source=lib.sh
. /tests/lib.sh

blocks=$((1 << 20)) seed=${2:-$RANDOM} status=0
ram_disks 2 700
load_module
output=$(/tests/million.py "$blocks" "$seed" "0 $blocks remap /dev/ram0 1 /dev/ram1 3 manual block_size 1" 2>&1) ||
	status=$?
equal "a million blocks are relocated, and found again (seed $seed)" 0 "$status"
explain "$output"
