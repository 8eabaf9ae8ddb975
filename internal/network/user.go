package network

import (
	"context"
	"encoding/binary"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"berth/internal/fault"
)

// Definition is a user-defined bridge network as it is written down. The engine
// keeps it; here it has a bridge, addresses and rules.
type Definition struct {
	ID     string // 64 hex digits; Create chooses it
	Name   string
	Bridge string `json:",omitempty"` // name of the interface

	Subnet4  netip.Prefix
	Range4   netip.Prefix // what addresses are taken from; zero means Subnet4
	Gateway4 netip.Addr
	Subnet6  netip.Prefix // zero without IPv6
	Range6   netip.Prefix `json:",omitzero"` // as Range4
	Gateway6 netip.Addr
	Reserved []netip.Addr `json:",omitempty"` // never given out

	IPv6     bool       // choose a Subnet6 when there is none
	Internal bool       `json:",omitempty"` // no way out, no published ports, no name server outside
	Isolated bool       `json:",omitempty"` // containers don't reach one another
	NoMasq   bool       `json:",omitempty"` // containers go out under their own addresses
	HostIP   netip.Addr `json:",omitzero"`  // where ports are published that name no address
	MTU      int        `json:",omitempty"`
	Inside   string     `json:",omitempty"` // what names of interfaces in containers begin with; "" means eth
}

// userNet is a network in use.
type userNet struct {
	def    Definition
	pooled *ipam // of the default network alone: its addresses, which the pool draws from too

	setup sync.Mutex
	index int // of the bridge; 0 while it is not known to stand; guarded by setup

	mu   sync.Mutex // guards the rest; leaf lock
	used map[netip.Addr]bool
	last netip.Addr // given out last: addresses are used again as late as possible
	ends map[string]*joinedEnd
	// joining counts those between their addresses and their place in ends.
	joining int
	dead    bool // removed: nobody can join any more
}

// userNets are the user-defined networks by id.
type userNets struct {
	mu sync.Mutex // guards by; leaf lock
	by map[string]*userNet
}

func (u *userNets) get(id string) (*userNet, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if n := u.by[id]; n != nil {
		return n, nil
	}
	return nil, fault.New(fault.NotFound, "", "", "network %s not found", id)
}

func (u *userNets) all() []*userNet {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.SortedFunc(maps.Values(u.by), func(a, b *userNet) int { return strings.Compare(a.def.ID, b.def.ID) })
}

func (u *userNets) put(n *userNet) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.by == nil {
		u.by = make(map[string]*userNet)
	}
	u.by[n.def.ID] = n
}

func (u *userNets) drop(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.by, id)
}

func newUserNet(d Definition) *userNet {
	n := &userNet{def: d, used: make(map[netip.Addr]bool), ends: make(map[string]*joinedEnd)}
	for _, a := range append([]netip.Addr{d.Gateway4, d.Gateway6}, d.Reserved...) {
		n.used[a] = true
	}
	return n
}

// Define makes a network known that was created before. It is called between Open
// and Adopt.
func (m *Manager) Define(d Definition) { m.user.put(newUserNet(d)) }

// Create completes a definition with what it leaves open and makes the network.
// Until the engine has written the definition down, a crash removes it again.
func (m *Manager) Create(ctx context.Context, d Definition) (Definition, error) {
	unlock, err := lockSubnetChoice(ctx)
	if err != nil {
		return d, err
	}
	defer unlock()
	d.ID = randomID(32)
	if err := m.complete(&d); err != nil {
		return d, err
	}
	n := newUserNet(d)
	m.user.put(n)
	err = m.ensureUserBridge(n)
	if err == nil {
		err = m.firewall.rebuild()
	}
	if err != nil {
		m.user.drop(d.ID)
		m.removeUserBridge(n)
		return d, err
	}
	return d, nil
}

// complete chooses what a definition leaves open and checks the rest.
func (m *Manager) complete(d *Definition) error {
	if d.Bridge == "" {
		d.Bridge = "br-" + d.ID[:12]
	}
	if !validIfName(d.Bridge) {
		return fault.New(fault.Invalid, "use bridge", d.Bridge, "an interface name has 1 to %d characters, no slash, no colon and no blank", maxIfName)
	}
	if d.Inside != "" && !validIfName(d.Inside+"99") {
		return fault.New(fault.Invalid, "name interfaces", d.Inside, "with a number behind it, it must be the name of an interface")
	}
	used, err := occupied(0)
	if err != nil {
		return err
	}
	used = append(used, m.subnet4)
	if m.subnet6.IsValid() {
		used = append(used, m.subnet6)
	}
	for _, n := range m.user.all() {
		if n.def.Bridge == d.Bridge {
			return fault.New(fault.Conflict, "", "", "networks have same bridge name: %s", d.Bridge)
		}
		used = append(used, n.def.Subnet4)
		if n.def.Subnet6.IsValid() {
			used = append(used, n.def.Subnet6)
		}
	}
	for _, p := range []netip.Prefix{d.Subnet4, d.Subnet6} {
		if !p.IsValid() {
			continue
		}
		if with, taken := overlapping(p, used); taken {
			return fault.New(fault.Forbidden, "", "", "invalid pool request: Pool overlaps with other one on this address space: %s and %s", p, with)
		}
	}
	if !d.Subnet4.IsValid() {
		if d.Subnet4, err = m.cfg.pickUserSubnet(used); err != nil {
			return err
		}
	}
	d.Subnet4 = d.Subnet4.Masked()
	if d.IPv6 && !d.Subnet6.IsValid() {
		if d.Subnet6, err = m.cfg.pickSubnet6(names{id: d.ID, bridge: d.Bridge}, used); err != nil {
			return err
		}
	}
	return d.check()
}

