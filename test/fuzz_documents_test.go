package test

import (
	"math/rand/v2"
	"strings"
	"sync"
)

// idPool remembers ids that the engine has answered with, so that later
// requests name things that exist, or did.
type idPool struct {
	mu                sync.Mutex
	containers, execs []string
}

const unknownID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func (p *idPool) add(path, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case strings.Contains(path, "/containers/create"):
		p.containers = append(p.containers, id)
	case strings.Contains(path, "/exec"):
		p.execs = append(p.execs, id)
	}
}

func (p *idPool) any(r *rand.Rand) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return recent(p.containers, r)
}

func (p *idPool) exec(r *rand.Rand) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return recent(p.execs, r)
}

// recent is one of the last few, whole or shortened.
func recent(ids []string, r *rand.Rand) string {
	if len(ids) == 0 || r.IntN(20) == 0 {
		return unknownID
	}
	id := ids[len(ids)-1-r.IntN(min(len(ids), 20))]
	if r.IntN(5) == 0 {
		return id[:1+r.IntN(12)]
	}
	return id
}

func (p *idPool) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.containers...)
}

type doc = map[string]any

// document is the JSON body that a route wants, with some members wrong.
func (g *grammar) document(pattern string) doc {
	var d doc
	switch {
	case strings.HasSuffix(pattern, "/containers/create"):
		d = g.createDoc()
	case strings.HasSuffix(pattern, "/exec"):
		d = doc{"Cmd": g.command(), "AttachStdout": g.chance(70), "AttachStderr": g.chance(50), "AttachStdin": g.chance(30), "Tty": g.chance(20), "Detach": g.chance(20),
			"User": g.pick("", "0", "1000", "user", "nosuch", "-1", "4294967296"), "WorkingDir": g.pick("", "/", "/www", "/none", "/proc/self/fd/3", "rel"), "Privileged": false, "Env": []string{"A=b"},
			"DetachKeys": g.pick("", "ctrl-p", "bad-key")}
	case strings.Contains(pattern, "/exec/"):
		d = doc{"Detach": g.chance(50), "Tty": g.chance(20), "ConsoleSize": []int{g.r.IntN(100), g.r.IntN(100)}}
	case strings.HasSuffix(pattern, "/update"):
		d = doc{"Memory": g.size(), "MemorySwap": g.size(), "NanoCpus": g.size(), "PidsLimit": g.r.IntN(100) - 5, "CpuShares": g.r.IntN(3000), "CpusetCpus": g.pick("", "0", "0-99", "x"),
			"RestartPolicy": g.restart(), "BlkioWeight": g.r.IntN(1200)}
	case strings.HasSuffix(pattern, "/networks/create"):
		d = doc{"Name": g.pick("fznet1", "fznet2", g.text()), "Driver": g.pick("", "bridge", "bridge", "macvlan", "nosuch"), "Internal": g.chance(30), "Attachable": g.chance(20), "EnableIPv6": g.chance(20),
			"Labels": doc{"a": "b"}, "Options": doc{g.pick("com.docker.network.bridge.name", "com.docker.network.driver.mtu", "x"): g.pick("fzbr0", "1400", "-1", "toolongnameforabridge")},
			"IPAM": doc{"Driver": g.pick("", "default", "x"), "Config": []doc{{"Subnet": g.subnet(), "Gateway": g.pick("", "10.55.0.1", "x", "fd55::1"), "IPRange": g.pick("", "10.55.0.128/25")}}}}
	case strings.HasSuffix(pattern, "connect"):
		d = doc{"Container": g.container(), "Force": g.chance(40), "EndpointConfig": g.endpoint()}
	case strings.HasSuffix(pattern, "/volumes/create"):
		d = doc{"Name": g.pick("fzvol1", "fzvol2", "", g.text()), "Driver": g.pick("", "local", "local", "nfs"), "Labels": doc{"a": "b"},
			"DriverOpts": doc{g.pick("type", "device", "o", "size"): g.pick("tmpfs", "none", "/nosuch", "bind", "size=1m", "x")}}
		if g.chance(60) {
			delete(d, "DriverOpts")
		}
	case strings.HasSuffix(pattern, "/auth"):
		d = doc{"username": "u", "password": "p", "serveraddress": g.pick("127.0.0.1:9", "http://127.0.0.1:9", "::", g.text())}
	case strings.HasSuffix(pattern, "/commit"):
		d = doc{"Cmd": g.command(), "Env": []string{"x=y"}}
	case pattern == "/berth/build":
		d = doc{"archive": true, "dockerfile": "Dockerfile", "tags": []string{"built:1"}}
	case pattern == "/berth/plan":
		kind := func() string { return g.pick("container", "network", "volume", "image", "build-cache", "x") }
		d = doc{"Prunes": []doc{{"Kind": kind(), "Filters": doc{g.pick("until", "label", "all", "dangling"): doc{g.pick("true", "1h", "a=b", g.text()): true}}, "MaxUsed": g.size()}, {"Kind": kind()}},
			"Remove": doc{"Kind": kind(), "Refs": []string{g.container(), g.image(), g.pick("fznet1", "fzvol1", "bridge", "", g.text())}, "Force": g.chance(50), "Volumes": g.chance(50), "NoPrune": g.chance(50)}}
	default:
		d = doc{g.pick("Name", "Force", "X"): g.any()}
	}
	drop := 25
	if strings.HasSuffix(pattern, "/containers/create") {
		drop = 3 // a container that is not made is not much of a test
	}
	for key := range d {
		if g.chance(drop) {
			delete(d, key)
		} else if g.chance(2) {
			d[key] = g.any()
		}
	}
	if g.chance(2) {
		d[g.pick("Unknown", "image", "HOSTCONFIG", g.text())] = g.any()
	}
	return d
}

