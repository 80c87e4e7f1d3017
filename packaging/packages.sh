#!/bin/sh
# packages.sh - the Debian 12 packages that building and testing Ferry needs
#
#   packaging/packages.sh [GROUP...]   prints those of the groups (default: all)
#                                      that are not installed; status 1 if any
#   . packaging/packages.sh            for the variables and packages_missing
#
# Groups: build, demo, lint, lab, bench. To install what is missing:
#
#   apt-get install $(packaging/packages.sh)

FERRY_PACKAGES_BUILD='gcc clang make pkg-config libc6-dev linux-libc-dev
	libfdt-dev liburing-dev libseccomp-dev libjansson-dev libhttp-parser-dev libzstd-dev
	libssl-dev check'

FERRY_PACKAGES_LINT='clang-tidy clang-format cppcheck shellcheck libclang-rt-14-dev'

# What tests/lab uses to fetch QEMU and kernels, to build its kernel (flex ...
# perl), and to run (busybox-static, cpio, util-linux); python3 ... iputils-ping
# are for the tests inside it.
FERRY_PACKAGES_LAB='apt dpkg debian-archive-keyring gcc make libc6-dev flex bison bc
	perl libelf-dev libssl-dev xz-utils zstd rsync cpio busybox-static
	util-linux coreutils e2fsprogs python3 python3-jsonschema python3-yaml
	iproute2 iputils-ping device-tree-compiler curl socat openssl'

# What ./demo uses besides: the guest, and the lab's host with Debian's kernel.
FERRY_PACKAGES_DEMO='apt dpkg debian-archive-keyring cpio busybox-static socat
	util-linux coreutils e2fsprogs xz-utils zstd'

FERRY_PACKAGES_BENCH='qemu-system-x86 fio iperf3'

# packages_missing PACKAGE...: prints those that are not installed.
packages_missing() {
	for package in "$@"; do
		case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
		installed*) ;;
		*) echo "$package" ;;
		esac
	done | sort -u
}

case ${0##*/} in
packages.sh)
	all=
	for group in "${@:-all}"; do
		case $group in
		-h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 0 ;;
		all) all="$FERRY_PACKAGES_BUILD $FERRY_PACKAGES_LINT $FERRY_PACKAGES_LAB $FERRY_PACKAGES_BENCH" ;;
		build) all="$all $FERRY_PACKAGES_BUILD" ;;
		demo) all="$all $FERRY_PACKAGES_BUILD $FERRY_PACKAGES_DEMO" ;;
		lint) all="$all $FERRY_PACKAGES_LINT" ;;
		lab) all="$all $FERRY_PACKAGES_LAB" ;;
		bench) all="$all $FERRY_PACKAGES_BENCH" ;;
		*) echo "packages.sh: unknown group '$group'; see --help" >&2; exit 2 ;;
		esac
	done
	# shellcheck disable=SC2086
	missing=$(packages_missing $all)
	[ -z "$missing" ] || { echo "$missing"; exit 1; }
	;;
esac
