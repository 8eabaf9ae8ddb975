package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"berth/internal/fault"
)

func TestHostKeepsItsRouterAdvertisements(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	newNeighbour(t, 1)
	m := startManager(t, testConfig(t))
	m.bridged.waitFull()
	if v, err := readSysctl("ipv4/ip_forward"); err != nil || v != "0" {
		t.Errorf("without a container ip_forward became %q, error %v", v, err)
	}
	attach(t, m, "a")
	for name, want := range map[string]string{
		"ipv6/conf/lan1/accept_ra": "2", "ipv6/conf/all/forwarding": "1", "ipv4/ip_forward": "1",
	} {
		if got, err := readSysctl(name); err != nil || got != want {
			t.Errorf("%s is %q, error %v; want %q", name, got, err, want)
		}
	}
}

func TestForeignBridgeIsRefused(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	run(t, "ip", "link", "add", "br-foreign", "type", "bridge")
	run(t, "ip", "addr", "add", "10.1.2.3/24", "dev", "br-foreign")
	cfg := testConfig(t)
	cfg.Bridge = "br-foreign"
	m, err := Open(context.Background(), cfg)
	must(t, err)
	defer m.Close()
	if err := m.Adopt(context.Background(), nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("using somebody else's bridge: %v", err)
	}
	// Containers that need no bridge run all the same.
	if _, err := m.NewSandbox(context.Background(), "n"); err != nil {
		t.Error(err)
	}
	m.Close()
	run(t, "ip", "link", "show", "br-foreign")
}

func TestHostWithoutIPv6(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	must(t, writeSysctl("ipv6/conf/all/disable_ipv6", "1"))
	m := startManager(t, testConfig(t))
	a := attach(t, m, "a", Port{HostPort: 8080, ContainerPort: 80})
	if a.IPv6.IsValid() || len(m.Ports("a")) != 1 {
		t.Errorf("the endpoint has IPv6: %+v", a.Endpoint)
	}
	serve(t, a.place, "a", "0.0.0.0:80")
	expect(t, nil, "tcp", "127.0.0.1:8080", "a")
	_, err := m.Attach(context.Background(), "b", Request{Ports: []Port{{HostIP: netip.IPv6Unspecified(), HostPort: 8081, ContainerPort: 80}}})
	if !fault.Is(err, fault.Unsupported) {
		t.Errorf("publishing on IPv6: %v", err)
	}
}

// A way out that carries only small packets (a tunnel, a cloud's overlay).
func TestMTUFollowsTheWayOut(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	lan := newNeighbour(t, 1)
	run(t, "ip", "link", "set", "lan1", "mtu", "1400")
	run(t, "ip", "route", "add", "default", "via", lan.own4.String())
	m := startManager(t, testConfig(t))
	a := attach(t, m, "a")
	must(t, a.do(func() error {
		have, err := net.InterfaceByName(insideName)
		if err == nil && have.MTU != 1400 {
			return fmt.Errorf("the container's MTU is %d", have.MTU)
		}
		return err
	}))
}

func TestWarnsOfAHostThatDropsForwardedPackets(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	m := startManager(t, testConfig(t))
	attach(t, m, "a")
	if w := m.Warnings(); len(w) != 0 {
		t.Errorf("warnings on a plain host: %q", w)
	}
	must(t, writeSysctl("ipv4/ip_forward", "0"))
	if w := m.Warnings(); len(w) != 1 || !strings.Contains(w[0], "ip_forward is off") {
		t.Errorf("warnings when forwarding is off: %q", w)
	}
	run(t, "nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
	if w := strings.Join(m.Warnings(), "\n"); !strings.Contains(w, "table ip filter, chain FORWARD") {
		t.Errorf("warnings: %q", w)
	}
}

// The bridge goes and comes back under living containers.
func TestLivingContainersGetTheirBridgeBack(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	cfg := testConfig(t)
	cfg.PoolSize = -1
	m := startManager(t, cfg)
	a := attach(t, m, "a", Port{HostPort: 8080, ContainerPort: 80})
	serve(t, a.place, "a", ":80")
	must(t, m.removeBridge())
	attach(t, m, "b")
	expect(t, nil, "tcp", "127.0.0.1:8080", "a")
}
