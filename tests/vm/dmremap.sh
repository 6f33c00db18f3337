#!/bin/bash
#
# dmremap and the module agree about what is on spares, and dmremap keeps its hands off those that
# a device uses.
#
# vm: --cpus 1

# shellcheck source=lib-interface.sh
. /tests/lib-interface.sh

null_disk main 64 1000-1003
null_disk spare0 8
null_disk spare1 8
load_module
main=$(blockdev --getsz /dev/main)
spares=(/dev/spare0 /dev/spare1)

# two_spares [FEATURE...]: makes /dev/mapper/remap.
two_spares() {
	dmsetup create remap --table "0 $main remap /dev/main 2 ${spares[*]} $*"
}

# status_of COMMAND...: prints the status that COMMAND ends with.
status_of() {
	local status=0
	"$@" >/dev/null 2>&1 || status=$?
	printf '%s\n' "$status"
}

# relocations: prints what dmremap lists as the message does.
relocations() {
	dmremap dump "${spares[@]}" | sed '1,/^relocations /d'
}

# says TEXT COMMAND...: COMMAND fails, and TEXT is a part of what it says.
says() {
	local output
	! output=$("${@:2}" 2>&1) || return 1
	printf '%s\n' "$output"
	[[ $output == *$1* ]]
}

# --- A set that the module makes ---

equal "spares that are all zero are no set" 8 "$(status_of dmremap check "${spares[@]}")"
two_spares 1 manual
remap remap add 0 2000
remap remap remove 512 64
remap remap set scan_rate 4711
sectors write /dev/mapper/remap 1000 2 new
remap remap list >/tmp/list
check "a set in use is clean while nothing changes" dmremap check "${spares[@]}"
matches "and it is said that it is in use" 'spare1 is in use' "$(dmremap check "${spares[@]}")"
equal "while a set is in use, its blocks are those of the message list" "$(</tmp/list)" "$(relocations)"
unchanged=$(contents "${spares[@]}")
check "a spare in use is not repaired" says 'is in use' dmremap repair "${spares[@]}"
check "a spare in use is not made one of another set" \
	says 'is in use' dmremap format --force --main "$main" "${spares[@]}"
check "one spare in use among others is enough for that" \
	says 'is in use' dmremap format --force --main "$main" /dev/main /dev/spare1
equal "nothing was written to them" "$unchanged" "$(contents "${spares[@]}")"
dmsetup remove remap
equal "after it, too" "$(</tmp/list)" "$(relocations)"
equal "a set that the module has made is clean" 0 "$(status_of dmremap check --main /dev/main "${spares[@]}")"
equal "it is that of its main only" 8 "$(status_of dmremap check --main /dev/spare0 "${spares[@]}")"
equal "what was set is shown, and how many blocks have moved" '4711 250 8' \
	"$(dmremap dump --format json "${spares[@]}" | jq -r '"\(.scan_rate) \(.relocated) \(.removed)"')"

# --- One that dmremap repairs ---

# damage: makes a copy of each superblock bad, of the slot pages that are in use, and a witness page.
damage() {
	dd if=/dev/urandom of=/dev/spare0 bs=4096 count=3 conv=fsync status=none
	dd if=/dev/urandom of=/dev/spare1 bs=4096 seek=$((8 * 256 - 1)) count=1 conv=fsync status=none
}

damage
equal "what can be mended is told apart" 1 "$(status_of dmremap check "${spares[@]}")"
equal "it is mended" 1 "$(status_of dmremap repair "${spares[@]}")"
equal "nothing is left to mend" 0 "$(status_of dmremap repair "${spares[@]}")"
unchanged=$(contents "${spares[@]}")
two_spares
equal "the module has nothing to mend after it" "$unchanged" "$(contents "${spares[@]}")"
equal "and finds the same blocks" "$(</tmp/list)" "$(remap remap list)"
check "with what was written" sectors holds /dev/mapper/remap 1000 2 new
dmsetup remove remap
damage
two_spares
dmsetup remove remap
equal "what the module has mended is clean" 0 "$(status_of dmremap check "${spares[@]}")"

# --- One that dmremap makes ---

unchanged=$(contents "${spares[@]}")
check "the spares of a set are not made another one" \
	says 'holds spare 0 of the set' dmremap format --main /dev/main "${spares[@]}"
mke2fs -q -t ext4 /dev/spare1
check "nor is a filesystem" says 'holds ext4' dmremap format --main /dev/main /dev/spare1
mount /dev/spare1 /mnt
check "one that is mounted not even by force" \
	says 'is in use' dmremap format --force --main /dev/main /dev/spare1
umount /mnt
check "by force they are" dmremap format --force --main /dev/main --main-id wwn-1 "${spares[@]}"
equal "what was made is clean" 0 "$(status_of dmremap check --main /dev/main "${spares[@]}")"
equal "no block of the old set is left" '' "$(relocations)"
made=$(dmremap dump "${spares[@]}")
check "the module takes it" two_spares 2 main_id wwn-1
equal "as it is" "$made" "$(dmremap dump "${spares[@]}")"
equal "without blocks" 'used=0' "$(remap_values remap used)"
remap remap add 4096 100
dmsetup remove remap
equal "and uses it" 13 "$(dmremap dump --format json "${spares[@]}" | jq '.relocations | length')"
check "the set is for main with this name only" \
	is_not_activated 'main_id is not wwn-1' "0 $main remap /dev/main 2 ${spares[*]} 2 main_id wwn-2"

# The layout is that of a set that the module makes.
layout='[.main_sectors, .block_size, [.spares[] | [.slots, .superblock]]]'
layout+=' | del(.. | .sequence?)'
by_tool=$(dmremap format --force --main /dev/main "${spares[@]}" >/dev/null &&
	dmremap dump --format json "${spares[@]}" | jq -c "$layout")
blkdiscard -z /dev/spare0
blkdiscard -z /dev/spare1
two_spares
dmsetup remove remap
equal "both lay out a set alike" "$by_tool" "$(dmremap dump --format json "${spares[@]}" | jq -c "$layout")"
