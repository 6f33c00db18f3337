#!/bin/bash
#
# On the kernel that looks for data races no run passes in which a Rust module had one.
#
# races: possible

# shellcheck source=lib-defects.sh
. "$(dirname "$0")/../lib-defects.sh"

build_defects kcsan

in_vm --kcsan-kernel 'insmod /dm-remap.ko plain=1 && rmmod dm_remap_defects'
equal "plain additions on two processors fail the run" 125 "$status"
matches "it is shown where they are" '!! .*BUG: KCSAN: data-race in .*add_plain' "$errors"

in_vm --kcsan-kernel 'insmod /dm-remap.ko atomic=1 && rmmod dm_remap_defects && nproc'
equal "atomic ones do not" 0 "$status"
equal "there were two processors" 2 "$output"
