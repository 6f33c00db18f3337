#!/bin/bash
#
# Verified random I/O of all sizes on blocks that are relocated and brought back
# thousands of times.  A write that was acknowledged stays readable through that.
#
# races: possible

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh

# load ROUND [OPTION...]: random writes, each verified soon after it and at the end, by
# two jobs that have an area each.
load() {
	fio --output=/tmp/fio --filename=/dev/mapper/remap --direct=1 --rw=randwrite \
		--bsrange=512-64k --bssplit=512/30:1k/10:4k/30:8k/10:64k/20 \
		--size=2m --offset_increment=2m --iodepth=8 --randseed="$1" \
		--verify=crc32c --verify_fatal=1 --group_reporting "${@:2}" \
		--name=libaio --ioengine=libaio --name=io_uring --ioengine=io_uring --offset=2m ||
		{
			cat /tmp/fio
			return 1
		}
}

# moved: how often a block was relocated or brought back.
moved() {
	echo $(($(remap_status remap relocated) + $(remap_status remap removed)))
}

busy_disk main 8
busy_disk spare 16
remap_create remap /dev/main /dev/spare

begin_churn remap /dev/main /dev/spare --count 8192 --writers 0 --readers 0 --movers 2 --largest 32
round=0
until ((round >= 3 * effort && $(moved) > 2000)); do
	round=$((round + 1))
	check "everything that was written is read back while its blocks move, round $round" \
		load "$round" --verify_backlog=16
done
end_churn "all the while, messages relocate blocks and bring them back"
check "everything is still there when no block moves any more" \
	load "$round" --verify_only
check "the device reads as the list of relocated blocks says, sector by sector" \
	/tests/places.py remap /dev/main /dev/spare
equal "no request has failed" '0 0 0 0' \
	"$(remap_status remap read_errors) $(remap_status remap write_errors) $(
		remap_status remap other_errors) $(remap_status remap meta_errors)"
check "all blocks can be brought back to main" dmsetup message remap 0 remove 0 16384
equal "none is relocated then" 0 "$(remap_status remap used)"
check "main alone has everything" cmp /dev/mapper/remap /dev/main
