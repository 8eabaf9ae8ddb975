#!/bin/busybox sh
# Runs as the only process of a virtual machine with three disks: ext4 and XFS with
# project quotas, and an ext4 without. Takes containers, volumes and a default of
# dockerd's through their limits there.
. /berth/guest.sh

has() { case "$1" in *"$2"*) echo yes ;; *) echo "$1" ;; esac; }
size_of() { berth run --rm --storage-opt "$@" box:1 busybox df -k / 2>&1 | awk 'END {print $2}'; }
full() { case "$1" in *"No space left"* | *"no space left"* | *"uota exceeded"*) echo yes ;; *) echo "$1" ;; esac; }
fill() { berth exec "$1" sh -c "dd if=/dev/zero of=$2 bs=1M count=$3 2>&1" 2>&1; }
left() { /berth/quota.test -test.run 'TestNothingIsLeft' >/tmp/left 2>&1 && echo nothing || cat /tmp/left; }
restart() {
	kill "$1" $daemon
	wait $daemon 2>/dev/null
	start_engine $data/berth
}

# refused DIRECTORY WORDS: an engine there takes no limit, and says why.
refused() {
	start_engine "$1/berth"
	make_image
	expect "no limit ($2)" yes "$(has "$(berth create --name never --storage-opt size=20m box:1 true 2>&1)" "$2")"
	expect "no volume with a size ($2)" yes "$(has "$(berth volume create -o size=20m never 2>&1)" "$2")"
	expect "nothing is left of them" "" "$(berth ps -aq)$(berth volume ls -q)$(ls "$1/berth/containers" "$1/berth/volumes" | grep -v :)"
	expect "the rest works ($2)" hi "$(berth run --rm box:1 echo hi 2>&1)"
	kill $daemon
	wait $daemon 2>/dev/null
	echo '{"storage-opts": ["overlay2.size=25m"]}' >/tmp/daemon.json
	dockerd --config-file /tmp/daemon.json --data-root "$1/berth" --exec-root /run/berth -H unix:///run/d.sock --pidfile /run/d.pid >/tmp/d.log 2>&1
	expect "a default is refused" 1 $?
	expect "with the reason ($2)" yes "$(has "$(cat /tmp/d.log)" "$2")"
	rm -rf "$1/berth"
}

bounds() {
	berth run -d --name aa --storage-opt size=20m box:1 sleep 100000 >/dev/null
	berth run -d --name bb box:1 sleep 100000 >/dev/null
	expect "inspect" "map[size:20m]" "$(berth inspect --format '{{.HostConfig.StorageOpt}}' aa)"
	expect "df inside" 20480 "$(berth exec aa busybox df -k / 2>&1 | awk 'END {print $2}')"
	expect "more than the limit" yes "$(full "$(fill aa /big 30)")"
	expect "not a byte more" yes "$([ "$(berth exec aa busybox stat -c %s /big)" -le 20971520 ] && echo yes)"
	expect "another has room" 31457280 "$(fill bb /big 30 >/dev/null; berth exec bb busybox stat -c %s /big)"
	expect "what is removed comes back" 10485760 "$(berth exec aa busybox rm /big; fill aa /small 10 >/dev/null; berth exec aa busybox stat -c %s /small)"
	inside() {
		at=$1
		shift
		berth run --rm -v /berth/quota.test:/q -e BERTH_QUOTA_INSIDE="$at" "$@" /q -test.run TestNobodyLeaves 2>&1 | tail -n 1
	}
	expect "no way out of it" PASS "$(inside / --storage-opt size=20m box:1)"
	expect "but for what is not bounded" FAIL "$(inside / box:1)"
	restart -9
	expect "after the engine was killed" "true yes" "$(berth inspect --format '{{.State.Running}}' aa) $(full "$(fill aa /big 15)")"
	berth restart -t 0 aa >/dev/null
	expect "after a restart" yes "$(full "$(fill aa /big 15)")"
	dd if=/dev/zero of=/tmp/15m bs=1M count=15 2>/dev/null
	berth exec aa busybox rm /big
	expect "cp into one that runs" yes "$(full "$(berth cp /tmp/15m aa:/copied 2>&1)")"
	berth stop -t 0 aa >/dev/null
	berth cp /dev/null aa:/copied
	expect "cp into one that is stopped" yes "$(full "$(berth cp /tmp/15m aa:/copied 2>&1)")"
	expect "diff" "A /small" "$(berth diff aa | grep small)"
	expect "export" small "$(berth export aa | tar -t | grep '^small$')"
	expect "commit" 0 "$(berth commit aa box:2 >/dev/null 2>&1; echo $?)"
	expect "what was committed" 10485760 "$(berth run --rm box:2 busybox stat -c %s /small 2>&1)"
	berth rename aa cc
	berth start cc >/dev/null
	expect "after a rename" yes "$(full "$(fill cc /big 30)")"
	expect "a start in a full one" 137 "$(berth kill cc >/dev/null; berth wait cc; berth start cc 2>&1 >/dev/null)"
	berth rm -f bb cc >/dev/null
	berth rmi box:2 >/dev/null
}

words() {
	create() { berth create --name never --storage-opt "$1" box:1 true 2>&1; }
	expect "an unknown option" yes "$(has "$(create dm.basesize=1G)" 'unknown option "dm.basesize"')"
	expect "no size" yes "$(has "$(create size=big)" "invalid size: 'big'")"
	expect "too small" yes "$(has "$(create size=3k)" "smallest")"
	expect "nothing was made" "" "$(berth ps -aq)"
}

