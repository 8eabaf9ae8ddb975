package network

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/fault"
)

func TestDeriveNames(t *testing.T) {
	std, err := deriveNames(Config{RunDir: DefaultRunDir, DataRoot: DefaultDataRoot})
	must(t, err)
	if std.bridge != "berth0" || std.table != "berth" {
		t.Errorf("the default engine has bridge %s and table %s", std.bridge, std.table)
	}
	one, err := deriveNames(Config{RunDir: "/run/x", DataRoot: "/data/x"})
	must(t, err)
	two, err := deriveNames(Config{RunDir: "/run/y", DataRoot: "/data/x"})
	must(t, err)
	for _, n := range []names{one, two} {
		if len(n.bridge) > maxIfName || n.bridge == std.bridge || n.table == std.table || len(n.id) != 64 {
			t.Errorf("bad names %+v", n)
		}
	}
	if one.bridge == two.bridge || one.table == two.table || one.id == two.id {
		t.Errorf("two engines share names: %+v and %+v", one, two)
	}
	for _, bad := range []string{"a-very-long-name", "a/b", "a b", ".", "..", "x:1", "é"} {
		if _, err := deriveNames(Config{RunDir: "/run/x", Bridge: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("bridge name %q: %v", bad, err)
		}
	}
}

func TestPickSubnet(t *testing.T) {
	p := netip.MustParsePrefix
	std := names{table: "berth", bridge: "berth0"}
	cases := []struct {
		used []netip.Prefix
		want string
	}{
		{nil, "172.30.0.0/20"},
		{[]netip.Prefix{p("172.30.0.0/24")}, "172.30.16.0/20"},
		{[]netip.Prefix{p("172.30.0.0/16")}, "172.29.0.0/20"},
		{[]netip.Prefix{p("172.16.0.0/12")}, "10.213.0.0/20"},                          // a VPN takes all of 172.16/12
		{[]netip.Prefix{p("172.16.0.0/12"), p("10.0.0.0/8")}, "192.168.192.0/20"},      // and the company all of 10/8
		{[]netip.Prefix{p("172.30.0.53/32"), p("fd00::/8")}, "172.30.16.0/20"},         // a name server
		{[]netip.Prefix{p("172.16.0.0/12"), p("10.0.0.0/8"), p("192.168.0.0/16")}, ""}, // everything
	}
	for _, c := range cases {
		got, err := new(Config).pickSubnet4(std, c.used)
		if c.want == "" {
			if !fault.Is(err, fault.Exhausted) {
				t.Errorf("used %v: picked %s, error %v", c.used, got, err)
			}
		} else if err != nil || got.String() != c.want {
			t.Errorf("used %v: picked %s, error %v; want %s", c.used, got, err, c.want)
		}
	}
	six, err := new(Config).pickSubnet6(std, nil)
	must(t, err)
	if !p("fd00::/8").Overlaps(six) || six.Bits() != 64 || six != six.Masked() {
		t.Errorf("picked %s", six)
	}
	if again, _ := new(Config).pickSubnet6(std, nil); again != six {
		t.Errorf("picked %s, then %s", six, again)
	}
	if other, _ := new(Config).pickSubnet6(std, []netip.Prefix{six}); other == six {
		t.Error("picked a subnet that is in use")
	}
}

func TestSubnetsAvoidRoutesAndAreRemembered(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	newNeighbour(t, 1)
	run(t, "ip", "route", "add", "172.16.0.0/12", "via", "10.99.1.2")              // a VPN
	run(t, "ip", "route", "add", "10.0.0.0/8", "via", "10.99.1.2", "table", "100") // in another table
	run(t, "ip", "route", "add", "0.0.0.0/1", "via", "10.99.1.2")                  // "everything", in halves
	run(t, "ip", "route", "add", "128.0.0.0/1", "via", "10.99.1.2")
	cfg := testConfig(t)
	m := startManager(t, cfg)
	first := m.Bridge()
	if !netip.MustParsePrefix("192.168.192.0/18").Overlaps(first.Subnet4) {
		t.Errorf("picked %s", first.Subnet4)
	}
	m.Close()
	run(t, "ip", "route", "del", "172.16.0.0/12")
	if m = startManager(t, cfg); m.Bridge() != first {
		t.Errorf("the network changed from %+v to %+v", first, m.Bridge())
	}
	m.Close()
	// The remembered subnet is taken by somebody else now, and nothing lives in it.
	run(t, "ip", "route", "add", first.Subnet4.String(), "via", "10.99.1.2")
	m = startManager(t, cfg)
	if m.Bridge().Subnet4.Overlaps(first.Subnet4) {
		t.Errorf("kept %s although the host routes it elsewhere", first.Subnet4)
	}
	a := attach(t, m, "a")
	serve(t, a.place, "a", ":80")
	expect(t, nil, "tcp", at(a.IPv4.Addr(), 80), "a")
	// A configured subnet that is taken is refused, by name.
	cfg = testConfig(t)
	cfg.Subnet4 = first.Subnet4
	if _, err := Open(context.Background(), cfg); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), first.Subnet4.String()) {
		t.Errorf("a configured subnet that overlaps a route: %v", err)
	}
}

