package test

import (
	"net/netip"
	"strings"
	"testing"
)

// answers waits until a URL answers on the host with the image's page.
func (h *host) answers(url string) {
	h.t.Helper()
	h.eventually(url+" answers", func() bool {
		out, _ := h.within("timeout", "5", "busybox", "wget", "-qO-", url).Output()
		return string(out) == "hello from a container\n"
	})
}

// newHostWithLoopback6 makes a host on which ports are published on ::1 as well: one
// whose kernel does not pass bridged packets through ip6tables.
func newHostWithLoopback6(t *testing.T) *host {
	t.Helper()
	h := newHost(t)
	execute(t, h.within("sh", "-c", "echo 0 > /proc/sys/net/bridge/bridge-nf-call-ip6tables")) // which need not be there
	h.startEngine()
	h.berth("import", h.busyboxTar(), busyboxImage)
	return h
}

// Networks of one's own with IPv6: addresses that were asked for and others, names,
// published ports, and networks without a way out.
func TestNetworksWithIPv6(t *testing.T) {
	t.Parallel()
	h := newHostWithLoopback6(t)
	h.ok("network", "create", "--ipv6", "--subnet", "fd00:77::/64", "--gateway", "fd00:77::99", "--ip-range", "fd00:77::ff00/120", "--subnet", "10.77.0.0/24", "zone")
	h.ok("network", "create", "--ipv6", "local")
	h.ok("network", "create", "--ipv6", "--internal", "--subnet", "fd00:78::/64", "inside")
	h.ok("network", "create", "-o", "com.docker.network.enable_ipv6=true", "byoption")
	h.equal(h.ok("network", "inspect", "--format", "{{(index .IPAM.Config 1).Subnet}} {{(index .IPAM.Config 1).IPRange}} {{(index .IPAM.Config 1).Gateway}}", "zone"), "fd00:77::/64 fd00:77::ff00/120 fd00:77::99")
	for _, name := range []string{"local", "byoption"} {
		subnet, err := netip.ParsePrefix(h.ok("network", "inspect", "--format", "{{(index .IPAM.Config 1).Subnet}}", name))
		if err != nil || !netip.MustParsePrefix("fc00::/7").Overlaps(subnet) || subnet.Bits() != 64 {
			t.Errorf("%s has the subnet %s, no unique local one: %v", name, subnet, err)
		}
	}
	h.ok("run", "-d", "--name", "web", "--network", "zone", "--ip6", "fd00:77::5", "-p", "18095:80", busyboxImage, "httpd", "-f", "-p", "[::]:80", "-h", "/www")
	h.ok("run", "-d", "--name", "peer", "--network", "zone", "--network-alias", "friend", busyboxImage, "sleep", "1000")
	address := func(name, network string) string {
		t.Helper()
		return h.ok("inspect", "--format", `{{(index .NetworkSettings.Networks "`+network+`").GlobalIPv6Address}}`, name)
	}
	h.equal(h.ok("inspect", "--format", "{{with .NetworkSettings.Networks.zone}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}}{{end}}", "web"), "fd00:77::5/64 fd00:77::99")
	if a, err := netip.ParseAddr(address("peer", "zone")); err != nil || !netip.MustParsePrefix("fd00:77::ff00/120").Contains(a) {
		t.Errorf("an address outside of the range: %s", a)
	}
	for from, to := range map[string][]string{"peer": {"fd00:77::5", "web", "fd00:77::99"}, "web": {address("peer", "zone"), "friend"}} {
		for _, name := range to {
			h.ok("exec", from, "ping", "-6", "-c", "1", "-W", "5", name)
		}
	}
	h.equal(h.ok("exec", "peer", "wget", "-qO-", "http://[fd00:77::5]/"), "hello from a container")
	h.refused("already in use", "run", "--network", "zone", "--ip6", "fd00:77::5", busyboxImage, "true")
	h.refused("no configured subnet contains IP address fd00:99::5", "run", "--network", "zone", "--ip6", "fd00:99::5", busyboxImage, "true")
	for _, url := range []string{"http://[fd00:77::5]/", "http://[::1]:18095/", "http://127.0.0.1:18095/", "http://[fd00:77::99]:18095/"} {
		h.answers(url)
	}
	if got := h.ok("port", "web"); !strings.Contains(got, "[::]:18095") {
		t.Errorf("the port is published as %q", got)
	}

	// The others, joined while it runs; the next engine finds it all.
	for _, network := range []string{"local", "inside", "byoption"} {
		h.ok("run", "-d", "--name", "on"+network, "--network", network, busyboxImage, "sleep", "1000")
		h.ok("network", "connect", network, "peer")
	}
	check := func() {
		t.Helper()
		for _, network := range []string{"local", "inside", "byoption"} {
			h.ok("exec", "peer", "ping", "-6", "-c", "1", "-W", "5", "on"+network)
			h.ok("exec", "on"+network, "ping", "-6", "-c", "1", "-W", "5", address("peer", network))
		}
		if out := h.ok("exec", "oninside", "ip", "-6", "route"); strings.Contains(out, "default") {
			t.Errorf("a way out of an internal network: %s", out)
		}
		if o := h.docker("exec", "oninside", "ping", "-6", "-c", "1", "-W", "1", "fd00:77::5"); o.code == 0 {
			t.Error("an internal network reaches another")
		}
		h.answers("http://[::1]:18095/")
	}
	check()
	h.killEngine()
	h.startEngine()
	check()
	h.ok("restart", "-t", "0", "web", "peer")
	check()
	h.equal(address("web", "zone"), "fd00:77::5")
}

