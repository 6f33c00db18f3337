#!/bin/bash
#
# Requests of all kinds, messages, suspends, reloads, and faults of main and of the spares, all
# at once and at random, against a model of what every sector may hold.
#
# The episodes begin with the same seed each time: the second argument, if there is one.
# `make stress` plays others, for longer, and a single one again.
#
# ci: debug-kernel
# races: possible

# shellcheck source=lib.sh
. /tests/lib.sh

# Main is a mapped disk in the first episode, a SCSI disk in the second, and a disk in memory in the third, if there is time
# for that; each has several spares.
effort=${1:-1} seed=${2:-555}

status=0
/tests/stress.py --seconds $((20 * effort)) --seed "$seed" >/tmp/stress 2>&1 || status=$?
equal "whatever happens at the same time, no sector holds what it must not, and nothing fails without a reason" \
	0 "$status"
explain "$(</tmp/stress)"
