#!/bin/bash
#
# scripts/vm tells the truth: what a script did in the virtual machine arrives, and
# no run in which the machine failed passes for a good one.

# shellcheck source=lib-machine.sh
. "$(dirname "$0")/../lib-machine.sh"

mkdir "$folder/out"
# shellcheck disable=SC2016 # The words are for the script in the machine.
VM_OUT=$folder/out in_vm '
	echo "$#: $1, $2"
	seq 100000 >/dev/stdout
	echo error >&2
	echo result >/out/file
	sleep 1000 &
	exit 7
'
equal "the status is the script's" 7 "$status"
equal "the output is the script's, and all of it" \
	"$(echo '2: one, two words'; seq 100000; echo error)" "$output"
equal "nothing is said about a machine without fault" '' "$errors"
equal "what the script left in /out comes back" result "$(cat "$folder/out/file")"

in_vm 'echo "WARNING: CPU: 0 PID: 1 at drivers/md/dm.c:1" >/dev/kmsg'
equal "a warning of the kernel fails a script that succeeded" 125 "$status"
matches "the warning is shown" '!! .*WARNING: CPU: 0' "$errors"

# data_race FUNCTION...: a script that says what the kernel says of a data race of the first FUNCTION,
# which the others have called.
data_race() {
	printf 'echo "%s" >/dev/kmsg\n' "BUG: KCSAN: data-race in one / two" " one+0x10/0x20" \
		"write to 0xffff888000000000 of 8 bytes by task 1 on cpu 0:" "${@/#/ }" \
		"Reported by Kernel Concurrency Sanitizer on:"
}
in_vm "$(data_race 'two+0x10/0x20 [dm_remap]')"
equal "a data race of the module fails a script that succeeded" 125 "$status"
matches "it is shown" '!! .*BUG: KCSAN: data-race in one' "$errors"
in_vm "$(data_race 'two+0x10/0x20 [dm_mod]' three+0x10/0x20 four+0x10/0x20 'five+0x10/0x20 [dm_remap]')"
equal "one of the kernel alone does not" 0 "$status"

# shellcheck disable=SC2016 # The words are for the script in the machine.
in_vm '
	echo "WARNING: CPU: 0 PID: 1 at drivers/md/dm.c:1" >/dev/kmsg
	for line in {1..4000}; do echo "$line: the kernel goes on to say much" >/dev/kmsg; done
'
equal "it fails it also when a long log follows" 125 "$status"

in_vm 'echo l >/proc/sysrq-trigger; exit 3'
equal "a script that failed keeps its status beside a backtrace in the log" 3 "$status"
matches "the backtrace is shown" '!! .*Call Trace' "$errors"

in_vm 'echo 64 >/proc/sys/kernel/tainted'
equal "a tainted kernel fails a script that succeeded" 125 "$status"
matches "the taint is named" 'the kernel is tainted: 64' "$errors"

in_vm 'echo b >/proc/sysrq-trigger; sleep 100'
equal "a machine that ends without a word has failed" 125 "$status"

in_vm 'echo c >/proc/sysrq-trigger'
equal "a machine that panics has failed" 125 "$status"
matches "the panic is shown" '!! .*Kernel panic' "$errors"

in_vm --timeout 20 'sleep 1000'
equal "a machine that does not finish has failed" 125 "$status"
matches "that is said" 'did not finish within 20 s' "$errors"

# cut_power: ends the machine as soon as the script has written.
cut_power() {
	printf '#!/bin/bash\necho kept | dd of=/dev/vda bs=512 conv=sync oflag=direct status=none\n%s\n' \
		'echo written; sleep 1000' >"$folder/script"
	truncate -s 1M "$folder/disk"
	DM_REMAP_KO='' "$vm" --disk "$folder/disk" "$folder/script" >"$folder/output" &
	local machine=$!
	within 600 grep -q written "$folder/output"
	kill -TERM "$machine"
	status=0
	wait "$machine" || status=$?
}
cut_power
equal "SIGTERM ends the machine" 143 "$status"
equal "what was on the disk is kept" kept "$(head -n 1 "$folder/disk")"
