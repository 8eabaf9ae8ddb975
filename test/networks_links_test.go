package test

import (
	"slices"
	"strings"
	"testing"
)

// Links on the default network as docker has had them from the beginning: names in
// /etc/hosts that follow the other container, and variables.
func TestLinksOnTheDefaultNetwork(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("run", "-d", "--name", "base", "-e", "MULTI=x y", "--expose", "80", "--expose", "53/udp", "--expose", "8000-8002", busyboxImage, "sleep", "1000")
	h.ok("run", "-d", "--name", "web", "--link", "base:my-db", "--link", "base", "-e", "BASE_PORT=mine", busyboxImage, "sleep", "1000")
	id := h.ok("inspect", "--format", "{{.Id}}", "base")[:12]
	address := func() string { return h.ok("inspect", "--format", "{{.NetworkSettings.IPAddress}}", id) }
	first := address()

	// As the real dockerd writes them.
	var want []string
	for _, v := range []string{"PORT=udp://IP:53", "PORT_53_UDP=udp://IP:53", "PORT_53_UDP_ADDR=IP", "PORT_53_UDP_PORT=53", "PORT_53_UDP_PROTO=udp",
		"PORT_80_TCP=tcp://IP:80", "PORT_80_TCP_ADDR=IP", "PORT_80_TCP_PORT=80", "PORT_80_TCP_PROTO=tcp",
		"PORT_8000_TCP_START=tcp://IP:8000", "PORT_8000_TCP_PORT_START=8000", "PORT_8000_TCP_END=tcp://IP:8002", "PORT_8000_TCP_PORT_END=8002",
		"PORT_8000_TCP=tcp://IP:8000", "PORT_8000_TCP_ADDR=IP", "PORT_8000_TCP_PORT=8000", "PORT_8000_TCP_PROTO=tcp",
		"PORT_8001_TCP=tcp://IP:8001", "PORT_8001_TCP_ADDR=IP", "PORT_8001_TCP_PORT=8001", "PORT_8001_TCP_PROTO=tcp",
		"PORT_8002_TCP=tcp://IP:8002", "PORT_8002_TCP_ADDR=IP", "PORT_8002_TCP_PORT=8002", "PORT_8002_TCP_PROTO=tcp", "ENV_MULTI=x y"} {
		want = append(want, "MY_DB_"+strings.ReplaceAll(v, "IP", first), "BASE_"+strings.ReplaceAll(v, "IP", first))
	}
	want[1] = "BASE_PORT=mine" // what the user says wins
	want = append(want, "MY_DB_NAME=/web/my-db", "BASE_NAME=/web/base")
	slices.Sort(want)
	for _, env := range []string{h.ok("exec", "web", "cat", "/proc/1/environ"), strings.ReplaceAll(h.ok("exec", "web", "env"), "\n", "\x00")} {
		var got []string
		for _, v := range strings.Split(env, "\x00") {
			if strings.HasPrefix(v, "MY_DB_") || strings.HasPrefix(v, "BASE_") {
				got = append(got, v)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("variables:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	h.equal(h.ok("inspect", "--format", "{{.HostConfig.Links}}", "web"), "[/base:/web/my-db /base:/web/base]")
	lines := func(names ...string) {
		t.Helper()
		hosts, at := h.ok("exec", "web", "cat", "/etc/hosts"), address()
		for _, name := range names {
			if !strings.Contains(hosts, at+"\t"+name+"\n") {
				t.Errorf("no line %s %s in\n%s", at, name, hosts)
			}
			alias, _, _ := strings.Cut(name, " ")
			h.ok("exec", "web", "ping", "-c", "1", "-W", "5", alias)
		}
	}
	lines("my-db "+id+" base", "base "+id)

	// They follow the other container, across engines, and its name.
	moved := func() {
		t.Helper()
		before := address()
		h.ok("stop", "-t", "0", "base")
		h.ok("run", "--rm", busyboxImage, "true")
		h.ok("start", "base")
		if address() == before {
			t.Fatal("the address is the same, which shows nothing")
		}
		lines("my-db "+id+" base", "base "+id)
	}
	moved()
	h.killEngine()
	h.startEngine()
	moved()
	h.ok("rename", "base", "store")
	h.equal(h.ok("inspect", "--format", "{{.HostConfig.Links}}", "web"), "[/store:/web/my-db /store:/web/base]")
	h.ok("restart", "-t", "0", "web")
	lines("my-db "+id+" store", "base "+id+" store")

	h.ok("rm", "--link", "/web/my-db")
	h.refused("No such link", "rm", "--link", "/web/my-db")
	h.equal(h.ok("inspect", "--format", "{{.HostConfig.Links}}", "web"), "[/store:/web/base]")
	if hosts := h.ok("exec", "web", "cat", "/etc/hosts"); strings.Contains(hosts, "my-db") {
		t.Errorf("the link is left in\n%s", hosts)
	}

	h.refused("could not get container for nosuch", "create", "--link", "nosuch:x", busyboxImage, "true")
	h.refused("can't be used with links", "create", "--network", "host", "--link", "store", busyboxImage, "true")
	h.refused("can't be used with links", "create", "--network", "container:store", "--link", "store", busyboxImage, "true")
	h.ok("stop", "-t", "0", "store")
	h.refused("Cannot link to a non running container: /store AS /late/store", "run", "--name", "late", "--link", "store", busyboxImage, "true")
	h.ok("network", "create", "zone")
	h.ok("run", "-d", "--name", "elsewhere", "--network", "zone", busyboxImage, "sleep", "1000")
	h.refused("it does not belong to the default network", "run", "--link", "elsewhere", busyboxImage, "true")
	h.ok("rm", "-f", "store")
	h.equal(h.ok("exec", "web", "echo", "goes on"), "goes on")
}

// A project from the time before networks.
func TestDockerComposeWithLinks(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	file := h.write("old/docker-compose.yml", `version: "2"
services:
  db:
    image: `+busyboxImage+`
    command: httpd -f -p 80 -h /www
    network_mode: bridge
    expose: ["80"]
  web:
    image: `+busyboxImage+`
    command: sleep 1000
    network_mode: bridge
    links: ["db:store"]
`, 0o644)
	compose := func(args ...string) string {
		t.Helper()
		o := execute(t, h.within(append([]string{"docker-compose", "-f", file}, args...)...))
		if o.code != 0 {
			t.Fatalf("docker-compose %s: code %d: %s%s", strings.Join(args, " "), o.code, o.stdout, o.stderr)
		}
		return strings.TrimSpace(o.stdout)
	}
	for range 2 { // the second time recreates both
		compose("up", "-d", "--force-recreate", "-t", "0")
		for _, name := range []string{"store", "db_1", "old_db_1"} {
			h.eventually(name+" answers", func() bool {
				o := execute(t, h.within("docker-compose", "-f", file, "exec", "-T", "web", "wget", "-qO-", "http://"+name+"/"))
				return o.stdout == "hello from a container\n"
			})
		}
	}
	if env := compose("exec", "-T", "web", "env"); !strings.Contains(env, "STORE_PORT_80_TCP_PORT=80") {
		t.Errorf("variables: %s", env)
	}
	compose("down", "-t", "0")
}
