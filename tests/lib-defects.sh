# shellcheck shell=bash
#
# What tests of the debug kernels share: in_vm of lib-machine.sh with a module that has
# the defects for them to find.

# shellcheck source=lib-machine.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib-machine.sh"
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

# build_defects KIND: builds the module for the kernel of this kind.
build_defects() {
	local kernel output
	toolchain=$("$TOP/scripts/prepare-toolchain")
	kernel=$(prepared_kernel "$1")
	output=$TOP/build/defects-$(<"$kernel/release")
	locked "$(checkout_lock)" kernel_make "$kernel" --no-print-directory M="$TOP/tests/defects" \
		MO="$output" modules >&2
	# shellcheck disable=SC2034 # For in_vm.
	module=$output/dm_remap_defects.ko
}
