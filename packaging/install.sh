# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# install_missing YES PACKAGE...: installs the Debian packages that are missing; says
# which, and asks unless YES is not empty. Sourced by ./demo and ./check after
# packaging/packages.sh.
install_missing() {
	local yes=$1 missing answer sudo=''
	shift
	missing=$(packages_missing "$@" | tr '\n' ' ')
	[[ -z $missing ]] && return 0
	command -v apt-get >/dev/null || {
		echo "these packages are missing, and there is no apt-get to install them: $missing" >&2
		return 1
	}
	echo "Debian packages to install: $missing"
	if [[ -z $yes ]]; then
		if [[ ! -t 0 ]]; then
			echo "not asked (no terminal): run again with -y, or install them yourself" >&2
			return 1
		fi
		read -r -p 'Install them now? [Y/n] ' answer
		[[ -z $answer || $answer == [Yy]* ]] || return 1
	fi
	((EUID == 0)) || sudo=sudo
	# Lists may be missing or old on a new machine.
	echo 'reading package lists ...'
	$sudo apt-get update -qq || return 1
	# shellcheck disable=SC2086
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing |
		grep --line-buffered -E '^(Get:|Setting up )' | cut -c 1-100
	[[ ${PIPESTATUS[0]} == 0 ]] || {
		echo "apt-get could not install them" >&2
		return 1
	}
}