// check judges the addresses of a definition and fills in gateways.
func (d *Definition) check() error {
	wrong := func(format string, args ...any) error { return fault.New(fault.Invalid, "", "", format, args...) }
	if b := d.Subnet4.Bits(); b > 30 || b < 8 {
		return wrong("invalid subnet %s: an IPv4 subnet has a length from 8 to 30 bits", d.Subnet4)
	}
	if d.Gateway4 = gatewayIn(d.Gateway4, d.Subnet4, d.Range4); d.Gateway4 == lastAddr4(d.Subnet4) {
		return wrong("invalid gateway %s: it is the broadcast address of %s", d.Gateway4, d.Subnet4)
	}
	ends := []subnetEnd{{d.Subnet4, d.Range4, d.Gateway4}}
	if d.Subnet6.IsValid() {
		d.Subnet6 = d.Subnet6.Masked()
		if b := d.Subnet6.Bits(); b > 126 || !d.Subnet6.Addr().Is6() {
			return wrong("invalid subnet %s: an IPv6 subnet has a length of at most 126 bits", d.Subnet6)
		}
		d.Gateway6 = gatewayIn(d.Gateway6, d.Subnet6, d.Range6)
		ends = append(ends, subnetEnd{d.Subnet6, d.Range6, d.Gateway6})
	}
	for _, e := range ends {
		switch {
		case e.part.IsValid() && !(e.subnet.Contains(e.part.Addr()) && e.part.Bits() >= e.subnet.Bits()):
			return wrong("invalid ip-range %s: it is outside of the subnet %s", e.part, e.subnet)
		case !e.subnet.Contains(e.gateway):
			return wrong("no matching subnet for gateway %s", e.gateway)
		case e.gateway == e.subnet.Addr():
			return wrong("invalid gateway %s: it is the address of the subnet itself", e.gateway)
		}
	}
	for _, a := range d.Reserved {
		switch {
		case !d.Subnet4.Contains(a) && !(d.Subnet6.IsValid() && d.Subnet6.Contains(a)):
			return wrong("no matching subnet for aux-address %s", a)
		case a == d.Gateway4 || a == d.Gateway6:
			return wrong("invalid aux-address %s: it is the gateway", a)
		}
	}
	return nil
}

// subnetEnd is one address family of a definition.
type subnetEnd struct {
	subnet, part netip.Prefix
	gateway      netip.Addr
}

// gatewayIn returns the gateway that was asked for or the first address that the
// network gives out.
func gatewayIn(asked netip.Addr, subnet, part netip.Prefix) netip.Addr {
	first := subnet.Addr()
	if part.IsValid() {
		first = part.Masked().Addr()
	}
	switch {
	case asked.IsValid():
		return asked
	case first == subnet.Addr():
		return first.Next()
	}
	return first
}

// userBits is the length of the subnets that networks get: 1,021 addresses, what
// one Linux bridge carries.
const userBits = 22

func (c *Config) pickUserSubnet(used []netip.Prefix) (netip.Prefix, error) {
	if c.poolsOf(4) != nil {
		return c.fromPools(4, used)
	}
	for _, r := range candidateRanges {
		for _, p := range cut(netip.MustParsePrefix(r), userBits) {
			if _, taken := overlapping(p, used); !taken {
				return p, nil
			}
		}
	}
	return netip.Prefix{}, fault.New(fault.Exhausted, "", "", "could not find an available, non-overlapping IPv4 address pool").
		WithHint("remove networks that are not used, or name a subnet")
}

// Remove takes a network away that nobody is on; otherwise it refuses.
func (m *Manager) Remove(id string) error {
	n, err := m.user.get(id)
	if err != nil {
		return nil
	}
	n.mu.Lock()
	err = n.removable()
	n.dead = err == nil
	n.mu.Unlock()
	if err != nil {
		return err
	}
	m.user.drop(id)
	m.removeUserBridge(n)
	return m.firewall.rebuild()
}

// Removable says why Remove would refuse; nil when it would not.
func (m *Manager) Removable(id string) error {
	n, err := m.user.get(id)
	if err != nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.removable()
}

// removable refuses the removal of a network that somebody is on. The caller holds mu.
func (n *userNet) removable() error {
	if len(n.ends)+n.joining > 0 {
		return fault.New(fault.Forbidden, "", "", "error while removing network: network %s id %s has active endpoints", n.def.Name, n.def.ID)
	}
	return nil
}

