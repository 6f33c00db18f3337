#!/bin/bash
#
# tests/run counts right, and no test that did not do its work passes.

# shellcheck source=tap.sh
. "$(dirname "$0")/../tap.sh"

harness=$(dirname "$0")/../harness.pl

# verdict FIXTURE: prints the last line for it and the status of the run.
verdict() {
	local status=0 output
	output=$("$harness" 1 "harness/fixtures/$1" 2>&1) || status=$?
	printf '%s, status %d\n' "$(tail -n 1 <<<"$output")" "$status"
}

equal "checks that hold pass" "2 passed, 0 failed, status 0" "$(verdict passes)"
equal "a check that does not hold fails" "1 passed, 1 failed, status 1" "$(verdict fails)"
equal "a test that ends early fails" "1 passed, 1 failed, status 1" "$(verdict ends-early)"
equal "a test without a check fails" "0 passed, 1 failed, status 1" "$(verdict checks-nothing)"
equal "a check that fails by a signal was not refused" "0 passed, 1 failed, status 1" "$(verdict is-killed)"
equal "a test that is not there fails" "0 passed, 1 failed, status 1" "$(verdict is-not-there)"
