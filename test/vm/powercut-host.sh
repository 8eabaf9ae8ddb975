#!/usr/bin/env bash
# Cuts the power of a virtual machine in the middle of creates, runs, pulls,
# pushes and removes, boots it again on the same disk, and lets it check that
# nothing acknowledged is lost, and that no limit of files is left behind.
#   test/vm/powercut-host.sh QUOTA [CUTS]     QUOTA is the test binary of quotas
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/vm/machine.sh
quota=$1 cuts=${2:-3}

disk=$scratch/disk
truncate -s 2G "$disk"
mkfs.ext4 -q -O project,quota "$disk"
initramfs "$scratch/base" test/vm/powercut.sh "$quota"
: >"$scratch/acknowledged"

# machine FILE ... boots with further files in its root, and leaves its console in $scratch/log.
machine() {
	(cd "$scratch/more" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$scratch/more.cpio"
	cat "$scratch/base" "$scratch/more.cpio" >"$scratch/initrd"
	boot "$scratch/initrd" -drive "file=$disk,if=virtio,format=raw,cache=writeback" | tr -d '\r' >"$scratch/log"
}

for cut in $(seq 1 $((cuts + 1))); do
	rm -rf "$scratch/more"
	mkdir -p "$scratch/more/berth"
	cp "$scratch/acknowledged" "$scratch/more/acknowledged"
	[ "$cut" -le "$cuts" ] || touch "$scratch/more/berth/last"
	rm -f "$scratch/qemu.pid"
	: >"$scratch/log"
	machine 2>/dev/null &
	waiting=$!
	if [ "$cut" -le "$cuts" ]; then
		# Let it work until some rounds were acknowledged, then wait a moment more.
		while ! [ "$(grep -c '^ack ' "$scratch/log")" -ge $((5 + RANDOM % 20)) ] && kill -0 $waiting 2>/dev/null; do sleep 0.3; done
		sleep "0.$((RANDOM % 10))"
		kill -KILL "$(cat "$scratch/qemu.pid")" 2>/dev/null || true
	fi
	wait $waiting || true
	grep '^guest: ' "$scratch/log" | grep -v '^guest: ok' || true
	echo "life $cut: $(grep -c '^guest: ok' "$scratch/log" || true) checks passed, $(grep -c '^ack ' "$scratch/log" || true) operations acknowledged"
	if grep -q '^guest: FAIL' "$scratch/log" || [ "$cut" -le "$cuts" ] && ! grep -q 'guest: checked' "$scratch/log"; then
		tail -n 60 "$scratch/log"
		exit 1
	fi
	grep -E '^(ack|begin) ' "$scratch/log" >>"$scratch/acknowledged" || true
done
grep -q 'guest: all passed' "$scratch/log"
