package network

import (
	"net/netip"

	"github.com/vishvananda/netlink"

	"berth/internal/fault"
)

// newStandardNet describes the default network as one that can be joined: by a
// container that has its namespace already. Addresses come from where the pool has
// them from; names and rules are none of its own.
func (m *Manager) newStandardNet() *userNet {
	b := m.Bridge()
	n := newUserNet(Definition{ID: b.ID, Name: b.Name, Bridge: b.Bridge,
		Subnet4: b.Subnet4, Gateway4: b.Gateway4, Subnet6: b.Subnet6, Gateway6: b.Gateway6, Isolated: m.cfg.Isolated})
	n.pooled = m.addrs
	return n
}

// netByID finds a network that containers can join.
func (m *Manager) netByID(id string) (*userNet, error) {
	if id == m.standard.def.ID {
		return m.standard, nil
	}
	return m.user.get(id)
}

// ensureStandard finds the bridge of the default network, or makes it again when
// somebody has removed it.
func (m *Manager) ensureStandard(n *userNet) error {
	if name, err := m.route.nameOf(int(m.bridgeIndex.Load())); err != nil || name != n.def.Bridge {
		m.ready.Store(false)
		if err := m.ensureReady(); err != nil {
			return err
		}
	}
	n.index = int(m.bridgeIndex.Load())
	return nil
}

// assignStandard gives a container that joins the default network its addresses.
// What the pool holds is taken from it.
func (m *Manager) assignStandard(want4, want6 netip.Addr) (ip4, ip6 netip.Addr, err error) {
	s := &sandbox{}
	for range 2 {
		if err = m.assign(s, identity{ip4: want4, ip6: want6}); err == nil {
			m.standard.mu.Lock()
			m.standard.joining++
			m.standard.mu.Unlock()
			return s.ip4, s.ip6, nil
		}
		var held *sandbox
		switch {
		case fault.Is(err, fault.Exhausted):
			held = m.bridged.takeSoon()
		case fault.Is(err, fault.Conflict) && m.reaper.hasten(want4, want6):
			continue
		case fault.Is(err, fault.Conflict):
			held = m.bridged.takeMatching(func(s *sandbox) bool { return s.ip4 == want4 || s.ip6 == want6 })
		}
		if held == nil {
			break
		}
		m.evict(held)
	}
	return ip4, ip6, err
}

// adopt takes an end over with its addresses.
func (n *userNet) adopt(j *joinedEnd) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ends[j.container] = j
	if n.pooled == nil {
		n.used[j.IPv4], n.used[j.IPv6] = true, true
		return
	}
	num, err := n.pooled.reserve(j.IPv4)
	if err == nil && j.IPv6.IsValid() && j.IPv6 != n.pooled.addr6(num) {
		_ = n.pooled.reserve6(j.IPv6)
	}
}

// leaveStandard takes a container off the default network that it was created on.
// Its namespace stays, with the interfaces of other networks.
func (m *Manager) leaveStandard(id string, a *attachment) error {
	s := a.sandbox
	if a.to4 == s.ip4 {
		m.withdraw(id, a)
	}
	gone := *s
	m.mu.Lock()
	s.veth, s.index, s.num, s.extra, s.ip4, s.ip6, s.mac = "", 0, 0, netip.Addr{}, netip.Addr{}, netip.Addr{}, nil
	r := &s.record
	r.Veth, r.Index, r.Number, r.IPv4, r.IPv6, r.ExtraIPv6, r.MAC, r.Priority = "", 0, 0, netip.Addr{}, netip.Addr{}, netip.Addr{}, "", 0
	a.endpoint = m.bareEndpoint(*r)
	m.mu.Unlock()
	// The record goes first: an interface that none names is swept.
	if err := m.rewrite(id, a); err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Index = gone.index
	_ = netlink.LinkDel(&netlink.Veth{LinkAttrs: attrs})
	m.addrs.free(gone.num, gone.extra)
	return m.chooseRoute(id, a)
}