// any is a value of any kind.
func (g *grammar) any() any {
	return []any{nil, true, -1, 1e30, g.text(), []any{}, []any{g.text(), 1, nil}, doc{}, doc{g.text(): g.text()}, []any{doc{"a": nil}}}[g.r.IntN(10)]
}

func (g *grammar) size() int64 {
	return []int64{0, 0, 0, -1, 1, 4096, 6 << 20, 32 << 20, 64 << 20, 1 << 40, 1<<63 - 1, 500000000}[g.r.IntN(12)]
}

func (g *grammar) subnet() string {
	return g.pick("", "10.55.0.0/24", "10.56.0.0/16", "10.55.0.0/33", "fd55::/64", "0.0.0.0/0", "10.55.0.7/24", "127.0.0.0/8", "x")
}

func (g *grammar) restart() doc {
	return doc{"Name": g.pick("", "no", "no", "on-failure", "always", "unless-stopped", "x"), "MaximumRetryCount": g.r.IntN(4) - 1}
}

func (g *grammar) command() any {
	return []any{[]string{"true"}, []string{"true"}, []string{"sleep", "1"}, []string{"sleep", "100"}, []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, []string{"cat"},
		[]string{"sh", "-c", "seq 1 3000"}, []string{"yes"}, []string{"nosuch"}, []string{"/www/index.html"}, "true", []string{}, []string{""}, nil}[g.r.IntN(14)]
}

func (g *grammar) endpoint() doc {
	d := doc{"Aliases": []string{g.pick("a", "b", g.text())}, "IPAMConfig": doc{"IPv4Address": g.pick("", "10.55.0.9", "10.55.0.255", "x", "::1")}, "MacAddress": g.pick("", "02:42:ac:11:00:02", "x"), "Links": []string{g.container() + ":l"}}
	for key := range d {
		if g.chance(70) {
			delete(d, key)
		}
	}
	return d
}

func (g *grammar) createDoc() doc {
	d := doc{"Image": g.image(), "Cmd": g.command()}
	if g.chance(10) {
		d["Entrypoint"] = g.command()
	}
	members := doc{"Tty": g.chance(30), "OpenStdin": g.chance(50), "StdinOnce": g.chance(50), "AttachStdout": true, "Env": []string{"A=b", g.text()}, "Labels": doc{"a": "b", "l": g.text()},
		"User": g.pick("", "0", "1000:1000", "user", "nosuch", "5000000000"), "WorkingDir": g.pick("", "/www", "/new/dir", "rel", "/proc/self/fd/5"), "Hostname": g.pick("h", "bad host", strings.Repeat("h", 70)),
		"Domainname": "d.example", "StopSignal": g.pick("", "SIGINT", "KILL", "x"), "StopTimeout": g.r.IntN(3) - 1, "ExposedPorts": doc{g.pick("80/tcp", "53/udp", "x", "80/icmp", "99999/tcp", "80-82/tcp"): doc{}},
		"Volumes": doc{g.pick("/data", "/", "rel", "/proc", "/www"): doc{}}, "Healthcheck": doc{"Test": []string{g.pick("CMD", "CMD-SHELL", "NONE", "x"), "true"}, "Interval": []int64{1e6, 5e8, 1, -1}[g.r.IntN(4)], "Retries": g.r.IntN(3)},
		"NetworkDisabled": g.chance(30), "MacAddress": g.pick("02:42:00:00:00:07", "x"), "Shell": []string{"sh"}, "ArgsEscaped": true}
	for key, v := range members {
		if g.chance(6) {
			d[key] = v
		}
	}
	if g.chance(75) {
		d["HostConfig"] = g.hostDoc()
	}
	if g.chance(15) {
		d["NetworkingConfig"] = doc{"EndpointsConfig": doc{g.pick("fznet1", "fznet2", "bridge", "nosuch"): g.endpoint()}}
	}
	return d
}

