package network

import (
	"net/netip"
	"testing"
)

// Bridged packets may or may not pass the host's packet filter; both are common.
func TestReachability(t *testing.T) {
	if onTestHost(t) {
		testReachability(t, "0")
	}
}

func TestReachabilityWithBridgeNetfilter(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	if _, err := readSysctl("bridge/bridge-nf-call-iptables"); err != nil {
		t.Skip("the kernel has no br_netfilter")
	}
	testReachability(t, "1")
}

// setBridgeNetfilter switches the filtering of bridged packets; a kernel
// without it behaves as with "0".
func setBridgeNetfilter(t *testing.T, value string) {
	for _, name := range []string{"iptables", "ip6tables"} {
		if err := writeSysctl("bridge/bridge-nf-call-"+name, value); err != nil && value != "0" {
			t.Fatal(err)
		}
	}
}

func testReachability(t *testing.T, bridgeNetfilter string) {
	setBridgeNetfilter(t, bridgeNetfilter)
	must(t, writeSysctl("ipv4/conf/all/rp_filter", "1")) // the strictest, which some distributions set
	m := startManager(t, testConfig(t))
	lan := newNeighbour(t, 1)
	serve(t, lan.place, "lan", ":90")
	serve(t, nil, "host", ":91")
	a := attach(t, m, "a", Port{HostPort: 8080, ContainerPort: 80}, Port{Proto: "udp", HostPort: 8080, ContainerPort: 80})
	b := attach(t, m, "b")
	serve(t, a.place, "a", ":80")
	serve(t, b.place, "b", ":80")

	for _, network := range []string{"tcp", "udp"} {
		// Out, under the host's address.
		if from := expect(t, b.place, network, at(lan.own4, 90), "lan"); from != lan.host4.String() {
			t.Errorf("%s: the outside saw %s, not the host's address", network, from)
		}
		if from := expect(t, b.place, network, at(lan.own6, 90), "lan"); from != lan.host6.String() {
			t.Errorf("%s: the outside saw %s, not the host's IPv6 address", network, from)
		}
		// To the host and to one another.
		expect(t, b.place, network, at(m.Bridge().Gateway4, 91), "host")
		expect(t, b.place, network, at(m.Bridge().Gateway6, 91), "host")
		expect(t, b.place, network, at(a.IPv4.Addr(), 80), "a")
		expect(t, b.place, network, at(a.IPv6.Addr(), 80), "a")
		expect(t, nil, network, at(b.IPv4.Addr(), 80), "b")
		// In, through the published port; the container sees who is asking.
		if from := expect(t, lan.place, network, at(lan.host4, 8080), "a"); from != lan.own4.String() {
			t.Errorf("%s: the container saw %s, not the client's address", network, from)
		}
		if from := expect(t, lan.place, network, at(lan.host6, 8080), "a"); from != lan.own6.String() {
			t.Errorf("%s: the container saw %s, not the client's IPv6 address", network, from)
		}
		// From the host itself, by all its addresses.
		for _, ip := range []string{"127.0.0.1", "127.1.2.3"} {
			expect(t, nil, network, at(netip.MustParseAddr(ip), 8080), "a")
		}
		expect(t, nil, network, at(lan.host4, 8080), "a")
		expect(t, nil, network, at(lan.host6, 8080), "a")
		if bridgeNetfilter == "0" {
			expect(t, nil, network, "[::1]:8080", "a")
		} else {
			refuse(t, nil, network, "[::1]:8080")
		}
		// Hairpin: from a neighbour on the bridge, and from the container itself.
		for _, from := range []box{a, b} {
			expect(t, from.place, network, at(lan.host4, 8080), "a")
			expect(t, from.place, network, at(lan.host6, 8080), "a")
			expect(t, from.place, network, at(m.Bridge().Gateway4, 8080), "a")
		}
	}
}

func TestUnpublishedPortsAreUnreachableFromOutside(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	m := startManager(t, testConfig(t))
	other := startManager(t, testConfig(t))
	lan, lan2 := newNeighbour(t, 1), newNeighbour(t, 2)
	a := attach(t, m, "a", Port{HostPort: 8080, ContainerPort: 80})
	stranger := attach(t, other, "stranger")
	serve(t, a.place, "a", ":80")
	serve(t, a.place, "a", ":81")
	serve(t, lan2.place, "lan2", ":90")
	for _, network := range []string{"tcp", "udp"} {
		for _, from := range []*place{lan.place, stranger.place} {
			// Neither by the container's own address, published or not (the neighbour has a route through us) ...
			for _, port := range []uint16{80, 81} {
				refuse(t, from, network, at(a.IPv4.Addr(), port))
				refuse(t, from, network, at(a.IPv6.Addr(), port))
			}
			// ... nor by a port of the host that nobody published.
			refuse(t, from, network, at(lan.host4, 81))
			refuse(t, from, network, at(lan.host6, 81))
		}
		// Another engine's containers use published ports like everybody else.
		expect(t, stranger.place, network, at(lan2.own4, 90), "lan2")
	}
	expect(t, stranger.place, "tcp", at(lan.host4, 8080), "a")
	expect(t, stranger.place, "tcp", at(lan.host6, 8080), "a")
	expect(t, lan.place, "tcp", at(lan.host4, 8080), "a")
	refuse(t, lan.place, "udp", at(lan.host4, 8080))
}

func TestLoopbackPortsStayLocal(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	setBridgeNetfilter(t, "0")
	m := startManager(t, testConfig(t))
	lan := newNeighbour(t, 1)
	local := netip.MustParseAddr("127.0.0.1")
	a := attach(t, m, "a",
		Port{HostIP: local, HostPort: 8080, ContainerPort: 80},
		Port{HostIP: local, HostPort: 8080, ContainerPort: 80, Proto: "udp"},
		Port{HostIP: netip.IPv6Loopback(), HostPort: 8080, ContainerPort: 80})
	b := attach(t, m, "b")
	asked := serve(t, a.place, "a", ":80")
	private := serve(t, nil, "private", "127.0.0.1:99")

	expect(t, nil, "tcp", "127.0.0.1:8080", "a")
	expect(t, nil, "udp", "127.0.0.1:8080", "a")
	expect(t, nil, "tcp", "[::1]:8080", "a")
	refuse(t, nil, "tcp", at(lan.host4, 8080))
	// A neighbour that sends packets for 127.0.0.1 to us, and a container that does.
	before := asked.Load()
	for _, from := range []*place{lan.place, b.place} {
		dev := "eth0"
		must(t, from.do(func() error { return writeSysctl("ipv4/conf/all/route_localnet", "1") }))
		must(t, from.do(func() error { return writeSysctl("ipv4/conf/"+dev+"/route_localnet", "1") }))
		gw := lan.host4
		if from == b.place {
			gw = m.Bridge().Gateway4
		}
		must(t, from.do(func() error { return loopbackThrough(gw) }))
		for _, network := range []string{"tcp", "udp"} {
			refuse(t, from, network, "127.0.0.1:8080")
			refuse(t, from, network, "127.0.0.1:99")
		}
	}
	for _, network := range []string{"tcp", "udp"} {
		refuse(t, lan.place, network, at(lan.host4, 8080))
		refuse(t, b.place, network, at(m.Bridge().Gateway4, 8080))
	}
	// Not even a datagram that nobody could answer got through.
	if n := asked.Load() - before; n != 0 || private.Load() != 0 {
		t.Errorf("%d questions reached the container's local port, %d the host's own", n, private.Load())
	}
}
