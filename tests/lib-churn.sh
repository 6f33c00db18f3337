# shellcheck shell=bash
#
# What scenarios share that write, read and move sectors all at once.  Their first
# argument says how many times as long as usual they run; tests/run takes it from
# DM_REMAP_EFFORT.

# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# shellcheck disable=SC2034 # For the scenarios.
effort=${1:-1}

# busy_disk NAME MIB: makes the disk /dev/NAME, whose requests take a while, so that
# there are always some under way.
busy_disk() {
	null_disk "$1" "$2" '' irqmode=2 completion_nsec=50000 submit_queues=2
}

# begin_churn NAME MAIN SPARE... [OPTION...]: has churn.py run until end_churn.
begin_churn() {
	/tests/churn.py run "$@" --seconds 0 >/tmp/churn 2>&1 &
	churning=$!
	within 300 churn_begins
}

# churn_begins: it has begun, or will not any more: end_churn says why.
churn_begins() {
	grep -q begins /tmp/churn || [[ ! -e /proc/$churning ]]
}

# stop_churn: ends it, and succeeds when all that it looked at was right.
stop_churn() {
	kill -TERM "$churning"
	wait "$churning"
}

# end_churn PROMISE: ends it, and all that it looked at must be right.
end_churn() {
	local status=0
	stop_churn || status=$?
	equal "$1" 0 "$status"
	explain "$(</tmp/churn)"
}
