#!/usr/bin/env bash
# Boots virtual machines with cgroup v2: one that runs test binaries and an
# engine's limits, one for what an engine does there with a disk and a clock that
# jumps, one for limits of files on file systems with quotas. Nothing is measured here.
#   test/vm/limits-host.sh FILE QUOTA     of test binaries: the runtime's, and that of quotas
#   MACHINES="quota" boots only those named
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/vm/machine.sh

# machine SCRIPT [FILE ...] boots once with the disks and fails unless the script says that all passed.
machine() {
	local drives=() name=${1##*/}
	case " ${MACHINES:-engine limits quota} " in *" ${name%.sh} "*) ;; *) return 0 ;; esac
	for disk in "${disks[@]}"; do drives+=(-drive "file=$scratch/$disk,if=virtio,format=raw"); done
	initramfs "$scratch/initrd" "$@"
	boot "$scratch/initrd" "${drives[@]}" | tr -d '\r' | tee "$scratch/log" || true
	if ! grep -q 'guest: all passed' "$scratch/log"; then
		echo "the virtual machine did not say that all passed" >&2
		exit 1
	fi
}

truncate -s 64M "$scratch/disk"
disks=(disk)
machine test/vm/engine.sh
machine test/vm/limits.sh "$1"

truncate -s 512M "$scratch"/{ext4,xfs,plain}
mkfs.ext4 -q -O project,quota "$scratch/ext4"
mkfs.xfs -q "$scratch/xfs"
mkfs.ext4 -q -O ^project,^quota "$scratch/plain"
disks=(ext4 xfs plain)
machine test/vm/quota.sh "$2"
