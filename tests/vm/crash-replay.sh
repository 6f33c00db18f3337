#!/bin/bash
#
# Crash safety with one spare, proved by replay: each write and flush of main and spare is
# recorded while sectors are written and blocks move, and each state that a crash may leave is
# activated and compared with what was promised.
#
# vm: --cpus 1

# shellcheck source=lib-crash.sh
. /tests/lib-crash.sh

replayed "with blocks of 8 sectors" 98-105 --steps 24 --tries 2
replayed "with blocks of 1 sector" '' --manual --block 1 --main 256 --spare 512 --steps 20 --tries 2
