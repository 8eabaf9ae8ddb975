#!/usr/bin/env bash
# Boots a small virtual machine with cgroup v2 alone and the distribution's
# kernel, and runs the guest script with our programs in it. Software emulation:
# no hardware support is needed, and nothing is measured here.
#   test/vm/run.sh [FILE ...]     FILEs (test binaries, say) are put beside the programs
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=.cache/vm
mkdir -p "$cache"
package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/{print $2; exit}')
if [ ! -d "$cache/$package" ]; then
	fetch=$(mktemp -d)
	chmod 0755 "$fetch"
	(cd "$fetch" && apt-get download -q "$package" >/dev/null 2>&1)
	dpkg -x "$fetch"/*.deb "$cache/$package.part"
	rm -rf "$fetch"
	mv "$cache/$package.part" "$cache/$package"
fi
release=${package#linux-image-}
modules=$cache/$package/lib/modules/$release

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,dev,proc,sys,run,tmp,var,etc,lib/modules/"$release",berth}
cp "$(command -v busybox)" "$root/bin/busybox"
cp bin/berth bin/berthd bin/berth-runtime test/vm/guest.sh "$@" "$root/berth/"
ln -s /berth/guest.sh "$root/init"
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"

# The modules the engine needs, with what they need.
mkdir -p "$root/lib/modules/$release/kernel"
depmod -b "$cache/$package" "$release"
for name in overlay veth bridge nft_nat nft_masq nft_ct nft_chain_nat nft_fib_inet nft_reject_inet nf_conntrack_netlink nf_tables; do
	modprobe -d "$PWD/$cache/$package" -S "$release" --show-depends "$name" 2>/dev/null || true
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$root/modules.list"
while read -r file; do cp "$file" "$root/lib/modules/$release/kernel/"; done <"$root/modules.list"
sed -i "s#.*/##" "$root/modules.list"

(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$root.initrd"
trap 'rm -rf "$root" "$root.initrd"' EXIT

log=$(mktemp)
timeout 420 qemu-system-x86_64 -M pc,accel=tcg -cpu qemu64 -smp 2 -m 2048 -nographic -no-reboot -nic none \
	-kernel "$cache/$package/boot/vmlinuz-$release" -initrd "$root.initrd" \
	-append "console=ttyS0 quiet panic=-1 random.trust_cpu=on systemd.unified_cgroup_hierarchy=1" </dev/null 2>&1 | tr -d '\r' | tee "$log"
if ! grep -q '^guest: all passed$' "$log"; then
	rm -f "$log"
	echo "the virtual machine did not say that all passed" >&2
	exit 1
fi
rm -f "$log"
