# Sourced by what boots a virtual machine: software emulation of a PC with the
# distribution's kernel, cgroup v2 alone, and our programs in an initramfs.
#   initramfs FILE SCRIPT [FILE ...]   makes FILE; SCRIPT is its init, the others are put beside the programs
#   boot INITRAMFS [QEMU ARGUMENT ...] runs a machine until it powers off; its console is our output;
#                                      its process id is in $scratch/qemu.pid

cache=$PWD/.cache/vm
package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/{print $2; exit}')
release=${package#linux-image-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

kernel_package() {
	[ -d "$cache/$package" ] && return
	mkdir -p "$cache"
	local fetch=$scratch/fetch
	mkdir "$fetch"
	chmod 0755 "$scratch" "$fetch"
	(cd "$fetch" && apt-get download -q "$package" >/dev/null 2>&1)
	dpkg -x "$fetch"/*.deb "$cache/$package.part"
	mv "$cache/$package.part" "$cache/$package"
}

initramfs() {
	local out=$1 init=$2
	shift 2
	kernel_package
	local root=$scratch/root
	rm -rf "$root"
	mkdir -p "$root"/{bin,dev,proc,sys,run,tmp,var,etc,lib/modules/"$release"/kernel,berth}
	cp "$(command -v busybox)" "$root/bin/busybox"
	cp bin/berth bin/berthd bin/berth-runtime test/vm/guest.sh "$@" "$root/berth/"
	cp "$init" "$root/berth/init.sh"
	ln -s /berth/init.sh "$root/init"
	echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"

	# The modules the engine needs and a disk, with what they need.
	depmod -b "$cache/$package" "$release"
	for name in overlay veth bridge nft_nat nft_masq nft_ct nft_chain_nat nft_fib_inet nft_reject_inet nf_conntrack_netlink nf_tables \
		virtio_pci virtio_blk crc32c_generic ext4 quota_v2 xfs; do
		modprobe -d "$cache/$package" -S "$release" --show-depends "$name" 2>/dev/null || true
	done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$root/modules.list"
	while read -r file; do cp "$file" "$root/lib/modules/$release/kernel/"; done <"$root/modules.list"
	sed -i "s#.*/##" "$root/modules.list"
	(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$out"
}

boot() {
	local initrd=$1
	shift
	timeout -s KILL 900 qemu-system-x86_64 -pidfile "$scratch/qemu.pid" -M pc,accel=tcg -cpu qemu64 -smp 2 -m 2048 -nographic -no-reboot -nic none \
		-kernel "$cache/$package/boot/vmlinuz-$release" -initrd "$initrd" \
		-append "console=ttyS0 quiet panic=-1 random.trust_cpu=on systemd.unified_cgroup_hierarchy=1" "$@" </dev/null 2>&1
}
