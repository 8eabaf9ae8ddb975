package network

import (
	"net/netip"

	"github.com/vishvananda/netlink/nl"

	"berth/internal/fault"
)

// primary is the place on the default network that a sandbox was made with; nil
// when it has none.
func (m *Manager) primary(id string, a *attachment) *joinedEnd {
	s := a.sandbox
	if s.bare() {
		return nil
	}
	return &joinedEnd{container: id, net: m.standard, endpoint: a.endpoint,
		joined: joined{Network: m.standard.def.ID, Inside: insideName, IPv4: s.ip4, IPv6: s.ip6, Priority: s.record.Priority}}
}

// gateways choose who has a container's default routes, and with them its published
// ports: the network that has the highest priority, and of those the first by
// name. Internal networks never have them. IPv6 is decided among those that have it.
func (m *Manager) gateways(id string, a *attachment) (four, six *joinedEnd) {
	better := func(j, than *joinedEnd) bool {
		return than == nil || j.Priority > than.Priority || j.Priority == than.Priority && j.net.def.Name < than.net.def.Name
	}
	ends := a.joined
	if p := m.primary(id, a); p != nil {
		ends = append([]*joinedEnd{p}, ends...)
	}
	for _, j := range ends {
		if j.net.def.Internal {
			continue
		}
		if better(j, four) {
			four = j
		}
		if j.IPv6.IsValid() && better(j, six) {
			six = j
		}
	}
	return four, six
}

// waysOf are what default routes through a network lead to.
func (m *Manager) waysOf(n *userNet) (four, six netip.Addr) {
	if n == m.standard {
		return m.addrs.ways()
	}
	return n.def.Gateway4, n.def.Gateway6
}

// chooseRoute sets the default routes of a container whose networks have changed.
func (m *Manager) chooseRoute(id string, a *attachment) error {
	four, six := m.gateways(id, a)
	if four == nil {
		return nil
	}
	inside, err := routeInside(a.sandbox.ns)
	if err != nil {
		return fault.New(fault.Internal, "enter network namespace", shortID(id), "%w", err)
	}
	defer inside.close()
	var reqs []*nl.NetlinkRequest
	for _, way := range []struct {
		through *joinedEnd
		gateway func(*joinedEnd) netip.Addr
	}{
		{four, func(j *joinedEnd) netip.Addr { to, _ := m.waysOf(j.net); return to }},
		{six, func(j *joinedEnd) netip.Addr { _, to := m.waysOf(j.net); return to }},
	} {
		if way.through == nil {
			continue
		}
		index, err := inside.indexOf(way.through.Inside)
		if err != nil {
			return fault.New(fault.Internal, "set default route through", way.through.Inside, "%w", err)
		}
		reqs = append(reqs, defaultRouteRequest(index, way.gateway(way.through)))
	}
	if err := inside.do(reqs...); err != nil {
		return fault.New(fault.Internal, "set default route through", four.Inside, "%w", err)
	}
	return nil
}
