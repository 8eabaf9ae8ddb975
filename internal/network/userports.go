package network

import (
	"context"
	"net/netip"
	"slices"
)

// Publish publishes ports of a container on a network that it has joined.
func (m *Manager) Publish(ctx context.Context, id, netID string, wants []Port) ([]Published, error) {
	a, err := m.attached(id)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(a.joined, func(j *joinedEnd) bool { return j.Network == netID })
	if at < 0 || len(wants) == 0 || len(a.bindings) > 0 {
		return nil, nil
	}
	j := a.joined[at]
	if j.net.def.Internal {
		return nil, nil // docker's behaviour: nothing leads into such a network
	}
	wants = slices.Clone(wants)
	for i := range wants {
		if !wants[i].HostIP.IsValid() {
			wants[i].HostIP = j.net.def.HostIP
		}
	}
	published, bindings, err := m.ports.reserve(id, wants, j.IPv4, j.IPv6)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	a.bindings, a.ports, a.to4, a.to6 = bindings, published, j.IPv4, j.IPv6
	m.mu.Unlock()
	if err := m.rewrite(id, a); err != nil {
		m.withdraw(id, a)
		return nil, err
	}
	if err := m.firewall.change(elementsOf(bindings), nil); err != nil {
		m.withdraw(id, a)
		return nil, err
	}
	m.flows.forget(bindings)
	return published, nil
}

// withdraw takes back what Publish has published.
func (m *Manager) withdraw(id string, a *attachment) {
	m.ports.forget(a.bindings)
	if err := m.firewall.change(nil, elementsOf(a.bindings)); err != nil {
		m.log.Warn("cannot withdraw published ports", "container", id, "error", err)
	}
	m.ports.release(a.bindings)
	m.flows.forget(a.bindings)
	m.mu.Lock()
	a.bindings, a.ports, a.to4, a.to6 = nil, nil, netip.Addr{}, netip.Addr{}
	m.mu.Unlock()
}

// Ports returns what Publish has published for a container.
func (m *Manager) Ports(id string) []Published {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.endpoints[id]; a != nil {
		return a.ports
	}
	return nil
}