// enable_ipv6 in a compose file.
func TestDockerComposeWithIPv6(t *testing.T) {
	t.Parallel()
	h := newHostWithLoopback6(t)
	file := h.write("six/docker-compose.yml", `version: "2.4"
services:
  web:
    image: `+busyboxImage+`
    command: httpd -f -p [::]:80 -h /www
    ports: ["18096:80"]
    networks: {zone: {ipv6_address: "fd00:79::80"}}
  asker:
    image: `+busyboxImage+`
    command: sleep 1000
    networks: [zone]
networks:
  zone:
    enable_ipv6: true
    ipam: {config: [{subnet: 10.79.0.0/24}, {subnet: "fd00:79::/64"}]}
`, 0o644)
	compose := func(args ...string) string {
		t.Helper()
		o := execute(t, h.within(append([]string{"docker-compose", "-f", file}, args...)...))
		if o.code != 0 {
			t.Fatalf("docker-compose %s: code %d: %s%s", strings.Join(args, " "), o.code, o.stdout, o.stderr)
		}
		return strings.TrimSpace(o.stdout)
	}
	compose("up", "-d")
	if out := compose("exec", "-T", "asker", "ping", "-6", "-c", "1", "-W", "5", "web"); !strings.Contains(out, "fd00:79::80") {
		t.Errorf("web is at %s", out)
	}
	h.answers("http://[::1]:18096/")
	compose("down", "-t", "0")
}

// A container with addresses of its own has them again at once when it is started
// again, however often.
func TestFixedAddressesOverRestarts(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("network", "create", "--ipv6", "--subnet", "10.78.0.0/24", "--subnet", "fd00:7a::/64", "zone")
	h.ok("run", "-d", "--name", "one", "--network", "zone", "--ip", "10.78.0.9", "--ip6", "fd00:7a::9", busyboxImage, "sleep", "1000")
	for range 3 {
		h.ok("restart", "-t", "0", "one")
	}
	h.killEngine()
	h.startEngine()
	h.ok("restart", "-t", "0", "one")
	h.ok("rm", "-f", "one")
	h.ok("run", "-d", "--name", "two", "--network", "zone", "--ip", "10.78.0.9", "--ip6", "fd00:7a::9", busyboxImage, "sleep", "1000")
	h.equal(h.ok("inspect", "--format", "{{with .NetworkSettings.Networks.zone}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}", "two"), "10.78.0.9 fd00:7a::9")
	h.refused("already in use", "run", "--network", "zone", "--ip", "10.78.0.9", busyboxImage, "true")
}
