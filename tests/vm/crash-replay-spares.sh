#!/bin/bash
#
# Crash safety with several spares, one of which is added, proved by replay as in
# crash-replay.sh; after each crash a spare may be missing, too.
#
# vm: --cpus 1

# shellcheck source=lib-crash.sh
. /tests/lib-crash.sh

replayed "with two spares and a third one" 98-105 --block 4 --steps 12 --tries 2 --spare 512 768 512 --grow
replayed "with three spares" 40-45 --manual --block 2 --main 256 --spare 512 768 512 --steps 6 --tries 2