// hostDoc never asks for anything that could harm the host that the tests run
// on: binds name the scenario's own directory only.
func (g *grammar) hostDoc() doc {
	all := doc{
		"AutoRemove": g.chance(70), "RestartPolicy": g.restart(), "NetworkMode": g.pick("bridge", "none", "host", "fznet1", "fznet2", "container:"+g.name(), "nosuch", "default"),
		"Memory": g.size(), "MemorySwap": g.size(), "MemoryReservation": g.size(), "NanoCpus": g.size(), "CpuShares": g.r.IntN(2000), "CpuPeriod": g.r.IntN(200000), "CpuQuota": g.r.IntN(100000), "CpusetCpus": g.pick("0", "0-1", "9-8", "x"),
		"PidsLimit": g.r.IntN(60) - 2, "OomScoreAdj": g.r.IntN(3000) - 1500, "ShmSize": g.size(), "ReadonlyRootfs": g.chance(50), "Init": g.chance(50),
		"Binds":  []string{g.dir + ":" + g.pick("/b", "/b:ro", "/b:ro,rslave", "/b:bad", "rel"), g.pick("fzvol1", "fzvol2", "bad/name") + ":/v"},
		"Mounts": []doc{{"Type": g.pick("volume", "tmpfs", "bind", "image", "x"), "Source": g.pick("", "fzvol1", g.dir, g.dir+"/none"), "Target": g.pick("/m", "", "rel", "/"), "ReadOnly": g.chance(30)}},
		"Tmpfs":  doc{g.pick("/t", "/", "rel"): g.pick("", "size=1m", "mode=1777", "bad=x")}, "VolumesFrom": []string{g.container() + g.pick("", ":ro", ":x")},
		"PortBindings": doc{g.pick("80/tcp", "81/udp", "x/tcp", "80"): []doc{{"HostIp": g.pick("", "127.0.0.1", "1.2.3.4", "x", "::1"), "HostPort": g.pick("", "18099", "18090-18099", "0", "70000", "x")}}}, "PublishAllPorts": true,
		"Links": []string{g.name() + ":alias"}, "CapAdd": []string{g.pick("NET_ADMIN", "ALL", "CAP_X", "net_raw")}, "CapDrop": []string{g.pick("ALL", "CHOWN")}, "SecurityOpt": []string{g.pick("no-new-privileges", "seccomp=unconfined", "seccomp={", "apparmor=x", "label=disable", "x")},
		"Dns": []string{g.pick("1.1.1.1", "x", "::1")}, "DnsSearch": []string{"example.com"}, "ExtraHosts": []string{g.pick("a:1.2.3.4", "a:host-gateway", "a", "a:x")},
		"PidMode": g.pick("", "host", "container:"+g.name(), "x"), "IpcMode": g.pick("", "none", "private", "shareable", "host", "container:"+g.name(), "x"), "UTSMode": g.pick("", "host", "container:"+g.name(), "x"), "CgroupnsMode": g.pick("", "private", "host", "container:"+g.name(), "x"), "UsernsMode": g.pick("", "host", "container:"+g.name(), "x"),
		"Sysctls": doc{g.pick("net.ipv4.ip_forward", "kernel.shmmax", "vm.overcommit_memory", "x"): "1"}, "Ulimits": []doc{{"Name": g.pick("nofile", "core", "x"), "Soft": g.r.IntN(2000), "Hard": g.r.IntN(2000)}},
		"Devices": []doc{{"PathOnHost": g.pick("/dev/null", "/dev/nosuch", "/etc/passwd"), "PathInContainer": "/dev/fz", "CgroupPermissions": g.pick("rwm", "r", "x")}}, "DeviceCgroupRules": []string{g.pick("c 1:3 rwm", "x")},
		"LogConfig":  doc{"Type": g.pick("", "json-file", "local", "none", "syslog", "fluentd"), "Config": doc{g.pick("max-size", "max-file", "tag", "mode", "x"): g.pick("10k", "2", "x", "non-blocking")}},
		"StorageOpt": doc{"size": g.pick("10G", "x")}, "GroupAdd": []string{g.pick("root", "7", "nosuch")}, "Runtime": g.pick("", "runc", "berth", "nosuch"), "ConsoleSize": []int{1, 2}, "Isolation": g.pick("", "default", "hyperv"),
		"MaskedPaths": []string{"/proc/kcore", "rel"}, "ReadonlyPaths": []string{"/proc/sys"}, "BlkioWeight": g.r.IntN(1500), "CgroupParent": g.pick("", "/fzparent", "../x"), "Annotations": doc{"a": g.text()},
	}
	d := doc{}
	for key, v := range all {
		if g.chance(3) {
			d[key] = v
		}
	}
	if g.chance(30) {
		d["NetworkMode"] = "none"
	}
	return d
}