// assign gives a container its addresses: those it asks for or free ones.
func (n *userNet) assign(want4, want6 netip.Addr) (ip4, ip6 netip.Addr, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead {
		return ip4, ip6, fault.New(fault.NotFound, "", "", "network %s not found", n.def.Name)
	}
	if want4.IsValid() {
		if err := n.claim(want4, n.def.Subnet4); err != nil {
			return ip4, ip6, err
		}
		ip4 = want4
	} else if ip4, err = n.take4(n.beside(want6)); err != nil {
		return ip4, ip6, err
	}
	switch {
	case want6.IsValid():
		if err = n.claim(want6, n.def.Subnet6); err == nil {
			ip6 = want6
		}
	case n.def.Subnet6.IsValid():
		ip6, err = n.take6(ip4)
	}
	if err != nil {
		delete(n.used, ip4)
		return netip.Addr{}, netip.Addr{}, err
	}
	n.joining++
	return ip4, ip6, nil
}

func (n *userNet) claim(a netip.Addr, subnet netip.Prefix) error {
	if !subnet.IsValid() || !subnet.Contains(a) || a == subnet.Addr() || (a.Is4() && a == lastAddr4(subnet)) {
		return fault.New(fault.Invalid, "", "", "invalid endpoint settings: no configured subnet contains IP address %s", a)
	}
	if n.used[a] {
		return fault.New(fault.Conflict, "", "", "failed to set up container networking: Address already in use: %s", a)
	}
	n.used[a] = true
	return nil
}

// beside returns the IPv4 address that a wanted IPv6 address goes along with, zero for
// none: who has asked for the one has the same other one, and so the same hardware
// address, at every start. Neighbours remember that for a while.
func (n *userNet) beside(want6 netip.Addr) netip.Addr {
	if !want6.IsValid() {
		return want6
	}
	b, v6 := n.def.Subnet4.Addr().As4(), want6.As16()
	host := binary.BigEndian.Uint32(v6[12:]) & (1<<(32-n.def.Subnet4.Bits()) - 1)
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|host)
	return netip.AddrFrom4(b)
}

// take4 gives out the address that is liked, if it can be had, or the next free one.
func (n *userNet) take4(liked netip.Addr) (netip.Addr, error) {
	from := n.def.Subnet4
	if n.def.Range4.IsValid() {
		from = n.def.Range4.Masked()
	}
	free := func(a netip.Addr) bool {
		return from.Contains(a) && !n.used[a] && a != n.def.Subnet4.Addr() && a != lastAddr4(n.def.Subnet4)
	}
	if free(liked) {
		n.used[liked] = true
		return liked, nil
	}
	a := n.last
	if !from.Contains(a) {
		a = from.Addr()
	}
	size := uint64(1) << (32 - from.Bits())
	for range size {
		if free(a) {
			n.used[a], n.last = true, a
			return a, nil
		}
		if a = a.Next(); !from.Contains(a) {
			a = from.Addr()
		}
	}
	return netip.Addr{}, fault.New(fault.Exhausted, "", "", "no available IPv4 addresses on this network's address pools: %s (%s)", n.def.Name, n.def.ID)
}

// take6 derives an address from the IPv4 one, or the next free one after it.
func (n *userNet) take6(ip4 netip.Addr) (netip.Addr, error) {
	from := n.def.Subnet6
	if n.def.Range6.IsValid() {
		from = n.def.Range6.Masked()
	}
	b, v4 := from.Addr().As16(), ip4.As4()
	host := binary.BigEndian.Uint32(v4[:]) & (1<<(32-n.def.Subnet4.Bits()) - 1)
	if room := 128 - from.Bits(); room < 32 {
		host &= 1<<room - 1
	}
	binary.BigEndian.PutUint32(b[12:], binary.BigEndian.Uint32(b[12:])|host)
	a := netip.AddrFrom16(b)
	for range 1 << 16 {
		if !from.Contains(a) {
			a = from.Addr()
		}
		if !n.used[a] && a != n.def.Subnet6.Addr() {
			n.used[a] = true
			return a, nil
		}
		a = a.Next()
	}
	return netip.Addr{}, fault.New(fault.Exhausted, "", "", "no available IPv6 addresses on this network's address pools: %s (%s)", n.def.Name, n.def.ID)
}

func (n *userNet) free(ip4, ip6 netip.Addr) {
	if n.pooled != nil {
		n.pooled.freeAddrs(ip4, ip6)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range []netip.Addr{ip4, ip6} {
		if a != n.def.Gateway4 && a != n.def.Gateway6 {
			delete(n.used, a)
		}
	}
}

// removeUserBridges removes the bridges of networks that nobody is on; they are
// made again when somebody comes.
func (m *Manager) removeUserBridges() {
	for _, n := range m.user.all() {
		m.removeUserBridge(n)
	}
}

// alias marks an interface as the bridge of a network of this engine.
func (m *Manager) userAlias(n *userNet) string { return m.names.alias + ":" + n.def.ID }

// ipv6Works tells whether the kernel has IPv6 at all.
func ipv6Works() bool { _, err := os.Stat("/proc/sys/net/ipv6"); return err == nil }
