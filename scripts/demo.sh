#!/usr/bin/env bash
# A first walk through Berth: an engine of its own in a scratch directory, an
# image, a container with a published port, and nothing left at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
	echo "The demo makes namespaces, mounts and a bridge: run it as root (sudo make demo)." >&2
	exit 1
fi

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' cyan=$'\e[36m' off=$'\e[0m'
else
	bold='' dim='' green='' cyan='' off=''
fi

bin=$PWD/bin
scratch=$(mktemp -d /tmp/berth-demo.XXXXXX)
export BERTH_HOST=unix://$scratch/run/berth.sock
engine=

cleanup() {
	status=$?
	trap - EXIT INT TERM
	if [ -n "$engine" ] && kill -0 "$engine" 2>/dev/null; then
		for id in $("$bin/berth" --no-start ps -aq 2>/dev/null); do
			"$bin/berth" --no-start rm -f "$id" >/dev/null 2>&1 || true
		done
		kill "$engine" 2>/dev/null || true
		wait "$engine" 2>/dev/null || true
	fi
	if [ "$status" -ne 0 ] && [ -s "$scratch/engine.log" ]; then
		echo "The demo did not finish. The engine's last words:" >&2
		tail -n 15 "$scratch/engine.log" >&2
	fi
	rm -rf "$scratch"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '\n%s%s%s\n' "$cyan" "$1" "$off"; }
berth() { "$bin/berth" --no-start "$@"; }
show() {
	printf '%s$ berth' "$bold"
	local word
	for word in "$@"; do
		case $word in *[!A-Za-z0-9_./:=,-]*) word="'$word'" ;; esac
		printf ' %s' "$word"
	done
	printf '%s\n' "$off"
	berth "$@"
}
# Milliseconds since an arbitrary moment, without starting a program.
now() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 1000)); }

say "1. An engine of our own, in $scratch"
started=$(now)
"$bin/berthd" --root "$scratch/data" --run "$scratch/run" >"$scratch/engine.log" 2>&1 &
engine=$!
for _ in $(seq 200); do
	[ -S "$scratch/run/berth.sock" ] && break
	kill -0 "$engine" 2>/dev/null || exit 1
	sleep 0.01
done
show version

say "2. An image: busybox and one page, imported from a tar archive"
mkdir -p "$scratch"/rootfs/{bin,www,tmp,etc}
cp "$(command -v busybox)" "$scratch/rootfs/bin/busybox"
for applet in sh httpd hostname echo cat ps ls true; do ln -s busybox "$scratch/rootfs/bin/$applet"; done
echo '<h1>Hello from a container</h1>' >"$scratch/rootfs/www/index.html"
tar -C "$scratch/rootfs" -cf "$scratch/rootfs.tar" .
show import --change 'CMD ["httpd","-f","-v","-p","80","-h","/www"]' --change 'EXPOSE 80' "$scratch/rootfs.tar" demo/web:1
show images

say "3. Run it, with port 80 published on a free port of this host"
show run -d --name web -p 127.0.0.1::80 demo/web:1
port=$(berth inspect --format '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}' web)
show ps

say "4. Fetch the page from it"
printf '%s$ wget -qO- http://127.0.0.1:%s/%s\n' "$bold" "$port" "$off"
for _ in $(seq 50); do
	busybox wget -qO- "http://127.0.0.1:$port/" 2>/dev/null && break
	sleep 0.02
done
show logs web

say "5. Look inside, and start ten more to see how long one takes"
show exec web ps
begin=$(now)
for _ in 1 2 3 4 5 6 7 8 9 10; do berth run --rm demo/web:1 true; done
each=$((($(now) - begin) / 10))
printf '%sten times "berth run --rm demo/web:1 true": %s ms each, from the shell and back%s\n' "$dim" "$each" "$off"

say "6. Stop, and take everything away"
show stop web
show rm web
show rmi demo/web:1
kill "$engine"
wait "$engine" 2>/dev/null || true
engine=
# The monitor has nothing to look after any more and ends by itself.
for _ in $(seq 300); do
	pgrep -f "monitor --run $scratch/run" >/dev/null || break
	sleep 0.02
done
total=$(($(now) - started))

printf '\n%sDone in %d.%d s.%s An engine started, an image was made, a page was served from a container,\n' \
	"$green" $((total / 1000)) $((total % 1000 / 100)) "$off"
echo "and nothing is left: no process, mount, bridge or file. Next: make install, then"
echo "berth run -it IMAGE sh on your own engine, which berth starts when it is needed."
