package test

import (
	"strings"
	"testing"
)

// published waits until a port of the host answers with the image's page.
func (h *host) published(port string) {
	h.t.Helper()
	h.eventually("port "+port+" answers", func() bool {
		out, _ := h.within("busybox", "wget", "-qO-", "http://127.0.0.1:"+port+"/").Output()
		return string(out) == "hello from a container\n"
	})
}

// The default network beside others, on containers that run and that don't.
func TestTheDefaultNetworkBesideOthers(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("network", "create", "zone")
	h.ok("network", "create", "abc")
	h.ok("network", "create", "--internal", "inside")
	networks := func(name, want string) {
		t.Helper()
		h.equal(h.ok("inspect", "--format", "{{range $n, $e := .NetworkSettings.Networks}}{{$n}} {{end}}", name), strings.TrimSpace(want))
	}
	gateway := func(name, network string) {
		t.Helper()
		want := h.ok("inspect", "--format", `{{(index .NetworkSettings.Networks "`+network+`").Gateway}}`, name)
		if got := h.ok("exec", name, "ip", "route"); !strings.Contains(got, "default via "+want+" ") {
			t.Errorf("%s goes out by %q, want %s (%s)", name, got, want, network)
		}
	}
	h.ok("run", "-d", "--name", "peer", "--network", "zone", busyboxImage, "sleep", "1000")

	// Named at create, in both orders.
	h.berth("run", "-d", "--name", "one", "--network", "bridge", "--network", "zone", "-p", "127.0.0.1:18091:80", busyboxImage, "httpd", "-f", "-p", "80", "-h", "/www")
	h.berth("run", "-d", "--name", "two", "--network", "zone", "--network", "bridge", "-p", "127.0.0.1:18092:80", busyboxImage, "httpd", "-f", "-p", "80", "-h", "/www")
	for name, port := range map[string]string{"one": "18091", "two": "18092"} {
		networks(name, "bridge zone ")
		gateway(name, "bridge")
		h.published(port)
		h.ok("exec", name, "ping", "-c", "1", "-W", "2", "peer")
		h.ok("exec", "peer", "ping", "-c", "1", "-W", "2", name)
		h.equal(h.ok("exec", name, "grep", "-c", h.ok("inspect", "--format", "{{.Config.Hostname}}", name), "/etc/hosts"), "3") // two and one with IPv6
	}
	h.ok("rm", "-f", "two")

	// Off and on again while it runs; ports go along with the default route.
	h.ok("network", "disconnect", "bridge", "one")
	networks("one", "zone ")
	gateway("one", "zone")
	h.published("18091")
	h.refused("is not connected to network", "network", "disconnect", "bridge", "one")
	h.ok("network", "connect", "bridge", "one")
	networks("one", "bridge zone ")
	gateway("one", "bridge")
	h.published("18091")
	h.refused("already exists in network", "network", "connect", "bridge", "one")
	h.ok("network", "connect", "abc", "one") // the first by name
	gateway("one", "abc")
	h.published("18091")
	h.ok("network", "disconnect", "abc", "one")
	h.berth("network", "connect", "--gw-priority", "1", "abc", "peer")
	gateway("peer", "abc")
	h.ok("network", "connect", "inside", "one")
	gateway("one", "bridge")

	// The next engine and the next start find the same.
	check := func() {
		t.Helper()
		networks("one", "bridge inside zone ")
		gateway("one", "bridge")
		h.published("18091")
		h.ok("exec", "one", "ping", "-c", "1", "-W", "2", "peer")
		h.equal(h.ok("port", "one"), "80/tcp -> 127.0.0.1:18091")
	}
	h.killEngine()
	h.startEngine()
	check()
	h.ok("restart", "-t", "0", "one")
	check()
	h.ok("stop", "-t", "0", "one")
	h.ok("network", "disconnect", "bridge", "one")
	networks("one", "inside zone ")
	h.ok("start", "one")
	gateway("one", "zone")
	h.published("18091")
	for _, n := range []string{"zone", "inside"} {
		h.ok("network", "disconnect", n, "one")
	}
	networks("one", "")
	h.killEngine()
	h.startEngine()
	networks("one", "")
	h.equal(h.ok("exec", "one", "ls", "/sys/class/net"), "lo")
	h.ok("network", "connect", "bridge", "one")
	h.published("18091")

	// The predefined networks that stand alone.
	h.ok("run", "-d", "--name", "bare", "--network", "none", busyboxImage, "sleep", "1000")
	h.ok("create", "--name", "onhost", "--network", "host", busyboxImage, "sleep", "1000")
	h.refused("private (none) mode", "network", "connect", "bridge", "bare")
	h.refused("private (none) mode", "network", "connect", "none", "one")
	h.refused("cannot be disconnected from host network or connected to host network", "network", "connect", "host", "one")
	h.refused("cannot be disconnected from host network or connected to host network", "network", "disconnect", "host", "onhost")
	h.refused("cannot be connected to any other network", "network", "connect", "bridge", "onhost")
	h.refused("supported only for containers in user defined networks", "network", "connect", "--alias", "x", "bridge", "peer")
	h.ok("network", "disconnect", "none", "bare")
	h.ok("network", "connect", "zone", "bare")
	h.ok("exec", "bare", "ping", "-c", "1", "-W", "2", "peer")
	h.ok("rm", "-f", "one", "peer", "bare", "onhost")
	h.equal(h.ok("network", "inspect", "--format", "{{len .Containers}}", "bridge"), "0")
}