volumes() {
	expect "a volume" vv "$(berth volume create -o size=10m vv 2>&1)"
	expect "its limit" yes "$(full "$(berth run --rm -v vv:/v box:1 sh -c 'dd if=/dev/zero of=/v/big bs=1M count=20 2>&1' 2>&1)")"
	expect "df of it" 10240 "$(berth run --rm -v vv:/v box:1 busybox df -k /v | awk 'END {print $2}')"
	berth run --rm -v vv:/v box:1 busybox rm /v/big
	berth run -d --name user -v vv:/v box:1 sleep 100000 >/dev/null
	expect "cp into it" yes "$(full "$(berth cp /tmp/15m user:/v/copied 2>&1)")"
	berth stop -t 0 user >/dev/null
	expect "cp into it, stopped" yes "$(full "$(berth cp /tmp/15m user:/v/again 2>&1)")"
	berth cp /tmp/15m user:/tmp/file
	berth commit user full:1 >/dev/null
	expect "what an image has there" yes "$(full "$(berth create --name never --mount type=volume,src=xx,dst=/tmp,volume-opt=size=10m full:1 true 2>&1)")"
	expect "nothing is left of that" "" "$(berth ps -aq --filter name=never)$(berth volume ls -q --filter name=xx)"
	berth rm user >/dev/null
	berth rmi full:1 >/dev/null
	berth run --rm -v vv:/v box:1 sh -c 'busybox rm -f /v/*'
	expect "no way out of it" PASS "$(inside /v -v vv:/v box:1)"
	restart -9
	expect "after the engine was killed" yes "$(full "$(berth run --rm -v vv:/v box:1 sh -c 'dd if=/dev/zero of=/v/more bs=1M count=20 2>&1' 2>&1)")"
	expect "by a mount" 12288 "$(berth run --rm --mount type=volume,src=ww,dst=/w,volume-opt=size=12m box:1 busybox df -k /w 2>&1 | awk 'END {print $2}')"
	expect "beside a device" yes "$(has "$(berth volume create -o size=1g -o type=tmpfs -o device=tmpfs xx 2>&1)" "of no use")"
	berth volume rm vv ww >/dev/null
}

default() {
	kill $daemon
	wait $daemon 2>/dev/null
	dockerd --config-file /tmp/daemon.json --data-root $data/berth --exec-root /run/berth -H unix:///run/berth/berth.sock --pidfile /run/d.pid >>/tmp/engine.log 2>&1 &
	daemon=$!
	while ! berth --no-start version >/dev/null 2>&1 && [ -e /proc/$daemon ]; do sleep 0.1; done
	expect "a default" 25600 "$(berth run --rm box:1 busybox df -k / 2>&1 | awk 'END {print $2}')"
	expect "another size" 30720 "$(size_of size=30m)"
	expect "none" yes "$([ "$(size_of size=0)" -gt 200000 ] && echo yes)"
	berth create --name dd box:1 busybox df -k / >/dev/null
	restart -TERM
	expect "it is the container's own" 25600 "$(berth start -a dd | awk 'END {print $2}')"
	berth rm dd >/dev/null
}

# kills ends the engine at any instant of creates and removals.
kills() {
	for round in 1 2 3 4 5 6; do
		(
			i=0
			while :; do
				i=$((i + 1))
				berth --no-start create --name "k$round-$i" --storage-opt size=5m box:1 busybox df -k /
				berth --no-start volume create -o size=5m "k$round-$i"
				berth --no-start rm "k$round-$((i - 2))"
				berth --no-start volume rm "k$round-$((i - 2))"
			done
		) >/dev/null 2>&1 &
		loop=$!
		while [ "$(berth --no-start ps -aq --filter name=k$round- | wc -l)" -lt 2 ]; do sleep 0.1; done
		sleep 0.$((round * 3 % 10))
		kill -9 $daemon
		kill $loop
		wait $loop $daemon 2>/dev/null
		start_engine $data/berth
	done
	for c in $(berth ps -aq); do
		expect "the limit of $c" 5120 "$(berth start -a "$c" 2>&1 | awk 'END {print $2}')"
	done
	berth ps -aq | xargs -r berth rm -f >/dev/null
	berth volume ls -q | xargs -r berth volume rm >/dev/null
}

[ "$1" = second ] || move_root
mounts
cd /tmp
ln -s /berth/berthd /berth/dockerd
data=/data
mkdir -p $data
# on NAME DISK WITHOUT WITH: a file system whose limits come with a mount option.
on() {
	echo "guest: on $1"
	mount -t "$1" -o "$3" "$2" $data || expect "mount $1" 0 1
	refused $data "$5"
	umount $data
	mount -t "$1" -o "$4" "$2" $data || expect "mount $1" 0 1
	BERTH_QUOTA_DIR=$data /berth/quota.test -test.run 'TestSet|TestClaim' -test.count 2 >/tmp/room 2>&1
	expect "the room itself" "0 PASS" "$? $(cat /tmp/room)"
	start_engine $data/berth
	make_image
	export BERTH_QUOTA_DIR=$data
	for part in words bounds volumes default kills; do
		echo "guest: $part"
		$part
	done
	kill $daemon
	wait $daemon 2>/dev/null
	start_engine $data/berth
	kill $daemon
	wait $daemon 2>/dev/null
	expect "no project is left" nothing "$(left)"
	umount $data || { sleep 1; umount -l $data; }
}
on ext4 /dev/vda noatime prjquota "enforces no limits"
on xfs /dev/vdb pqnoenforce pquota "enforces no limits"
echo "guest: without quotas"
mount -t ext4 /dev/vdc $data
refused $data "cannot give files a project"
umount $data
[ $failed = 0 ] && echo "guest: all passed" || tail -n 40 /tmp/engine.log
poweroff -f
