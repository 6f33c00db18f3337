#!/bin/bash
#
# Crash safety with several spares, one of which is added, proved by replay as in
# crash-replay.sh; after each crash a spare may be missing, too.
#
# vm: --cpus 1

# shellcheck source=lib-crash.sh
. /tests/lib-crash.sh

replayed "with three spares" 98-105 --block 4 --steps 12 --tries 2 --spare 512 768 512 --grow
replayed "with two spares" 40-45 --manual --block 2 --main 256 --spare 512 768 --steps 10 --tries 2
