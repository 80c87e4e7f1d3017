# shellcheck shell=bash
# lib.sh - what the lab's scripts share: messages, the cache folder, locks and
# a private apt that downloads Debian packages without installing them.
#
# Source it from bash after setting $LAB_SELF (the script's name). Everything
# it downloads or builds lives under $LAB_CACHE and appears there by rename(2),
# so a folder that exists is complete.

LAB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034  # used by the scripts that source this
LAB_PROJECT=$(cd "$LAB_DIR/../.." && pwd)
LAB_CACHE=${FERRY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ferry}

say() { printf '%s: %s\n' "${LAB_SELF:-lab}" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# help_from_header FILE: the leading comment of FILE is its --help text.
help_from_header() {
	sed -n '2,/^[^#]/{/^#/!q;s/^# \{0,1\}//;p}' "$1"
}

# need_tools TOOL...: stops with the list of what is missing.
need_tools() {
	local tool missing=()
	for tool in "$@"; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	((${#missing[@]} == 0)) || die "not found: ${missing[*]}; the packages that" \
		"carry them are in packaging/packages.sh (run it to see what is missing)"
}

# lab_lock NAME: one process at a time from here to the end of the script.
lab_lock() {
	mkdir -p "$LAB_CACHE" || die "cannot create $LAB_CACHE; set FERRY_CACHE to a writable folder"
	exec {LAB_LOCK_FD}>"$LAB_CACHE/.lock-$1" || die "cannot write in $LAB_CACHE"
	flock -n "$LAB_LOCK_FD" || {
		say "waiting for another $1 to finish"
		flock "$LAB_LOCK_FD"
	}
}

# lab_tmp: makes $LAB_TMP, a folder on the cache's file system that goes away
# when the script ends.
lab_tmp() {
	mkdir -p "$LAB_CACHE"
	LAB_TMP=$(mktemp -d "$LAB_CACHE/.tmp-XXXXXXXX") || die "cannot write in $LAB_CACHE"
	# shellcheck disable=SC2064
	trap "rm -rf '$LAB_TMP'" EXIT
	trap 'exit 130' INT TERM HUP
}

# newest_dir GLOB: the existing match with the highest version, or nothing.
newest_dir() {
	local match
	for match in $1; do
		if [ -e "$match" ]; then printf '%s\n' "$match"; fi
	done | sort -V | tail -n 1
}

# debian_mirror: the URI this machine already uses for its own Debian release.
debian_mirror() {
	local uri
	if [ -n "${FERRY_DEBIAN_MIRROR:-}" ]; then
		printf '%s\n' "$FERRY_DEBIAN_MIRROR"
		return
	fi
	# shellcheck disable=SC2016  # apt's own variables
	uri=$(. /etc/os-release && apt-get indextargets \
		--format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		awk -v rel="$VERSION_CODENAME" '$1 == rel && $2 == "main" { print $3; exit }')
	[ -n "$uri" ] || die "no Debian mirror found in /etc/apt; set FERRY_DEBIAN_MIRROR to one"
	printf '%s\n' "${uri%/}"
}

# private_apt SUITE...: prepares $LAB_TMP/apt, an apt world of its own: the
# machine's mirror and network settings, but its own package lists and an
# empty dpkg status, so that nothing of the running system is read or changed.
private_apt() {
	local mirror suite keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	need_tools apt-get apt-cache apt-config dpkg
	mirror=$(debian_mirror) || exit 1
	[ -r "$keyring" ] || die "no $keyring; install debian-archive-keyring"
	mkdir -p "$LAB_TMP"/apt/{state/lists/partial,cache/archives/partial}
	: >"$LAB_TMP/apt/status"
	for suite in "$@"; do
		echo "deb [signed-by=$keyring] $mirror $suite main"
	done >"$LAB_TMP/apt/sources.list"
	{
		apt-config dump Acquire | grep -v 'IndexTargets'
		cat <<-CONF
		Dir::Etc::main "/dev/null";
		Dir::Etc::parts "/dev/null";
		Dir::Etc::sourcelist "$LAB_TMP/apt/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State "$LAB_TMP/apt/state";
		Dir::State::status "$LAB_TMP/apt/status";
		Dir::Cache "$LAB_TMP/apt/cache";
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; };
		APT::Sandbox::User "root";
		APT::Install-Recommends "false";
		Acquire::Languages "none";
		Acquire::Retries "3";
		CONF
	} >"$LAB_TMP/apt/apt.conf"
	export APT_CONFIG="$LAB_TMP/apt/apt.conf"
	say "reading the package lists of $*"
	apt-get -q update >"$LAB_TMP/apt/update.log" 2>&1 || {
		sed 's/^/    /' "$LAB_TMP/apt/update.log" >&2
		die "apt-get update failed; check the network and the mirror in /etc/apt"
	}
}

# apt_fetch SUITE PACKAGE...: downloads the packages and all they depend on
# into $LAB_TMP/apt/cache/archives, PACKAGE preferably from SUITE.
apt_fetch() {
	local suite=$1
	shift
	apt-get -q -y -t "$suite" --no-install-recommends --download-only install "$@" \
		>"$LAB_TMP/apt/fetch.log" 2>&1 || {
		tail -n 20 "$LAB_TMP/apt/fetch.log" | sed 's/^/    /' >&2
		die "download of $* from $suite failed"
	}
}

# apt_fetch_one SUITE PACKAGE: downloads just that .deb, prints its path.
apt_fetch_one() {
	mkdir -p "$LAB_TMP/apt/deb"
	(cd "$LAB_TMP/apt/deb" && apt-get -q -t "$1" download "$2" >"$LAB_TMP/apt/fetch.log" 2>&1) || {
		tail -n 20 "$LAB_TMP/apt/fetch.log" | sed 's/^/    /' >&2
		die "download of $2 from $1 failed"
	}
	ls "$LAB_TMP/apt/deb/${2}_"*.deb
}

# apt_version SUITE PACKAGE: the version apt would take.
apt_version() {
	apt-cache -t "$1" policy "$2" | awk '/Candidate:/ { print $2 }'
}