func TestBadConfiguration(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	for name, change := range map[string]func(*Config){
		"no directories": func(c *Config) { c.RunDir = "" },
		"tiny subnet":    func(c *Config) { c.Subnet4 = netip.MustParsePrefix("10.1.1.0/30") },
		"huge subnet":    func(c *Config) { c.Subnet4 = netip.MustParsePrefix("2.0.0.0/7") },
		"wrong family":   func(c *Config) { c.Subnet4 = netip.MustParsePrefix("fd00::/64") },
		"tiny subnet 6":  func(c *Config) { c.Subnet6 = netip.MustParsePrefix("fd00::/120") },
	} {
		cfg := testConfig(t)
		change(&cfg)
		if _, err := Open(context.Background(), cfg); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A damaged memory is no memory.
	cfg := testConfig(t)
	must(t, os.MkdirAll(cfg.DataRoot, 0o700))
	must(t, os.WriteFile(filepath.Join(cfg.DataRoot, "network.json"), []byte(`{"subnet4":"rubbish`), 0o600))
	m, err := Open(context.Background(), cfg)
	must(t, err)
	m.Close()
}

func TestIPAM(t *testing.T) {
	a := newIPAM(netip.MustParsePrefix("10.1.0.0/28"), netip.MustParsePrefix("fd00::/64"), &Config{})
	seen := map[uint32]bool{}
	for range 13 {
		n, err := a.take()
		must(t, err)
		if n < 2 || n > 14 || seen[n] {
			t.Fatalf("took %d", n)
		}
		seen[n] = true
	}
	if _, err := a.take(); !fault.Is(err, fault.Exhausted) {
		t.Fatalf("taking beyond the end: %v", err)
	}
	a.free(5, netip.Addr{})
	a.free(7, netip.Addr{})
	if _, err := a.reserve(netip.MustParseAddr("10.1.0.5")); err != nil {
		t.Fatal(err)
	}
	if n, err := a.take(); err != nil || n != 7 {
		t.Fatalf("took %d, error %v; want 7", n, err)
	}
	a.free(7, netip.Addr{})
	must(t, a.reserve6(netip.MustParseAddr("fd00::7"))) // derived from 7: blocks the number
	if _, err := a.take(); !fault.Is(err, fault.Exhausted) {
		t.Fatalf("taking a number whose IPv6 address is taken: %v", err)
	}
	a.free(0, netip.MustParseAddr("fd00::7"))
	if n, err := a.take(); err != nil || n != 7 {
		t.Fatalf("took %d, error %v; want 7", n, err)
	}
	// Freeing what is not a container's changes nothing.
	a.free(gatewayNumber, netip.Addr{})
	a.free(1<<20, netip.Addr{})
	if _, err := a.take(); !fault.Is(err, fault.Exhausted) {
		t.Fatalf("%v", err)
	}
}

func TestIPAMGoesInACircle(t *testing.T) {
	a := newIPAM(netip.MustParsePrefix("10.1.0.0/20"), netip.Prefix{}, &Config{})
	first, err := a.take()
	must(t, err)
	a.free(first, netip.Addr{})
	round := 1
	for ; round < 5000; round++ {
		n, err := a.take()
		must(t, err)
		if a.free(n, netip.Addr{}); n == first {
			break
		}
	}
	if round != 4093 {
		t.Errorf("the first address came again after %d others", round)
	}
	if got := a.addr4(4094).String(); got != "10.1.15.254" {
		t.Errorf("number 4094 is %s", got)
	}
	if a.addr6(5).IsValid() {
		t.Error("an IPv6 address without an IPv6 subnet")
	}
}

func TestAddressPools(t *testing.T) {
	p := netip.MustParsePrefix
	c := &Config{Pools: []Pool{{p("10.7.0.0/23"), 24}, {p("fd07::/48"), 64}, {p("10.9.0.0/16"), 28}}}
	for _, tt := range []struct {
		used []string
		want string
	}{
		{nil, "10.7.0.0/24"}, {[]string{"10.7.0.5/32"}, "10.7.1.0/24"}, {[]string{"10.7.0.0/16"}, "10.9.0.0/28"},
		{[]string{"10.7.0.0/16", "10.9.0.0/20"}, "10.9.16.0/28"},
	} {
		var used []netip.Prefix
		for _, u := range tt.used {
			used = append(used, p(u))
		}
		if got, err := c.pickUserSubnet(used); err != nil || got.String() != tt.want {
			t.Errorf("used %v: picked %s, %v; want %s", tt.used, got, err, tt.want)
		}
	}
	if _, err := c.pickSubnet4(names{}, []netip.Prefix{p("10.0.0.0/8")}); !fault.Is(err, fault.Exhausted) {
		t.Errorf("pools that are used up: %v", err)
	}
	if got, err := c.pickSubnet6(names{}, []netip.Prefix{p("fd07::/64")}); err != nil || got != p("fd07:0:0:1::/64") {
		t.Errorf("picked %s, %v", got, err)
	}
	if !c.inPools(p("10.7.1.0/24")) || c.inPools(p("10.7.1.0/25")) || c.inPools(p("172.30.0.0/20")) || !new(Config).inPools(p("172.30.0.0/20")) {
		t.Error("what is in the pools")
	}
	for _, bad := range []Pool{{p("10.7.0.0/16"), 8}, {p("10.7.0.0/16"), 31}, {}, {p("fd00::/64"), 120}} {
		if bad.Check() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

func TestAddressesWithinTheSubnet(t *testing.T) {
	a4, p := netip.MustParseAddr, netip.MustParsePrefix
	a := newIPAM(p("10.1.0.0/24"), p("fd00::/64"), &Config{Gateway4: a4("10.1.0.66"), Router4: a4("10.1.0.67"), Range4: p("10.1.0.64/29")})
	var got []string
	for {
		n, err := a.take()
		if err != nil {
			break
		}
		got = append(got, a.addr4(n).String())
	}
	if want := "10.1.0.64 10.1.0.65 10.1.0.68 10.1.0.69 10.1.0.70 10.1.0.71"; strings.Join(got, " ") != want {
		t.Errorf("given out: %v", got)
	}
	for _, ours := range []string{"10.1.0.66", "10.1.0.67", "10.1.0.0", "10.1.0.255"} {
		if _, err := a.reserve(a4(ours)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", ours, err)
		}
	}
	if four, six := a.ways(); four != a4("10.1.0.67") || six != a4("fd00::1") {
		t.Errorf("default routes: %s, %s", four, six)
	}
	if _, err := a.reserve(a4("10.1.0.200")); err != nil { // by hand, outside of the range
		t.Error(err)
	}
	// A range far inside of a large subnet.
	if a = newIPAM(p("10.0.0.0/8"), netip.Prefix{}, &Config{Range4: p("10.200.0.0/30")}); a.size <= maxNumbers {
		t.Errorf("%d numbers are looked at", a.size)
	}
	if n, err := a.take(); err != nil || a.addr4(n) != a4("10.200.0.0") {
		t.Errorf("took %s, %v", a.addr4(n), err)
	}
}
