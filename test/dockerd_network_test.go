package test

import (
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestDockerdsNetworkOptions starts dockerd with what people write about its
// bridge, and looks from inside of containers.
func TestDockerdsNetworkOptions(t *testing.T) {
	t.Parallel()
	h := newDockerd(t)
	config := h.writeFile("daemon.json", `{"bip": "10.77.0.66/24", "fixed-cidr": "10.77.0.128/25", "icc": false, "ipv6": false,
		"default-address-pools": [{"base": "10.88.0.0/22", "size": 24}, {"base": "10.89.0.0/16", "size": 20}]}`)
	h.startDockerd("--config-file", config)
	h.berth("import", h.busyboxTar(), busyboxImage)
	h.berth("run", "-d", "--name", "web", busyboxImage, "sleep", "1000")
	web, err := netip.ParseAddr(h.berth("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", "web"))
	if err != nil || !netip.MustParsePrefix("10.77.0.128/25").Contains(web) {
		t.Errorf("its address is %s, %v", web, err)
	}
	out := h.berth("exec", "web", "sh", "-c", "ip route; ip -6 addr show dev eth0 scope global")
	if !strings.Contains(out, "default via 10.77.0.66 ") || strings.Contains(out, "inet6") {
		t.Errorf("inside:\n%s", out)
	}
	ping := func(to string) bool {
		return h.run("run", "--rm", busyboxImage, "ping", "-c", "1", "-W", "2", to).code == 0
	}
	if ping(web.String()) {
		t.Error("containers reach each other although icc is false")
	}
	if !ping("10.77.0.66") {
		t.Error("the bridge is out of reach")
	}
	for i, want := range []string{"10.88.0.0/24", "10.88.1.0/24", "10.88.2.0/24", "10.88.3.0/24", "10.89.0.0/20"} {
		name := string(rune('a'+i)) + "net"
		h.berth("network", "create", name)
		if got := h.berth("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", name); got != want {
			t.Errorf("network %s has %s, not %s", name, got, want)
		}
	}
	h.berth("run", "--rm", "--network", "anet", busyboxImage, "true")
	for _, silent := range []string{"--icc", "--ipv6", "--fixed-cidr", "--default-address-pool"} {
		if strings.Contains(h.engineLog(), "ignored "+silent) {
			t.Errorf("the log says that %s is ignored", silent)
		}
	}
}

// TestNetworksWithoutMasquerading answer under their own addresses.
func TestNetworksWithoutMasquerading(t *testing.T) {
	t.Parallel()
	h := newDockerd(t)
	h.startDockerd("--ip-masq=false", "--bip", "10.77.0.1/24")
	h.berth("import", h.busyboxTar(), busyboxImage)
	h.berth("network", "create", "--subnet", "10.78.0.0/24", "-o", "com.docker.network.bridge.enable_ip_masquerade=false", "plain")
	// Another machine, which knows the way back.
	far := exec.Command("sleep", "1000")
	far.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := far.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Process.Kill(); _ = far.Wait() })
	pid := strconv.Itoa(far.Process.Pid)
	there := "nsenter -t " + pid + " -n "
	for _, line := range []string{
		"ip link add lan type veth peer name eth0", "ip addr add 10.99.0.1/24 dev lan", "ip link set lan up", "ip link set eth0 netns " + pid,
		there + "ip addr add 10.99.0.2/24 dev eth0", there + "ip link set eth0 up", there + "ip route add default via 10.99.0.1",
	} {
		if o := execute(t, h.within(strings.Fields(line)...)); o.code != 0 {
			t.Fatalf("%s: %s", line, o.stderr)
		}
	}
	for _, network := range []string{"bridge", "plain"} {
		if o := h.run("run", "--rm", "--network", network, busyboxImage, "ping", "-c", "1", "-W", "10", "10.99.0.2"); o.code != 0 {
			t.Errorf("%s: nothing comes back: %s %s", network, o.stdout, o.stderr)
		}
	}
}
