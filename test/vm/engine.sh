#!/bin/busybox sh
# Runs as the only process of a virtual machine with cgroup v2 and a disk: takes an
# engine through what depends on that hierarchy, and through a clock that jumps.
. /berth/guest.sh

in_cgroup() { berth exec "$1" cat "/sys/fs/cgroup/$2" 2>&1; }
show() { berth inspect --format "$2" "$1" 2>&1; }
has() { case "$1" in *"$2"*) echo yes ;; *) echo "$1" ;; esac; }

# await WORDS COMMAND repeats a command until it says the words, for a minute.
await() {
	want=$1 tries=0
	shift
	while :; do
		got=$("$@" 2>&1)
		[ "$got" != "$want" ] && [ $tries -lt 300 ] || break
		tries=$((tries + 1))
		sleep 0.2
	done
	echo "$got"
}

update() {
	berth run -d --name limited -m 64m --memory-swap 64m --cpus 1 --pids-limit 50 box:1 sleep 100000 >/dev/null
	expect "update" limited "$(berth update -m 96m --memory-swap 128m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --pids-limit 20 --cpuset-cpus 1 limited 2>&1)"
	expect "memory, live" 100663296 "$(in_cgroup limited memory.max)"
	expect "swap, live" 33554432 "$(in_cgroup limited memory.swap.max)"
	expect "reservation, live" 33554432 "$(in_cgroup limited memory.low)"
	expect "cpus, live" "50000 100000" "$(in_cgroup limited cpu.max)"
	expect "shares, live" no "$([ "$(in_cgroup limited cpu.weight)" = 100 ] && echo unchanged || echo no)"
	expect "pids, live" 20 "$(in_cgroup limited pids.max)"
	expect "cpuset, live" 1 "$(in_cgroup limited cpuset.cpus)"
	expect "inspect after the update" "100663296 20 1" "$(show limited '{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpusetCpus}}')"
	berth update --pids-limit -1 limited >/dev/null
	expect "no limit of pids" max "$(in_cgroup limited pids.max)"
	berth update --cpuset-cpus 7 limited >/dev/null 2>&1
	expect "a processor that is not there" 1 "$(in_cgroup limited cpuset.cpus)"
	expect "stats name the limit" yes "$(has "$(berth stats --no-stream --format '{{.MemUsage}}' limited)" "/ 96MiB")"
	expect "stats count processes" 1 "$(berth stats --no-stream --format '{{.PIDs}}' limited)"
	berth pause limited >/dev/null
	expect "frozen" 1 "$(grep frozen /sys/fs/cgroup/*/"$(show limited '{{.Id}}')"/cgroup.events | cut -d' ' -f2)"
	berth unpause limited >/dev/null
	expect "after the thaw" alive "$(berth exec limited echo alive 2>&1)"
	berth rm -f limited >/dev/null
	berth run -d --name busy --cpuset-cpus 0 box:1 sh -c 'while :; do :; done' >/dev/null
	used=$(berth stats --no-stream --format '{{.CPUPerc}}' busy | tr -d %)
	expect "stats see a busy processor" yes "$([ "${used%.*}" -ge 20 ] && echo yes || echo "$used")"
	expect "why knows the pressure" yes "$(has "$(berth why --json busy | tr -d ' \n')" '"CPU":{')"
	berth rm -f busy >/dev/null
}

