package network

import (
	"net/netip"
	"testing"

	"berth/internal/fault"
)

// TestAddressesOfNetworks has what containers ask for one after the other and get.
func TestAddressesOfNetworks(t *testing.T) {
	d := Definition{ID: "n", Subnet4: netip.MustParsePrefix("10.1.0.0/29"), Subnet6: netip.MustParsePrefix("fd00::/64"),
		Range6: netip.MustParsePrefix("fd00::f0/125"), Gateway6: netip.MustParseAddr("fd00::9")}
	if err := d.check(); err != nil {
		t.Fatal(err)
	}
	n := newUserNet(d)
	for _, c := range []struct {
		want4, want6 string
		has4, has6   string // "" when it is refused
		kind         fault.Kind
	}{
		{"", "", "10.1.0.2", "fd00::f2", 0},
		{"10.1.0.6", "", "10.1.0.6", "fd00::f6", 0},
		{"", "fd00::5", "10.1.0.5", "fd00::5", 0},       // the two go together
		{"", "fd00::a:5", "10.1.0.3", "fd00::a:5", 0},   // unless it is taken
		{"", "fd00::5", "", "", fault.Conflict},         // which costs no IPv4 address
		{"10.1.0.6", "fd00::7", "", "", fault.Conflict}, // nor the other way round
		{"10.1.0.7", "", "", "", fault.Invalid},         // broadcast
		{"", "fd01::1", "", "", fault.Invalid},
		{"", "", "10.1.0.4", "fd00::f4", 0},
		{"", "", "", "", fault.Exhausted},
	} {
		parse := func(s string) (a netip.Addr) { a, _ = netip.ParseAddr(s); return a }
		has4, has6, err := n.assign(parse(c.want4), parse(c.want6))
		if c.has4 == "" && !fault.Is(err, c.kind) || c.has4 != "" && (err != nil || has4.String() != c.has4 || has6.String() != c.has6) {
			t.Errorf("%q %q: %v %v %v, want %s %s %v", c.want4, c.want6, has4, has6, err, c.has4, c.has6, c.kind)
		}
	}
}
