# shellcheck shell=bash
#
# What scenarios share whose main has sectors that can be read at the third attempt only.

# shellcheck source=lib-failing.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib-failing.sh"

# weak_disk MIB: makes the disk /dev/nbd0; see weak.py.
weak_disk() {
	modprobe nbd nbds_max=1
	mkfifo /tmp/weak-commands /tmp/weak-answers
	"$(dirname "${BASH_SOURCE[0]}")/weak.py" /dev/nbd0 "$1" </tmp/weak-commands >/tmp/weak-answers &
	exec {weak_command}>/tmp/weak-commands {weak_answer}</tmp/weak-answers
	within 60 weak_disk_has $(($1 * 2048))
}

weak_disk_has() {
	[[ $(blockdev --getsz /dev/nbd0) == "$1" ]]
}

# weak COMMAND [NUMBER...]: has the disk carry out a command, and prints the answer of one that
# asks for something.
weak() {
	local answer=
	printf '%s\n' "$*" >&"$weak_command"
	read -r answer <&"$weak_answer" || answer='weak.py ended'
	case $answer in
	ok) ;;
	[0-9]*) printf '%s\n' "$answer" ;;
	*)
		echo "$answer"
		return 1
		;;
	esac
}
