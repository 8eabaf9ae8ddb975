#!/usr/bin/env bash
# Boots virtual machines with cgroup v2: one that runs test binaries and an
# engine's limits, one for what an engine does there with a disk and a clock that
# jumps. Nothing is measured here.
#   test/vm/limits-host.sh [FILE ...]     FILEs are test binaries (*.test)
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/vm/machine.sh

# machine SCRIPT [FILE ...] boots once and fails unless the script says that all passed.
machine() {
	initramfs "$scratch/initrd" "$@"
	boot "$scratch/initrd" -drive "file=$scratch/disk,if=virtio,format=raw" | tr -d '\r' | tee "$scratch/log" || true
	if ! grep -q 'guest: all passed' "$scratch/log"; then
		echo "the virtual machine did not say that all passed" >&2
		exit 1
	fi
}

truncate -s 64M "$scratch/disk"
machine test/vm/engine.sh
machine test/vm/limits.sh "$@"
