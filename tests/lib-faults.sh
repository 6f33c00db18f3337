# shellcheck shell=bash
#
# What the scenarios share in which each thing fails that dm-remap asks of the kernel.

# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# fail_each KIND [REGEX]: fails everything of a kind, in the parts whose names match.
fail_each() {
	local verdict promise why status=0 total=0
	null_disk main 2
	null_disk first 1
	null_disk second 1
	load_module
	dmsetup create remap --table '0 8 linear /dev/main 0'
	while IFS=$'\t' read -r verdict promise why; do
		if [[ $verdict == total ]]; then
			total=$why
			continue
		fi
		report "$verdict" "$promise"
		[[ -z $why ]] || explain "$why"
	done < <("$(dirname "${BASH_SOURCE[0]}")/faults.py" "$@")
	wait $! || status=$?
	equal "all parts were tried" 0 "$status"
	check "$total $1 failed" test "$total" -gt 0
}
