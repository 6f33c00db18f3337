# shellcheck shell=bash
#
# What every script here shares.  Source it first:
#
#	. "$(dirname "$0")/common.sh"
#
# Everything that is made (chroots, kernels, images) lives below $CACHE, each
# thing in a folder keyed by what it was made from.  A thing is made under a
# temporary name and renamed when it is complete, so an interrupted run leaves
# nothing that could be taken for whole.

set -euo pipefail
shopt -s inherit_errexit

# shellcheck disable=SC2034 # Used by the scripts that source this file.
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${DM_REMAP_CACHE:-/var/cache/dm-remap}

# The release of Debian whose kernel and tool chain are used.
SUITE=trixie

# What it takes to build a module.
# shellcheck disable=SC2034 # Used by the scripts that source this file.
KERNEL_PACKAGES=(
	bc bindgen bison clang-19 cpio flex gcc-14 kmod libclang-19-dev libdw-dev libelf-dev
	librust-bitflags-dev libssl-dev lld-19 llvm-19 make openssl pahole python3 rsync
	rust-clippy rust-src rustc rustfmt xz-utils zstd
)

# Folders that root_run binds into the chroot: (SOURCE:DESTINATION ...).
ROOT_BINDS=()

# Standard output is for results, so progress goes to standard error.
say() {
	printf '%s\n' "$*" >&2
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

need_root() {
	[[ $EUID -eq 0 ]] || die "this needs root, to make chroots and to mount inside them"
}

# locked NAME COMMAND...: runs COMMAND, which may be a function, while no other
# process runs one under the same NAME.  COMMAND must not take NAME again.
locked() {
	local name=$1
	shift
	mkdir -p "$CACHE/locks"
	(
		flock 9
		"$@" 9>&-
	) 9>"$CACHE/locks/$name"
}

# host_packages PACKAGE...: installs on the machine itself what is missing.
host_packages() {
	local missing
	mapfile -t missing < <(missing_packages "$@")
	[[ ${#missing[@]} -gt 0 ]] || return 0
	need_root
	say "Installing ${missing[*]} on this machine."
	host_apt install "${missing[@]}" || {
		host_apt update
		host_apt install "${missing[@]}"
	} || die "the packages ${missing[*]} could not be installed on this machine"
}

# need_packages PACKAGE...: refuses to go on when one is missing on the machine.
need_packages() {
	local missing
	mapfile -t missing < <(missing_packages "$@")
	[[ ${#missing[@]} -eq 0 ]] || die "this machine lacks these packages: ${missing[*]}"
}

# checkout_lock: prints the name of the lock for what is built in this checkout: two runs
# would write the same files.
checkout_lock() {
	printf 'build-%s\n' "$(sha256sum <<<"$TOP" | cut -c 1-12)"
}

missing_packages() {
	local package
	for package in "$@"; do
		[[ -n $(installed_version "$package") ]] || printf '%s\n' "$package"
	done
}

# installed_version PACKAGE: prints the version that is installed on the machine,
# or nothing.
installed_version() {
	dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null |
		awk '$1 == "installed" { print $2 }' || true
}

host_apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "$@" >&2
}

# root_run ROOT COMMAND...: runs COMMAND inside the chroot ROOT.  The mounts are
# made in a mount namespace of its own, so they are gone when COMMAND ends and
# deleting ROOT never reaches through a mount.
root_run() {
	local root=$1
	shift
	need_root
	# shellcheck disable=SC2016 # The variables belong to the inner shell.
	unshare --mount --propagation private -- \
		bash -euc '
			root=$1 count=$2
			shift 2
			mount -t proc proc "$root/proc"
			mount --rbind /sys "$root/sys"
			mount --rbind /dev "$root/dev"
			for bind in "${@:1:count}"; do
				mkdir -p "$root/${bind#*:}"
				mount --rbind "${bind%%:*}" "$root/${bind#*:}"
			done
			shift "$count"
			exec env -u CDPATH \
				PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
				HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
				chroot "$root" "$@"
		' root_run "$root" "${#ROOT_BINDS[@]}" ${ROOT_BINDS[@]+"${ROOT_BINDS[@]}"} "$@"
}

# root_apt ROOT ARGUMENT...: apt-get inside the chroot ROOT.
root_apt() {
	local root=$1
	shift
	root_run "$root" apt-get -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "$@" >&2
}

# make_complete FOLDER COMMAND...: runs COMMAND with a new folder's path after its
# first word, and gives the folder its name when COMMAND has filled it.
make_complete() {
	local folder=$1 new=$1.new command=$2
	shift 2
	rm -rf --one-file-system "$new"
	mkdir -p "$new"
	"$command" "$new" "$@"
	mv -T "$new" "$folder"
}

# make_root NAME PACKAGE...: prints the path of a chroot of $SUITE with the
# packages in it, made when there is none yet.  PACKAGE may also be one of
# apt's own forms, such as "linux-image-cloud-amd64/trixie-backports".
make_root() {
	local name=$1 root
	shift
	root=$CACHE/root-$name-$(printf '%s\n' "$SUITE" "$@" | sha256sum | cut -c 1-12)
	[[ -d $root ]] || {
		need_root
		locked "root-$name" build_root "$root" "$@"
	}
	printf '%s\n' "$root"
}

# build_root ROOT PACKAGE...: the part of make_root that does the work.
build_root() {
	[[ -d $1 ]] || {
		say "Making the chroot $1."
		make_complete "$1" fill_root "${@:2}"
	}
}

fill_root() {
	local root=$1 mirror
	shift
	host_packages debootstrap
	mirror=$(host_mirror "$SUITE")
	debootstrap --variant=minbase "$SUITE" "$root" ${mirror:+"$mirror"} >&2 ||
		die "debootstrap could not make a $SUITE chroot, see $root/debootstrap/debootstrap.log"
	configure_root_apt "$root"
	root_apt "$root" update
	root_apt "$root" install "$@"
	root_apt "$root" clean
}

# host_mirror RELEASE: prints the address from which this machine gets RELEASE,
# or the same part (-security or not) of its own release.
host_mirror() {
	local part=main
	[[ $1 != *-security ]] || part=security
	# shellcheck disable=SC2016 # The variables are apt's.
	apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT) $(CREATED_BY)' |
		awk -v part="$part" -v own="$(. /etc/os-release && echo "$VERSION_CODENAME")" '
			found || $3 != "main" || $4 != "Packages" { next }
			part == "security" && $2 ~ /-security$/ ||
			part == "main" && ($2 == own || $2 == "stable" || $2 == "testing") {
				print $1
				found = 1
			}
		'
}

# configure_root_apt ROOT: adds the suites that the kernel comes from, without
# keeping what is downloaded and without starting services.
configure_root_apt() {
	local root=$1 mirror security
	mirror=$(awk '$1 == "deb" && !n++ { print $2 }' "$root/etc/apt/sources.list")
	security=$(host_mirror "$SUITE-security")
	{
		printf 'deb %s %s main\n' "$mirror" "$SUITE"
		printf 'deb %s %s main\n' "$mirror" "$SUITE-updates"
		printf 'deb %s %s main\n' "$mirror" "$SUITE-backports"
		[[ -z $security ]] || printf 'deb %s %s main\n' "$security" "$SUITE-security"
	} >"$root/etc/apt/sources.list"
	apt-config dump | grep -E '^Acquire::(http|https|ftp)::Proxy' \
		>"$root/etc/apt/apt.conf.d/90proxy" || true
	echo 'APT::Keep-Downloaded-Packages "false";' >"$root/etc/apt/apt.conf.d/90no-cache"
	printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/locale/*' \
		>"$root/etc/dpkg/dpkg.cfg.d/90small"
	printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
	chmod 755 "$root/usr/sbin/policy-rc.d"
}

# in_toolchain COMMAND...: runs COMMAND where the compilers are: in the chroot
# $toolchain, where the checkout and the cache have the same paths as outside, or
# on this machine when $toolchain is empty.
in_toolchain() {
	local ROOT_BINDS=("$TOP:$TOP" "$CACHE:$CACHE")
	if [[ -n $toolchain ]]; then
		root_run "$toolchain" "$@"
	else
		LC_ALL=C.UTF-8 "$@"
	fi
}

# host_cargo COMMAND ARGUMENT...: cargo for the crates that run on the host.  It takes other
# crates from Debian's packages in the tool chain's chroot, never from a network, and in a new
# checkout starts from those that prepare-crates has compiled.
host_cargo() {
	[[ -d $TOP/build/host ]] || locked "crates-$(checkout_lock)" take_crates
	in_toolchain env CARGO_TARGET_DIR="$TOP/build/host" cargo "$1" --offline \
		--config 'source.crates-io.replace-with="debian"' \
		--config 'source.debian.directory="/usr/share/cargo/registry"' "${@:2}"
}

# take_crates: the part of host_cargo that gives the checkout what prepare-crates has compiled.
take_crates() {
	local crates
	[[ -d $TOP/build/host ]] || {
		crates=$("$TOP/scripts/prepare-crates")
		make_complete "$TOP/build/host" copy_crates "$crates"
	}
}

copy_crates() {
	cp -a --reflink=auto "$2/." "$1"
}

# kernel_make KERNEL ARGUMENT...: make in the source of the kernel KERNEL (a folder
# made by prepare-kernel), with its compiler and its release.
kernel_make() {
	local source=$1/source release
	release=$(<"$1/release")
	shift
	in_toolchain make -C "$source" CC="$(kernel_cc "$source/.config")" \
		LOCALVERSION="${release#"$(kernel_base "$source/Makefile")"}" "$@"
}

# kernel_base MAKEFILE: prints the release that is written in a kernel's Makefile.
kernel_base() {
	awk '$2 == "=" && $1 ~ /^(VERSION|PATCHLEVEL|SUBLEVEL)$/ { printf "%s%s", dot, $3; dot = "." }' "$1"
}

# prepared_kernel KIND: prints the folder of the kernel "stock", of the kernel "debug" that
# checks memory and locks, or of the kernel "kcsan" that looks for data races.
prepared_kernel() {
	case $1 in
	stock) "$TOP/scripts/prepare-kernel" ;;
	debug) "$TOP/scripts/prepare-debug-kernel" ;;
	kcsan) "$TOP/scripts/prepare-debug-kernel" --kcsan ;;
	*) die "there is no kernel \"$1\"" ;;
	esac
}

# config_text CONFIG NAME: prints the string that NAME has in a configuration.
config_text() {
	sed -n "s/^$2=\"\(.*\)\"\$/\1/p" "$1"
}

# kernel_cc CONFIG: prints the name of the C compiler that built the kernel.
kernel_cc() {
	local text
	text=$(config_text "$1" CONFIG_CC_VERSION_TEXT)
	if [[ $text =~ clang\ version\ ([0-9]+) ]]; then
		printf 'clang-%s\n' "${BASH_REMATCH[1]}"
	else
		cut -d ' ' -f 1 <<<"$text"
	fi
}
