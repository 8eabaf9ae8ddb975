# Sourced by the scripts that are the only process of a virtual machine.
export PATH=/bin:/berth HOME=/

# The root of an initramfs cannot be pivoted away from: move to a real mount and
# begin again there.
move_root() {
	/bin/busybox --install -s /bin
	mkdir -p /new
	mount -t tmpfs -o size=1800m tmpfs /new
	cp -a /bin /berth /lib /etc /modules.list /new/
	[ ! -e /acknowledged ] || cp /acknowledged /new/
	cd /new && mkdir -p proc sys dev run tmp var/tmp root usr/share
	exec switch_root /new /berth/init.sh second
}

mounts() {
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount -t devtmpfs dev /dev
	mkdir -p /dev/pts /dev/shm
	mount -t devpts devpts /dev/pts
	mount -t tmpfs tmpfs /dev/shm
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mount -t tmpfs tmpfs /run
	mount --make-rshared /
	while read -r m; do insmod "/lib/modules/$(uname -r)/kernel/$m" 2>/dev/null; done </modules.list
	ip link set lo up
}

failed=0
expect() { # NAME WANT GOT
	if [ "$2" = "$3" ]; then
		echo "guest: ok   $1"
	else
		echo "guest: FAIL $1: want '$2', got '$3'"
		failed=1
	fi
}

# start_engine ROOT starts an engine and returns when it answers.
start_engine() {
	berthd --root "$1" --run /run/berth >>/tmp/engine.log 2>&1 &
	daemon=$!
	i=0
	while ! berth --no-start version >/dev/null 2>&1 && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
}

# make_image makes the image box:1 of busybox.
make_image() {
	mkdir -p /root/fs/bin /root/fs/tmp /root/fs/etc
	cp /bin/busybox /root/fs/bin/
	for a in sh sleep cat echo seq head tail dd true kill ps mount yes; do ln -sf busybox /root/fs/bin/$a; done
	tar -C /root/fs -cf /root/fs.tar .
	berth import /root/fs.tar box:1 >/dev/null 2>/tmp/said
}
