#!/usr/bin/env bash
# Installs what a make target needs and this machine lacks.
#   scripts/deps.sh COMMAND=PACKAGE [COMMAND=PACKAGE ...]
# A command that is already there costs nothing; a missing one is installed from
# the distribution's packages when we are root on a Debian-like system, and
# named otherwise.
set -euo pipefail

missing=()
for pair in "$@"; do
	command -v "${pair%%=*}" >/dev/null 2>&1 || missing+=("${pair##*=}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "missing: ${missing[*]}: install them with this system's package manager, or run as root on Debian" >&2
	exit 1
fi
echo "installing ${missing[*]}" >&2
# The packages of engines want to start their daemons; nothing here needs that.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update -q && apt-get install -qy --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	exit 1
fi
