#!/bin/bash
#
# The module is what device mapper looks for when a table has the target remap, and the
# integrity subsystem measures what is mapped in the kernel's form.
#
# Only the stock kernel has that subsystem.
#
# kernel: stock

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

ima=/sys/kernel/security/integrity/ima

scenario() {
	ram_disks 5 1
	loading_by_itself
	measurements
}

loading_by_itself() {
	cp /dm-remap.ko "/lib/modules/$(uname -r)/"
	depmod
	equal "the licence lets it be a part of the kernel" GPL "$(modinfo -F license dm-remap)"
	refused "it is not loaded yet" test -d /sys/module/dm_remap
	check "device mapper loads the module by itself" \
		dmsetup create remap --table '0 2048 remap /dev/ram0 1 /dev/ram1'
	check "its name is dm_remap" test -d /sys/module/dm_remap
	equal "one module serves several devices" '' \
		"$(dmsetup create other --table '0 2048 remap /dev/ram2 1 /dev/ram3' 2>&1)"
	remap other add 0 80
	equal "each of which has its own state" 'used=0 relocated=0' "$(remap_values remap used relocated)"
	refused "the module cannot be unloaded while it is used" rmmod dm_remap
	dmsetup remove remap
	dmsetup remove other
	blkdiscard -z /dev/ram1
}

measurements() {
	local version
	mountpoint -q /sys/kernel/security || mount -t securityfs none /sys/kernel/security
	echo 'measure func=CRITICAL_DATA label=device-mapper' >"$ima/policy"
	version=$(dmsetup targets | sed -nE 's/^remap +v//p')

	dmsetup create remap --table '0 2048 remap /dev/ram0 2 /dev/ram1 /dev/ram4 7 manual block_size 8 main_id disk-1 read_retries 1'
	measured=$(measurement remap)
	matches "a table that is loaded is measured, with target and version" \
		"target_begin=0,target_len=2048,target_name=remap,target_version=${version//./\\.}(,[a-z0-9_]+=[^,;=]+)+;\$" \
		"$measured"
	matches "with main" ",main_device=$(</sys/block/ram0/dev)," "$measured"
	matches "with the first spare" ",spare_device_0=$(</sys/block/ram1/dev)," "$measured"
	matches "with the second spare" ",spare_device_1=$(</sys/block/ram4/dev)," "$measured"
	matches "with block_size" ",block_size=8[,;]" "$measured"

	dmsetup create short --table '0 2048 remap /dev/ram2 1 /dev/ram3'
	measured=$(measurement short)
	matches "the shortest form is measured" ",main_device=$(</sys/block/ram2/dev),spare_device_0=$(</sys/block/ram3/dev)[,;]" "$measured"
	refused "what is not known when a table is loaded is not made up" grep -E '[,;]block_size=0[,;]' <<<"$measured"
}

# measurement NAME: prints what was measured when the last table of a device was loaded.
measurement() {
	awk '$5 == "dm_table_load" { print $6 }' "$ima/ascii_runtime_measurements" | sed 's/../\\x&/g' |
		while IFS= read -r text; do
			printf '%b\n' "$text"
		done | grep "name=$1," | tail -n 1
}

scenario
