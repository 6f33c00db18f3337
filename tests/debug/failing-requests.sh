#!/bin/bash
#
# Every request that dm-remap sends by itself to main or to a spare fails once: reads, writes
# and flushes of data and of metadata.  The device degrades as it says, and loses nothing.

# shellcheck source=lib-faults.sh
. /tests/lib-faults.sh

fail_each requests "${2-}"