disk() {
	dev=$(cat /sys/block/vda/dev)
	expect "io.max" "$dev rbps=1048576 wbps=2097152 riops=max wiops=max" \
		"$(berth run --rm --device-read-bps /dev/vda:1mb --device-write-bps /dev/vda:2mb box:1 cat /sys/fs/cgroup/io.max 2>&1)"
	expect "operations" "$dev rbps=max wbps=max riops=100 wiops=200" \
		"$(berth run --rm --device-read-iops /dev/vda:100 --device-write-iops /dev/vda:200 box:1 cat /sys/fs/cgroup/io.max 2>&1)"
	read_disk='head -c 4096 /dev/x | wc -c'
	expect "a device" 4096 "$(berth run --rm --device /dev/vda:/dev/x:r box:1 sh -c "$read_disk" 2>&1)"
	expect "that may be read only" 1 "$(berth run --rm --device /dev/vda:/dev/x:r box:1 sh -c 'echo >/dev/x' >/dev/null 2>&1; echo $?)"
	make_node="busybox mknod /dev/x b ${dev%:*} ${dev#*:} && $read_disk"
	expect "a device without a rule" yes "$(has "$(berth run --rm box:1 sh -c "$make_node" 2>&1)" "not permitted")"
	expect "a device with a rule" 4096 "$(berth run --rm --device-cgroup-rule "b $dev rm" box:1 sh -c "$make_node" 2>&1)"
	expect "all devices" 4096 "$(berth run --rm --privileged --device /dev/vda:/dev/x box:1 sh -c "$read_disk" 2>&1)"
	berth run -d --name reader --device /dev/vda:/dev/x:r box:1 sh -c 'head -c 1048576 /dev/x >/dev/null; sleep 100000' >/dev/null
	block() { [ "$(berth stats --no-stream --format '{{.BlockIO}}' reader | cut -d' ' -f1)" = 0B ] || echo counted; }
	expect "stats count what is read" counted "$(await counted block)"
	berth rm -f reader >/dev/null
}

places() {
	expect "a cgroup namespace" 0::/ "$(berth run --rm box:1 cat /proc/self/cgroup 2>&1)"
	id=$(berth run -d --name placed --cgroupns host --cgroup-parent /mine/here --health-cmd 'cat /proc/self/cgroup' --health-interval 1s box:1 sleep 100000)
	expect "the parent" yes "$([ -d "/sys/fs/cgroup/mine/here/$id" ] && echo yes)"
	expect "the host's namespace" "0::/mine/here/$id" "$(berth exec placed cat /proc/self/cgroup 2>&1)"
	expect "a health check" healthy "$(await healthy show placed '{{.State.Health.Status}}')"
	expect "it runs in the cgroup" "0::/mine/here/$id" "$(show placed '{{(index .State.Health.Log 0).Output}}')"
	berth rm -f placed >/dev/null
	expect "nothing is left of it" "" "$(ls -d "/sys/fs/cgroup/mine/here/$id" 2>/dev/null)"
}

memory() {
	berth run --name hog -m 24m --memory-swap 24m box:1 sh -c 'busybox tail /dev/zero' >/dev/null 2>&1
	expect "an event tells of it" oom "$(berth events --since 10m --until 0s --filter container=hog --filter event=oom --format '{{.Action}}' | head -n 1)"
	why=$(berth why --json hog | tr -d ' \n')
	expect "why names the cause" yes "$(has "$why" '"OOM":true')"
	expect "the limit" yes "$(has "$why" '"Limit":25165824')"
	expect "the victim" yes "$(has "$why" '"Victim":{"Name":"busybox"')"
	peak=$(echo "$why" | sed 's/.*"Peak":\([0-9]*\).*/\1/')
	expect "the most it used" yes "$([ "$peak" -gt 20000000 ] && echo yes || echo "$peak")"
	berth rm hog >/dev/null
	# One process of several: the container goes on, and says so.
	berth run -d --name part -m 24m --memory-swap 24m box:1 sh -c 'busybox tail /dev/zero; echo survived; sleep 100000' >/dev/null
	rest() { berth logs part 2>/dev/null; }
	expect "the rest goes on" survived "$(await survived rest)"
	told() { berth events --since 10m --until 0s --filter container=part --filter event=oom --format '{{.Action}}' | head -n 1; }
	expect "an event tells of that, too" oom "$(await oom told)"
	berth rm -f part >/dev/null
}

jump() { date -s "@$(($(date +%s) + $1))" >/dev/null; }

