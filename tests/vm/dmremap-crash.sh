#!/bin/bash
#
# dmremap may be interrupted: whatever a crash leaves of a repair or of a new set, another repair
# mends, and no block is lost.  The second argument is the seed of an earlier run.
#
# vm: --cpus 1

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

seed=${2:-$RANDOM}
null_disk base 3
null_disk record 64
null_disk replay0 1
null_disk replay1 1

# interrupted PROMISE VERB
interrupted() {
	local output status=0
	output=$(/tests/tool_crash.py "$2" "$seed" 2>&1) || status=$?
	equal "$1 (seed $seed)" 0 "$status"
	explain "$output"
}

interrupted "a set that is being made can be made to the end" format

# A set with blocks on all slot pages, and an older state of it, for what is outdated.
flat main /dev/base 1024
flat spare0 /dev/base 2048 1024
flat spare1 /dev/base 2048 3072
load_module
dmsetup create remap --table "0 1024 remap /dev/mapper/main 2 /dev/mapper/spare0 /dev/mapper/spare1 1 manual"
remap remap add 0 512
blockdev --flushbufs /dev/base
cp /dev/base /dev/shm/older
remap remap add 512 256
remap remap set scan_rate 4711
for name in remap main spare0 spare1; do
	dmsetup remove "$name"
done
blockdev --flushbufs /dev/base

interrupted "a repair can be repeated" repair
