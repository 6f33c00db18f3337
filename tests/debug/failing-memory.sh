#!/bin/bash
#
# Every allocation of memory fails once, in each part of the life of a device: it refuses or
# goes on without, says why, keeps nothing, and loses nothing.

# shellcheck source=lib-faults.sh
. /tests/lib-faults.sh

fail_each memory "${2-}"
