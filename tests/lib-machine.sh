# shellcheck shell=bash
#
# What tests of the virtual machine itself share: the checks of tap.sh, and in_vm.

# shellcheck source=tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

vm=$(dirname "${BASH_SOURCE[0]}")/../scripts/vm
module=
folder=$(mktemp -d)
at_end remove_folder
remove_folder() {
	rm -rf "$folder"
}

# in_vm [OPTION...] TEXT: runs the shell script TEXT in a virtual machine with the
# module $module, and sets status, output and errors.
in_vm() {
	printf '#!/bin/bash\n%s\n' "${@: -1}" >"$folder/script"
	status=0
	DM_REMAP_KO=$module "$vm" "${@:1:$#-1}" "$folder/script" one 'two words' \
		>"$folder/output" 2>"$folder/errors" || status=$?
	# A machine that came up at the second attempt only is as good as any.
	# shellcheck disable=SC2034 # Used by the tests that source this file.
	output=$(<"$folder/output") errors=$(sed '/^The machine did not come up:/d; /^Trying whether /d' "$folder/errors")
}
