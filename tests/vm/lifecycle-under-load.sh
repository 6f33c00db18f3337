#!/bin/bash
#
# Suspend, resume, reload and remove at any moment, under load, while relocating: no
# request is lost, and none is answered twice.
#
# races: possible

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh

busy_disk main 16
busy_disk spare 32
busy_disk more 32

cycles() {
	/tests/cycles.py remap "$@"
}

# refusal MESSAGE: prints what dmsetup says when the message is refused.
refusal() {
	if timeout 60 dmsetup message remap 0 "$@" 2>&1; then
		echo accepted
	fi
}

refuses_messages() {
	local message
	dmsetup suspend remap
	for message in 'add 0' 'remove 0' 'set read_retries 4' sync; do
		matches "\"$message\" is refused while the device is suspended" \
			'Device or resource busy' "$(refusal "$message")"
	done
	check "status answers while the device is suspended" timeout 60 dmsetup status remap
	check "lookup, too" timeout 60 dmsetup message remap 0 lookup 0
	dmsetup resume remap
}

remap_create remap /dev/main /dev/spare
table=$(dmsetup table remap)
changed="$table 5 manual scan_rate 1000 read_retries 7"

begin_churn remap /dev/main /dev/spare /dev/more --count 1024 --writers 4 --readers 1 --span 12 --suspends
check "the device can be suspended and resumed, whatever goes on" \
	cycles $((100 * effort)) suspend
check "it can be reloaded with the same table" cycles $((40 * effort)) reload "$table"
check "and with changed feature arguments" \
	cycles $((40 * effort)) reload "$changed" "$table"
check "a table that is loaded and cleared again changes nothing" \
	cycles $((40 * effort)) clear "$changed" "$table"
refuses_messages
refused "a device in use cannot be removed" dmsetup remove --retry remap
# The load expects its own blocks to be where its own messages left them.
check "that does it no harm" dmsetup message remap 0 add 8192 8
dmsetup reload remap --table "$table 2 block_size 16"
refused "a reload with another block size is refused at the latest when it is resumed" \
	dmsetup resume remap
dmsetup reload remap --table "$table"
check "the device goes on with the table that it had" dmsetup resume remap
more="${table/ 1 / 2 } $(lsblk -dno MAJ:MIN /dev/more | tr -d ' ')"
dmsetup reload remap --table "$more"
check "a reload may add a spare" dmsetup resume remap
equal "both spares are there then" 2/2 "$(remap_status remap spares)"
end_churn "no write was lost, and no stale sector was read, through all of that"
dmsetup remove remap

# The set has two spares from now on.
activate() {
	dmsetup create remap --table "$more"
}

# comes_and_goes: load, and all of it is there when the device was removed and made again.
comes_and_goes() {
	local churn=(remap /dev/main /dev/spare /dev/more --count 512 --writers 2 --span 12
		--readers 1 --state /dev/shm/state)
	/tests/churn.py run "${churn[@]}" --seconds 1 && dmsetup remove remap && rmmod dm_remap &&
		load_module && activate && /tests/churn.py check "${churn[@]}"
}

activate
for ((turn = 1; turn <= 4 * effort; turn++)); do
	check "all is there after the device was removed, and the module unloaded, time $turn" \
		comes_and_goes
done

check "it can be removed while it is at work, and what was acknowledged is there when it comes back" \
	/tests/removals.py remap $((60 * effort)) "$more"

mkfs.ext4 -q /dev/mapper/remap
mount /dev/mapper/remap /mnt
begin_churn remap /dev/main /dev/spare /dev/more --count 32768 --writers 0 --readers 0 \
	--largest 128 --suspends
fio --output=/tmp/fio --directory=/mnt --rw=randwrite --bsrange=1k-64k --size=4m \
	--end_fsync=1 --verify=crc32c --verify_fatal=1 --name=file &
writing=$!
check "a filesystem is frozen by a suspend, or not, as it is asked for" \
	cycles $((40 * effort)) suspend
status=0
wait "$writing" || status=$?
equal "its file is read back as it was written" 0 "$status"
end_churn "while its blocks are moved"
umount /mnt
check "the filesystem is sound" e2fsck -fn /dev/mapper/remap
dmsetup remove remap
