# shellcheck shell=bash
#
# Checks for test scripts.  Each says in words what is promised, and is counted by
# tests/run:
#
#	check PROMISE COMMAND...		COMMAND succeeds
#	refused PROMISE COMMAND...		COMMAND fails by itself, not by a signal
#	equal PROMISE EXPECTED ACTUAL		two texts are the same
#	matches PROMISE REGEX TEXT		a text matches a regular expression
#
# Any other command that fails ends the script, which is then a failed test, and
# so is a script without a check.

set -Eeuo pipefail
shopt -s inherit_errexit

checks=0 failures=0

check() {
	local promise=$1 output status=0
	shift
	output=$("$@" 2>&1) || status=$?
	if [[ $status -eq 0 ]]; then
		report ok "$promise"
	else
		report 'not ok' "$promise"
		explain "command: $*" "status: $status" "$output"
	fi
}

refused() {
	local promise=$1 output status=0
	shift
	output=$("$@" 2>&1) || status=$?
	if [[ $status -gt 0 && $status -lt 126 ]]; then
		report ok "$promise"
	else
		report 'not ok' "$promise"
		explain "command: $*" "status: $status" "$output"
	fi
}

equal() {
	if [[ $2 == "$3" ]]; then
		report ok "$1"
	else
		report 'not ok' "$1"
		explain "expected: $2" "actual: $3"
	fi
}

matches() {
	if [[ $3 =~ $2 ]]; then
		report ok "$1"
	else
		report 'not ok' "$1"
		explain "expected: $2" "actual: $3"
	fi
}

# within SECONDS COMMAND...: repeats COMMAND until it succeeds, at most SECONDS.
within() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[[ $SECONDS -lt $end ]] || return 1
		sleep 0.1
	done
}

# report ok|"not ok" PROMISE: the primitive of all checks.
report() {
	checks=$((checks + 1))
	[[ $1 == ok ]] || failures=$((failures + 1))
	printf '%s %d - %s\n' "$1" "$checks" "${2//#/\\#}"
}

# explain TEXT...: says more about the check before.
explain() {
	printf '%s\n' "$@" | sed 's/^/#   /'
}

# at_end COMMAND: has COMMAND called when the script ends, the last one first.
at_end() {
	end_commands=("$1" "${end_commands[@]}")
}
end_commands=()

finish() {
	local status=$? command
	trap - EXIT ERR
	for command in "${end_commands[@]}"; do
		"$command"
	done
	if [[ $status -ne 0 ]]; then
		explain "the script ended early, with status $status"
	elif [[ $checks -gt 0 ]]; then
		printf '1..%d\n' "$checks"
	fi
	[[ $status -ne 0 || $failures -eq 0 ]] || status=1
	exit "$status"
}

trap finish EXIT
trap 'explain "line $LINENO of ${BASH_SOURCE[0]##*/} failed: $BASH_COMMAND"' ERR
