#!/bin/busybox sh
# Runs as the only process of a virtual machine with cgroup v2: sets the machine
# up, runs the test binaries it finds, then takes an engine through its limits.
. /berth/guest.sh

engine() {
	start_engine /var/berth
	expect "import" 0 "$(make_image; echo $?)"
	expect "run" hi "$(berth run --rm box:1 echo hi 2>&1)"
	expect "network none" hi "$(berth run --rm --network none box:1 echo hi 2>&1)"
	expect "memory limit" 33554432 "$(berth run --rm -m 32m box:1 cat /sys/fs/cgroup/memory.max 2>&1)"
	expect "pids limit" 17 "$(berth run --rm --pids-limit 17 box:1 cat /sys/fs/cgroup/pids.max 2>&1)"
	expect "cpus" "50000 100000" "$(berth run --rm --cpus 0.5 box:1 cat /sys/fs/cgroup/cpu.max 2>&1)"
	expect "cpuset" 0 "$(berth run --rm --cpuset-cpus 0 box:1 cat /sys/fs/cgroup/cpuset.cpus 2>&1)"
	expect "cgroup is read-only" 1 "$(berth run --rm box:1 sh -c 'echo 5 >/sys/fs/cgroup/pids.max' >/dev/null 2>&1; echo $?)"
	expect "device outside the list" 1 "$(berth run --rm --cap-add MKNOD box:1 sh -c 'busybox mknod /tmp/m c 1 1 && head -c 1 /tmp/m' >/dev/null 2>&1; echo $?)"
	berth run --name hog -m 24m --memory-swap 24m box:1 sh -c 'busybox tail /dev/zero' >/dev/null 2>&1
	expect "out of memory" "true 137" "$(berth inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' hog)"
	berth run -d --name long box:1 sleep 100000 >/dev/null
	expect "exec" inside "$(berth exec long echo inside 2>&1)"
	kill -9 $daemon
	start_engine /var/berth
	expect "adopted after a kill of the engine" true "$(berth inspect --format '{{.State.Running}}' long)"
	berth kill long >/dev/null
	expect "killed" 137 "$(berth wait long)"
	berth rm hog long >/dev/null
	expect "no cgroup is left" "" "$(find /sys/fs/cgroup -mindepth 2 -type d -path '*berth*')"
	kill $daemon
	wait $daemon 2>/dev/null
	[ $failed = 0 ] || tail -n 30 /tmp/engine.log
}

[ "$1" = second ] || move_root
mounts
cd /tmp
for t in /berth/*.test; do
	[ -e "$t" ] || continue
	echo "guest: $t"
	# These look at v1 hierarchies, or map ids on a file system that learned it later.
	"$t" -test.timeout 4m -test.skip 'TestIDMappedBind|TestExecJoinsEverything|TestCVE202325809CgroupReadOnly' >/tmp/test.log 2>&1
	code=$?
	[ $code = 0 ] || grep -v -e '^=== ' -e '^    --- PASS' -e '^--- PASS' /tmp/test.log | tail -n 80
	expect "$(basename "$t")" 0 $code
done
engine
[ $failed = 0 ] && echo "guest: all passed"
poweroff -f