clock() {
	berth run -d --name count box:1 sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done' >/dev/null
	berth run -d --name flap --restart always box:1 sh -c 'exit 1' >/dev/null
	berth run -d --name well --health-cmd 'sleep 2' --health-interval 1s --health-timeout 60s --health-retries 1 --restart always box:1 sleep 100000 >/dev/null
	berth run -d --name young --health-cmd false --health-interval 1s --health-start-interval 1s --health-start-period 20m --health-retries 1 box:1 sleep 100000 >/dev/null
	berth run -d --name deaf --stop-timeout 4 box:1 sh -c 'trap : TERM; while :; do sleep 0.1; done' >/dev/null
	expect "healthy before" healthy "$(await healthy show well '{{.State.Health.Status}}')"
	berth events >/tmp/events &
	listener=$!
	berth logs -f --since 1m count >/tmp/followed &
	follower=$!
	first() { head -n 1 /tmp/followed; }
	await 1 first >/dev/null
	begun=$(cut -d. -f1 /proc/uptime)
	(berth stop deaf >/dev/null; cut -d. -f1 /proc/uptime >/tmp/deaf) &
	for by in 3600 -7200 3600; do
		restarts=$(show flap '{{.RestartCount}}')
		jump $by
		sleep 3
		now=$(show flap '{{.RestartCount}}')
		expect "restarts after a jump by $by" few "$([ $((now - restarts)) -le 5 ] && echo few || echo $((now - restarts)))"
		expect "health after a jump by $by" "healthy 0" "$(show well '{{.State.Health.Status}} {{.State.Health.FailingStreak}}')"
		expect "the start period after a jump by $by" starting "$(show young '{{.State.Health.Status}}')"
		expect "ps after a jump by $by" yes "$(has "$(berth ps --filter name=count --format '{{.Status}}')" "Up")"
		before=$(berth logs count | wc -l)
		grown() { [ "$(berth logs count | wc -l)" -gt "$before" ] && [ "$(tail -n 1 /tmp/followed)" -gt "$before" ] && echo grown; }
		expect "the log after a jump by $by" grown "$(await grown grown)"
	done
	berth kill count >/dev/null
	wait $follower
	expect "every line, and once" "$(seq 1 "$(berth logs count | wc -l)" | md5sum)" "$(berth logs count | md5sum)"
	expect "followed, every line, and once" "$(berth logs count | md5sum)" "$(md5sum </tmp/followed)"
	# Some of it lies in what is the future again.
	expect "since and until" "$(berth logs count | wc -l)" "$(berth logs --since 3h --until $(($(date +%s) + 7200)) count | wc -l)"
	stopped() { grep -c . /tmp/deaf; }
	await 1 stopped >/dev/null
	took=$(($(cat /tmp/deaf) - begun))
	expect "a stop waits its time" yes "$([ $took -ge 3 ] && [ $took -lt 120 ] && echo yes || echo $took)"
	expect "and then kills" 137 "$(show deaf '{{.State.ExitCode}}')"
	# An engine that starts after a jump takes over what ran before.
	pid=$(show well '{{.State.Pid}}')
	kill -9 $daemon
	jump -3600
	start_engine /var/berth
	expect "adopted after a jump" "running $pid" "$(show well '{{.State.Status}} {{.State.Pid}}')"
	expect "the start period of one that was adopted" starting "$(show young '{{.State.Health.Status}}')"
	restarts=$(show flap '{{.RestartCount}}')
	berth stop -t 0 flap >/dev/null
	jump 3600
	ends=$(berth events --since 12h --until 0s --filter container=well --filter event=start --format '{{.Action}}' | wc -l)
	expect "one start, told once" 1 "$ends"
	kill $listener 2>/dev/null
	seen=$(grep -c "container die.*name=flap" /tmp/events)
	expect "each end of the other was told" yes "$([ "$seen" -ge 1 ] && [ "$seen" -le $((restarts + 1)) ] && echo yes || echo "$seen of $restarts")"
	berth rm -f count flap well young deaf >/dev/null
}

[ "$1" = second ] || move_root
mounts
cd /tmp
start_engine /var/berth
expect "import" 0 "$(make_image; echo $?)"
for part in update disk places memory clock; do
	echo "guest: $part"
	$part
done
expect "no cgroup is left" "" "$(find /sys/fs/cgroup -mindepth 2 -type d -path '*berth*')"
kill $daemon
wait $daemon 2>/dev/null
[ $failed = 0 ] && echo "guest: all passed" || tail -n 40 /tmp/engine.log
poweroff -f
