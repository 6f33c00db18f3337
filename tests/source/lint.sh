#!/bin/bash
#
# The source is as it should be before anything of it runs.

# shellcheck source=tap.sh
. "$(dirname "$0")/../tap.sh"

check "nothing is to be said about format, lints, scripts and where unsafe code stands" \
	"$(dirname "$0")/../../scripts/lint"
