#!/bin/bash
#
# Messages that take long, and many messages at once.  An interrupted one ends soon;
# what it has done stays done, and is durable.
#
# races: possible

# shellcheck source=lib-churn.sh
. /tests/lib-churn.sh

size=131072
blocks=20000
dev=/dev/mapper/remap

message() {
	dmsetup message remap 0 "$@"
}

# list: the relocated blocks without their times.
list() {
	message list | cut -d ' ' -f 1-6
}

activate() {
	remap_create remap /dev/mapper/main /dev/spare 'block_size 1'
}

# slow_down: main takes so long for a block that no message comes to its end, however fast the
# machine is.  speed_up: it does not.
slow_down() { change_main "delay /dev/disk 0 50"; }
speed_up() { change_main "linear /dev/disk 0"; }

change_main() {
	dmsetup reload main --table "0 $size $1"
	dmsetup suspend --noflush main
	dmsetup resume main
}

# is_at_work: a message has relocated some blocks for good, while none were before; used counts
# those on their way, too.
is_at_work() {
	[[ $(remap_status remap relocated) -gt $(remap_status remap removed) ]]
}

# is_unfinished: there are blocks that are not relocated.
is_unfinished() {
	[[ $(remap_status remap used) -lt $blocks ]]
}

# interrupt SIGNAL MESSAGE: sends the message, and prints with which errno it ended.
interrupt() {
	slow_down
	/tests/interrupt.py remap "$1" "$2"
	speed_up
}

# kill_dmsetup SIGNAL: kills a dmsetup that relocates all blocks.
kill_dmsetup() {
	local relocating status=0
	message remove 0 "$size"
	slow_down
	dmsetup message remap 0 add 0 "$blocks" &
	relocating=$!
	within 60 is_at_work
	kill "-$1" "$relocating"
	# The shell would report that it was killed.
	wait "$relocating" 2>/dev/null || status=$?
	equal "dmsetup is gone after SIG$1" $((128 + $(kill -l "$1"))) "$status"
	check "it has not done its work before" is_unfinished
	speed_up
}

# is_consistent WHEN: after an interrupted message everything is in order.
is_consistent() {
	local used before
	used=$(remap_status remap used)
	check "a part of the blocks is relocated, $1" test "$used" -gt 0 -a "$used" -lt "$blocks"
	equal "the device is as good as before, $1" rw "$(remap_status remap mode)"
	before=$(list)
	dmsetup remove remap
	activate
	equal "what was done is there after the next activation, $1" "$before" "$(list)"
	check "the device reads as the list says, $1" /tests/places.py remap /dev/disk /dev/spare
	check "nothing was lost, $1" cmp "$dev" /tmp/data
}

takes_turns() {
	local relocating status=0
	message remove 0 "$size"
	slow_down
	message add 0 "$blocks" &
	relocating=$!
	within 60 is_at_work
	check "another message is carried out while a long one is at work" message add 120000
	equal "its effect can be seen at once" "120000 1 0" \
		"$(message list 120000 | cut -d ' ' -f 1-3)"
	check "the long one is still at work" is_unfinished
	speed_up
	wait "$relocating" || status=$?
	equal "a long message ends well when it is let" 0 "$status"
	equal "both have done their work" $((blocks + 1)) "$(remap_status remap used)"
}

gives_way() {
	local relocating status=0
	message remove 0 "$size"
	slow_down
	message add 0 "$blocks" >/tmp/answer 2>&1 &
	relocating=$!
	within 60 is_at_work
	dmsetup suspend remap
	check "a suspend does not wait for a long message" is_unfinished
	dmsetup resume remap
	speed_up
	wait "$relocating" || status=$?
	matches "the message ends with EBUSY" 'Device or resource busy' "$(</tmp/answer)"
	is_consistent "after a suspend"
}

null_disk disk $((size / 2048))
null_disk spare 64
modprobe dm-delay
dmsetup create main --table "0 $size linear /dev/disk 0"
activate
dd if=/dev/urandom of=/tmp/data bs=1M count=64 status=none
dd if=/tmp/data of="$dev" bs=1M oflag=direct status=none

equal "a long message ends with EINTR after SIGINT" EINTR "$(interrupt SIGINT "add 0 $blocks")"
is_consistent "after SIGINT"
kill_dmsetup TERM
kill_dmsetup KILL
is_consistent "after SIGKILL"
takes_turns
message remove 120000
equal "removing is interrupted, too" EINTR "$(interrupt SIGTERM "remove 0 $blocks")"
is_consistent "after an interrupted remove"
gives_way

message remove 0 "$size"
check "messages of all kinds from many processes do not disturb each other" \
	/tests/messages.py remap $((10 * effort))
check "afterwards the device reads as the list says" /tests/places.py remap /dev/disk /dev/spare
check "and has its data" cmp "$dev" /tmp/data
