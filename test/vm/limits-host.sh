#!/usr/bin/env bash
# Boots a virtual machine with cgroup v2 and runs test binaries and an engine's
# limits in it. Nothing is measured here.
#   test/vm/limits-host.sh [FILE ...]     FILEs are test binaries (*.test)
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/vm/machine.sh
initramfs "$scratch/initrd" test/vm/limits.sh "$@"
boot "$scratch/initrd" | tr -d '\r' | tee "$scratch/log" || true
if ! grep -q 'guest: all passed' "$scratch/log"; then
	echo "the virtual machine did not say that all passed" >&2
	exit 1
fi
