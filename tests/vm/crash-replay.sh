#!/bin/bash
#
# Crash safety, proved by replay.  Main and spare are parts of a disk of which each write
# and flush is recorded while sectors are written and blocks move.  From the record come
# the states that a crash may leave, and each of them is activated and compared with
# what was promised; see replay.py.  The arguments are how many times as much work as
# usual is done, and the seed of an earlier run.
#
# vm: --cpus 1

# shellcheck source=lib-sectors.sh
. /tests/lib-sectors.sh

effort=${1:-1} seed=${2:-$RANDOM}
main=1024 spare=2048
tracing=/sys/kernel/tracing event=events/block/block_bio_queue

# trace_flushes: from now on, traces the flushes of main and the spare, because the record
# does not say which of them a flush was for.
trace_flushes() {
	mountpoint -q "$tracing" || mount -t tracefs tracefs "$tracing"
	echo "($(is_device main) || $(is_device spare)) && nr_sector == 0" >"$tracing/$event/filter"
	echo >"$tracing/trace"
	echo 1 >"$tracing/$event/enable"
}

# is_device NAME: prints the condition that an event is about this device.
is_device() {
	printf 'dev == %d' $(($(stat -Lc '%t << 20 | 0x%T' "/dev/mapper/$1" | sed 's/^/0x/')))
}

# list_flushes: prints for each flush "main" or "spare", and ends the trace.
list_flushes() {
	echo 0 >"$tracing/$event/enable"
	sed -n "s/.* block_bio_queue: $(dmsetup info -c --noheadings --separator , -o major,minor main) .*/main/p
		s/.* block_bio_queue: .*/spare/p" "$tracing/trace"
}

# recorded_work BLOCK BAD: works on a set, and leaves the record on /dev/record.
recorded_work() {
	dmsetup create log --table "0 $((main + spare)) log-writes /dev/base /dev/record"
	dmsetup create main --table "0 $main linear /dev/mapper/log 0"
	dmsetup create spare --table "0 $spare linear /dev/mapper/log $main"
	trace_flushes
	remap_create remap /dev/mapper/main /dev/mapper/spare manual "block_size $1"
	/tests/replay.py work remap log /dev/shm/notes --block "$1" --bad "$2" --seed "$seed" \
		--steps $((30 * effort))
	dmsetup remove remap
	list_flushes >/dev/shm/flushes
	dmsetup remove main
	dmsetup remove spare
	dmsetup remove log
}

# replayed BLOCK BAD: one record and its states, with a range of bad sectors on main, or none.
replayed() {
	local output status=0 name
	null_disk base 2
	null_disk record $((256 * effort))
	null_disk replaymain 1 "$2"
	null_disk replayspare 1
	# Whatever the spare held before must never be seen.
	sectors write /dev/base $((main + 8)) $((spare - 16)) stale
	head -c $(((main + spare) * 512)) /dev/base >/dev/shm/initial
	[[ -z $2 ]] || null_bad base "$2"
	output=$(recorded_work "$@")
	explain "$output"
	dmsetup create replaypart --table "0 $main linear /dev/replaymain 0"
	dmsetup create replay --table "0 $main error"
	output=$(/tests/replay.py check /dev/shm/notes /dev/record /dev/shm/flushes /dev/shm/initial \
		replay /dev/mapper/replaypart /dev/replayspare --seed "$seed" 2>&1) || status=$?
	equal "no crash loses anything, with blocks of $1 sectors (seed $seed)" 0 "$status"
	explain "$output"
	dmsetup remove replay
	dmsetup remove replaypart
	for name in base record replaymain replayspare; do
		rmdir "/sys/kernel/config/nullb/$name"
	done
}

replayed 8 96-109
replayed 1 ''
