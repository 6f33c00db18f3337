#!/bin/bash
#
# What reads metadata, table lines and messages, fed with input that nobody thought of: nothing
# panics, nothing overflows, and what is accepted keeps the rules.  DM_REMAP_EFFORT is how
# many times as many inputs as usual are tried.

# shellcheck source=tap.sh
. "$(dirname "$0")/../tap.sh"

fuzz=$(dirname "$0")/../../scripts/fuzz
effort=${DM_REMAP_EFFORT:-1}

# fuzzed TARGET INPUTS
fuzzed() {
	local inputs=$(($2 * effort))
	check "$inputs inputs find no fault in the target $1" "$fuzz" --runs "$inputs" "$1"
}

refused "a fault that is there is found" "$fuzz" --runs 5000000 planted
fuzzed superblock 100000
fuzzed slot-page 100000
fuzzed set 100000
fuzzed table-line 500000
fuzzed message 500000
