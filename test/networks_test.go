package test

import (
	"strings"
	"testing"
)

func TestUserDefinedNetworks(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.equal(h.ok("network", "create", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.254", "--ip-range", "10.77.0.128/25", "--label", "a=b", "front")[12:], h.ok("network", "inspect", "--format", "{{.Id}}", "front")[12:])
	h.ok("network", "create", "back")
	h.refused("already exists", "network", "create", "front")
	h.refused("overlaps", "network", "create", "--subnet", "10.77.0.128/25", "other")
	h.refused("macvlan", "network", "create", "-d", "macvlan", "other")
	h.refused("pre-defined", "network", "rm", "bridge")
	h.equal(h.ok("network", "ls", "--filter", "label=a=b", "--format", "{{.Name}} {{.Driver}}"), "front bridge")

	h.ok("run", "-d", "--name", "web", "--network", "front", "--network-alias", "www", "-p", "127.0.0.1:18081:80", busyboxImage, "httpd", "-f", "-p", "80", "-h", "/www")
	h.equal(h.ok("inspect", "--format", "{{.NetworkSettings.Networks.front.IPAddress}} {{.NetworkSettings.Networks.front.Gateway}}", "web"), "10.77.0.128 10.77.0.254")
	run := func(network string, command ...string) string {
		t.Helper()
		o := h.docker(append([]string{"run", "--rm", "--network", network, busyboxImage}, command...)...)
		return strings.TrimSpace(o.stdout + o.stderr)
	}
	// A static busybox can look names up for ping, and not for wget.
	reaches := func(network, name string, want bool) {
		t.Helper()
		if got := run(network, "ping", "-c", "1", "-W", "2", name); strings.Contains(got, "1 packets received") != want {
			t.Errorf("from %s to %s: %q, want it reached: %v", network, name, got, want)
		}
	}
	// By name, alias, id and name with the network.
	id := h.ok("inspect", "--format", "{{.Id}}", "web")[:12]
	for _, name := range []string{"web", "www", "WWW", id, "web.front"} {
		reaches("front", name, true)
	}
	reaches("back", "10.77.0.128", false)
	reaches("back", "web", false)
	h.eventually("the published port answers", func() bool {
		out, _ := h.within("busybox", "wget", "-qO-", "http://127.0.0.1:18081/").Output()
		return string(out) == "hello from a container\n"
	})
	// Connecting and disconnecting what runs.
	h.ok("network", "connect", "--alias", "second", "--ip", h.second("back"), "back", "web")
	reaches("back", "second", true)
	h.refused("already exists in network", "network", "connect", "back", "web")
	h.killEngine()
	h.startEngine()
	reaches("back", "web", true)
	h.equal(h.ok("inspect", "--format", "{{len .NetworkSettings.Networks}} {{(index .NetworkSettings.Networks \"back\").IPAddress}}", "web"), "2 "+h.second("back"))
	h.refused("active endpoints", "network", "rm", "back")
	h.ok("network", "disconnect", "back", "web")
	reaches("back", h.second("back"), false)
	h.ok("rename", "web", "site")
	reaches("front", "site", true)
	h.ok("restart", "-t", "0", "site")
	h.eventually("the published port answers again", func() bool {
		out, _ := h.within("busybox", "wget", "-qO-", "http://127.0.0.1:18081/").Output()
		return string(out) == "hello from a container\n"
	})
	h.ok("run", "-d", "--name", "fixed", "--network", "front", "--ip", "10.77.0.7", busyboxImage, "sleep", "1000")
	h.refused("already in use", "run", "--rm", "--network", "front", "--ip", "10.77.0.7", busyboxImage, "true")
	h.refused("no configured subnet", "run", "--rm", "--network", "front", "--ip", "10.78.0.7", busyboxImage, "true")
	h.equal(h.ok("exec", "fixed", "ping", "-c", "1", "-q", "site")[:9], "PING site")
	h.ok("network", "rm", "back")
	h.refused("not found", "run", "--rm", "--network", "back", busyboxImage, "true")
	h.ok("rm", "-f", "site", "fixed")
	h.ok("network", "prune", "-f")
	h.equal(h.ok("network", "ls", "--filter", "type=custom", "-q"), "")
	links, _ := h.within("ip", "-o", "link").Output()
	if strings.Contains(string(links), "br-") {
		t.Errorf("bridges are left: %s", links)
	}
}

// second is the second last address of a network's subnet that begins with its own.
func (h *host) second(network string) string {
	subnet, _, _ := strings.Cut(h.ok("network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", network), "/")
	return subnet[:strings.LastIndexByte(subnet, '.')] + ".99"
}

// CVE-2024-29018: what an internal network's container asks goes nowhere else.
func TestInternalNetworksStayInside(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("network", "create", "--internal", "inside")
	h.ok("network", "create", "outside")
	h.ok("run", "-d", "--name", "peer", "--network", "inside", busyboxImage, "httpd", "-f", "-p", "80", "-h", "/www")
	asked := h.answerNames()
	h.ok("run", "-d", "--name", "asker", "--network", "inside", "--dns", "127.0.0.1", busyboxImage, "sleep", "1000")
	if o := h.docker("exec", "asker", "ping", "-c", "1", "-W", "2", "peer"); o.code != 0 {
		t.Errorf("inside: %q %q", o.stdout, o.stderr)
	}
	if o := h.docker("exec", "asker", "ping", "-c", "1", "-W", "1", "secret.example.com"); o.code == 0 {
		t.Error("a name outside was found")
	}
	if strings.Contains(asked(), "secret") {
		t.Error("the query left the internal network")
	}
	if routes := h.ok("exec", "asker", "cat", "/proc/net/route"); strings.Contains(routes, "eth0\t00000000\t") {
		t.Errorf("an internal network has a default route: %s", routes)
	}
	h.ok("network", "connect", "outside", "asker")
	if routes := h.ok("exec", "asker", "cat", "/proc/net/route"); !strings.Contains(routes, "eth1\t00000000\t") {
		t.Errorf("no default route after joining a network that has one: %s", routes)
	}
	h.ok("exec", "asker", "ping", "-c", "1", "-W", "5", "known.example.com")
	if !strings.Contains(asked(), "known") {
		t.Error("names are not asked for outside after joining a network that leads there")
	}
	h.ok("rm", "-f", "peer", "asker")
}
