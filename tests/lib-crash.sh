# shellcheck shell=bash
#
# What scenarios share that replay the states which a crash may leave; see crash.py.
# Their arguments are how many times as much work as usual is done, and the seed of an
# earlier run: the work is the same then, but what runs beside it may take another turn.

# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

effort=${1:-1} seed=${2:-$RANDOM}
modprobe dm-log-writes
load_module
# The kernel log tells of each activation, which takes longer than it.
dmesg -n 5

# replayed WHAT BAD OPTION...: one series of work and its crashes, on a main with some bad
# sectors, or none.
replayed() {
	local output status=0 name
	keep_pools
	null_disk base 4
	null_disk record 64
	for name in replay{0..3}; do
		special_disk "$name" size=1 queue_mode=0
	done
	[[ -z $2 ]] || null_bad base "$2"
	output=$(/tests/crash.py --bad "$2" --seed "$seed" --rounds $((2 * effort)) "${@:3}" 2>&1) || status=$?
	equal "no crash loses anything, $1 (seed $seed)" 0 "$status"
	explain "$output"
	within 60 remove_mapped
	for name in base record replay{0..3} kept{0,1}; do
		rmdir "/sys/kernel/config/nullb/$name"
	done
}
