package test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What docker's options of bridges do, with real traffic.
func TestOptionsOfNetworks(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	option := func(name, value string) string { return "com.docker.network." + name + "=" + value }
	h.ok("network", "create", "-o", option("bridge.name", "brname7"), "-o", option("driver.mtu", "1280"), "-o", option("container_iface_prefix", "net"), "named")
	h.ok("network", "create", "-o", option("bridge.enable_icc", "false"), "apart")
	h.ok("network", "create", "-o", option("bridge.host_binding_ipv4", "127.0.0.2"), "bound")
	web := func(name, network string, args ...string) {
		t.Helper()
		args = append([]string{"run", "-d", "--name", name, "--network", network}, args...)
		h.ok(append(args, busyboxImage, "httpd", "-f", "-p", "80", "-h", "/www")...)
	}
	web("one", "named")
	web("two", "named")
	if out, err := h.within("ip", "-o", "link", "show", "dev", "brname7").Output(); err != nil || !strings.Contains(string(out), "mtu 1280") {
		t.Errorf("the bridge: %s %v", out, err)
	}
	h.equal(h.ok("exec", "one", "cat", "/sys/class/net/net0/mtu"), "1280")
	h.ok("exec", "one", "ping", "-c", "1", "-W", "5", "-s", "1252", "two")
	h.refused("networks have same bridge name", "network", "create", "-o", option("bridge.name", "brname7"), "other")

	// Apart from one another, within reach of the host, published and on the way out.
	web("left", "apart", "-p", "127.0.0.1:18097:80")
	web("right", "apart")
	gateway := h.ok("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "apart")
	for _, name := range []string{"right", h.ok("inspect", "--format", "{{.NetworkSettings.Networks.apart.IPAddress}}", "right")} {
		if o := h.docker("exec", "left", "ping", "-c", "1", "-W", "1", name); o.code == 0 {
			t.Errorf("%s is within reach of its neighbour", name)
		}
	}
	h.answers("http://127.0.0.1:18097/")
	h.ok("exec", "right", "ping", "-c", "1", "-W", "5", gateway)
	h.answers("http://" + h.ok("inspect", "--format", "{{.NetworkSettings.Networks.apart.IPAddress}}", "right") + "/")
	h.ok("network", "create", "together")
	h.ok("network", "connect", "together", "left")
	h.ok("network", "connect", "together", "right")
	right := h.ok("inspect", "--format", "{{.NetworkSettings.Networks.together.IPAddress}}", "right")
	h.equal(h.ok("exec", "left", "wget", "-qO-", "http://"+right+"/"), "hello from a container")

	// Ports that name no address are published on the network's.
	web("port", "bound", "-p", "18098:80")
	h.equal(h.ok("port", "port"), "80/tcp -> 127.0.0.2:18098")
	h.answers("http://127.0.0.2:18098/")
	if out, err := h.within("timeout", "2", "busybox", "wget", "-qO-", "http://127.0.0.1:18098/").Output(); err == nil {
		t.Errorf("another address answers: %s", out)
	}
}

// What a container held that ended while no engine ran is free when the next one is
// there: its namespace, its interfaces, its address and its port.
func TestTheNextEngineFreesTheNetworksOfTheDead(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.ok("network", "create", "--subnet", "10.76.0.0/24", "zone")
	onBridge := []string{"-p", "127.0.0.1:18099:80", busyboxImage, "sleep", "1000"}
	onZone := []string{"--network", "zone", "--ip", "10.76.0.9", busyboxImage, "sleep", "1000"}
	h.ok(append([]string{"run", "-d", "--name", "gone"}, onBridge...)...)
	h.ok(append([]string{"run", "-d", "--name", "lost"}, onZone...)...)
	h.ok("run", "-d", "--name", "stays", "--network", "zone", busyboxImage, "sleep", "1000")
	var doomed []int
	for _, name := range []string{"gone", "lost"} {
		pid, err := strconv.Atoi(h.ok("inspect", "--format", "{{.State.Pid}}", name))
		if err != nil {
			t.Fatal(err)
		}
		doomed = append(doomed, pid)
	}
	stays := h.ok("inspect", "--format", "{{.Id}}", "stays")
	h.killEngine()
	for _, pid := range doomed {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	h.startEngine()
	h.equal(h.ok("ps", "--format", "{{.Names}}"), "stays")
	h.eventually("no interface of the dead is left", func() bool {
		out, err := h.within("ip", "-o", "link", "show", "master", "br-"+h.ok("network", "inspect", "--format", "{{.Id}}", "zone")[:12]).Output()
		return err == nil && strings.Count(string(out), "\n") == 1
	})
	entries, err := os.ReadDir(h.path("run", "netns"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if len(e.Name()) == 64 && e.Name() != stays {
			t.Errorf("a namespace is kept for %s", e.Name())
		}
	}
	h.ok(append([]string{"run", "-d", "--name", "new1"}, onBridge...)...)
	h.ok(append([]string{"run", "-d", "--name", "new2"}, onZone...)...)
	h.ok("exec", "stays", "ping", "-c", "1", "-W", "5", "new2")
}
