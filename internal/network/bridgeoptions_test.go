package network

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestContainersThatAreKeptApart(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	cfg := testConfig(t)
	cfg.Isolated = true
	m := startManager(t, cfg)
	n := newNeighbour(t, 1)
	serve(t, n.place, "n", ":80")
	a, b := attach(t, m, "a"), attach(t, m, "b")
	serve(t, b.place, "b", ":80")
	refuse(t, a.place, "tcp", at(b.IPv4.Addr(), 80))
	expect(t, nil, "tcp", at(b.IPv4.Addr(), 80), "b")
	expect(t, a.place, "tcp", at(n.own4, 80), "n")
}

func TestContainersGoOutUnderTheirOwnAddresses(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	cfg := testConfig(t)
	cfg.NoMasq = true
	m := startManager(t, cfg)
	n := newNeighbour(t, 1)
	serve(t, n.place, "n", ":80")
	a := attach(t, m, "a", Port{Proto: "tcp", HostPort: 8080, ContainerPort: 81})
	serve(t, a.place, "a", ":80")
	serve(t, a.place, "published", ":81")
	if from := expect(t, a.place, "tcp", at(n.own4, 80), "n"); from != a.IPv4.Addr().String() {
		t.Errorf("the neighbour saw %s, not %s", from, a.IPv4.Addr())
	}
	refuse(t, n.place, "tcp", at(a.IPv4.Addr(), 80)) // what was not published
	expect(t, n.place, "tcp", at(n.host4, 8080), "published")
	expect(t, nil, "tcp", at(netip.MustParseAddr("127.0.0.1"), 8080), "published")
}

func TestTheBridgesAddressesAreConfigured(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	cfg := testConfig(t)
	cfg.Subnet4, cfg.Range4 = netip.MustParsePrefix("10.55.0.0/24"), netip.MustParsePrefix("10.55.0.128/25")
	cfg.Gateway4, cfg.NoIPv6 = netip.MustParseAddr("10.55.0.66"), true
	m := startManager(t, cfg)
	n := newNeighbour(t, 1)
	serve(t, n.place, "n", ":80")
	a := attach(t, m, "a", Port{Proto: "tcp", HostPort: 8080, ContainerPort: 80})
	serve(t, a.place, "a", ":80")
	if !cfg.Range4.Contains(a.IPv4.Addr()) || a.Gateway4 != cfg.Gateway4 || a.IPv6.IsValid() || m.Bridge().IPv6 {
		t.Errorf("%+v", a.Endpoint)
	}
	if from := expect(t, a.place, "tcp", at(n.own4, 80), "n"); from != n.host4.String() {
		t.Errorf("the neighbour saw %s", from)
	}
	expect(t, a.place, "tcp", at(a.IPv4.Addr(), 80), "a")
	expect(t, n.place, "tcp", at(n.host4, 8080), "a")
	m.Close()

	// Another engine at the same place, with another router and bridge address.
	cfg.Gateway4, cfg.Router4 = netip.Addr{}, netip.MustParseAddr("10.55.0.9")
	m = startManager(t, cfg)
	b := attach(t, m, "b")
	if m.Bridge().Gateway4.String() != "10.55.0.1" || b.Gateway4 != cfg.Router4 {
		t.Errorf("%+v %+v", m.Bridge(), b.Endpoint)
	}
	must(t, b.do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		routes, err := h.RouteList(nil, netlink.FAMILY_V4)
		for _, r := range routes {
			if r.Gw != nil && r.Gw.String() == "10.55.0.9" {
				return err
			}
		}
		t.Errorf("no route leads to the router: %v %v", routes, err)
		return nil
	}))
	m.Close()
	for name, change := range map[string]func(*Config){
		"router":  func(c *Config) { c.Router4 = netip.MustParseAddr("10.56.0.1") },
		"gateway": func(c *Config) { c.Gateway4 = netip.MustParseAddr("10.55.0.0") },
		"range":   func(c *Config) { c.Range4 = netip.MustParsePrefix("10.55.0.0/23") },
	} {
		bad := cfg
		change(&bad)
		if _, err := Open(t.Context(), bad); err == nil {
			t.Errorf("%s: a configuration outside of the subnet is accepted", name)
		}
	}
}
