#!/bin/busybox sh
# Runs as the only process of a virtual machine whose power will be cut: checks
# that everything of the lives before is there which was acknowledged (the host
# gives us what it read on the console then), and works on until the cut.
. /berth/guest.sh
[ "$1" = second ] || move_root
mounts
mkdir -p /data
mount -t ext4 -o prjquota /dev/vda /data || { echo "guest: FAIL no disk"; poweroff -f; }
touch /acknowledged
quota=$(ls /berth/*.test)
start_engine /data/berth

# wanted prints each object of a kind whose last acknowledged word is WORD and
# about which nothing was begun afterwards.
wanted() { # KIND WORD
	awk -v kind="$1" -v word="$2" '$3 == kind {last[$4] = $1 " " $2} END {for (o in last) if (last[o] == "ack " word) print o}' /acknowledged
}

for c in $(wanted container create); do
	expect "container $c is there" "$c" "$(berth inspect --format '{{.Name}}' "$c" 2>&1 | tr -d /)"
done
for c in $(wanted container remove); do
	expect "container $c is gone" "" "$(berth ps -aq --filter "name=^$c\$")"
done
for c in $(wanted container ended); do
	expect "container $c ended with its code" "exited ${c#w}" "$(berth inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$c" 2>&1)"
done
for i in $(wanted image add); do
	expect "image $i runs" ok "$(berth run --rm "$i" echo ok 2>&1)"
done
for i in $(wanted image remove); do
	expect "image $i is gone" "" "$(berth images -q "$i")"
done

if [ -e /berth/last ]; then
	# Nothing that belongs to nobody may be left behind.
	berth ps -aq | xargs -r berth rm -f >/dev/null
	berth images -q | sort -u | xargs -r berth rmi -f >/dev/null
	kill $daemon
	wait $daemon
	start_engine /data/berth
	kill $daemon
	wait $daemon
	expect "no layer, blob or container is left" "" "$(find /data/berth/layers /data/berth/containers /data/berth/content -mindepth 1 \
		! -name '.*' ! -path '*/.empty*' ! -path '*/content/blobs' ! -path '*/content/blobs/sha256' ! -path '*/content/ingest')"
	expect "no limit is left" PASS "$(BERTH_QUOTA_DIR=/data "$quota" -test.run TestNothingIsLeft 2>&1 | tail -n 1)"
	[ $failed = 0 ] && echo "guest: all passed" || tail -n 40 /tmp/engine.log
	poweroff -f
fi
[ $failed = 0 ] && echo "guest: checked" || tail -n 40 /tmp/engine.log

berthd registry --listen 127.0.0.1:5000 --root /tmp/registry >/tmp/registry.log 2>&1 &
make_image
life=$(wc -l </acknowledged)
n=0
while :; do
	n=$((n + 1))
	id=$life-$n
	berth create --name "c$id" --storage-opt size=8m box:1 true >/dev/null 2>/tmp/said && echo "ack create container c$id"
	code=$(((life + n) % 120 + 3))
	echo "begin ended container w$code"
	berth rm "w$code" >/dev/null 2>&1
	berth run --name "w$code" box:1 sh -c "echo kept >/kept; exit $code"
	[ $? = $code ] && echo "ack ended container w$code"
	# A layer of its own, through the registry and back.
	mkdir -p "/root/i$n" && echo "$id" >"/root/i$n/id" && cp -a /root/fs/. "/root/i$n/"
	tar -C "/root/i$n" -c . | berth import - "127.0.0.1:5000/i$id:1" >/dev/null 2>/tmp/said && rm -r "/root/i$n"
	if berth push "127.0.0.1:5000/i$id:1" >/dev/null 2>/tmp/said; then
		echo "begin remove image 127.0.0.1:5000/i$id:1"
		berth rmi "127.0.0.1:5000/i$id:1" >/dev/null 2>/tmp/said && echo "ack remove image 127.0.0.1:5000/i$id:1"
		echo "begin add image 127.0.0.1:5000/i$id:1"
		berth pull "127.0.0.1:5000/i$id:1" >/dev/null 2>/tmp/said && echo "ack add image 127.0.0.1:5000/i$id:1"
	fi
	if [ $((n % 2)) = 0 ]; then
		echo "begin remove container c$id"
		berth rm "c$id" >/dev/null 2>/tmp/said && echo "ack remove container c$id"
		echo "begin remove image 127.0.0.1:5000/i$id:1"
		berth rmi "127.0.0.1:5000/i$id:1" >/dev/null 2>/tmp/said && echo "ack remove image 127.0.0.1:5000/i$id:1"
	fi
done
