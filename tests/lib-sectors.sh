# shellcheck shell=bash
#
# What scenarios share that look at single sectors: what they hold, where they live,
# and whether the device and its numbers agree.

# shellcheck source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# One process carries out all commands, because to start one takes long.
# Subshells do not get the files of a coprocess, but they get copies.
coproc sectors_process { exec "$(dirname "${BASH_SOURCE[0]}")/sectors.py"; }
# shellcheck disable=SC2154
exec {sectors_answer}<&"${sectors_process[0]}" {sectors_command}>&"${sectors_process[1]}"

# sectors write|holds|zero|lost DEVICE FIRST COUNT [TEXT [AS]]: see sectors.py.
sectors() {
	local answer=
	printf '%s\n' "$*" >&"$sectors_command"
	read -r answer <&"$sectors_answer" || answer='sectors.py ended'
	[[ $answer == ok ]] || {
		echo "$answer"
		return 1
	}
}

# remap NAME VERB [ARGUMENT...]: sends a message, and prints the reply.
remap() {
	dmsetup message "$1" 0 "${@:2}"
}

# live_masks NAME: prints "<sector>:<live mask>" of every relocated block, in one line.
live_masks() {
	local list line masks=()
	list=$(remap "$1" list)
	[[ -n $list ]] || return 0
	while read -r -a line; do
		masks+=("${line[0]}:${line[4]}")
	done <<<"$list"
	printf '%s\n' "${masks[*]}"
}

# remap_values NAME KEY...: prints "<key>=<value>" for each KEY of the status.
remap_values() {
	local status key values=()
	status=$(dmsetup status "$1")
	for key in "${@:2}"; do
		[[ " $status " =~ \ ($key=[^ ]*)\  ]]
		values+=("${BASH_REMATCH[1]}")
	done
	printf '%s\n' "${values[*]}"
}

# spare_sector NAME SECTOR: prints where on its spare a sector lives.
spare_sector() {
	local place
	place=$(remap "$1" lookup "$2")
	[[ $place =~ ^spare\ [0-9]+\ ([0-9]+)\ [0-9a-f]+$ ]]
	printf '%s\n' "${BASH_REMATCH[1]}"
}

# agree NAME: the status of a device counts what its list shows: used= the blocks,
# and unreadable= the sectors that do not live on the spare.
agree() {
	local list line mask used=0 unreadable=0 listed counted
	list=$(remap "$1" list)
	while read -r -a line; do
		used=$((used + 1))
		unreadable=$((unreadable + line[1]))
		for ((mask = 0x${line[4]}; mask != 0; mask &= mask - 1)); do
			unreadable=$((unreadable - 1))
		done
	done < <([[ -z $list ]] || printf '%s\n' "$list")
	listed="used=$used unreadable=$unreadable"
	counted=$(remap_values "$1" used unreadable)
	[[ $counted == "$listed" ]] || {
		echo "the status says $counted, the list $listed"
		return 1
	}
}
