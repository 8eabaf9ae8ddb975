package network

import (
	"context"
	"net/netip"
	"slices"

	"berth/internal/fault"
)

// Publish sees to it that a container's ports are published on the network that has
// its default route, wherever they were before: replies go out there. Without
// such a network nothing is published.
func (m *Manager) Publish(ctx context.Context, id string, wants []Port) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap("publish ports", shortID(id), err)
	}
	a, err := m.attached(id)
	if err != nil || len(wants) == 0 {
		return err
	}
	four, six := m.gateways(id, a)
	var to4, to6, on netip.Addr
	if four != nil {
		to4, on = four.IPv4, four.net.def.HostIP
	}
	if six != nil && four != nil {
		to6 = six.IPv6
	}
	if to4 == a.to4 && to6 == a.to6 {
		return nil
	}
	wants = sameHostPorts(wants, a.ports)
	m.withdraw(id, a)
	if four == nil {
		return m.rewrite(id, a)
	}
	for i := range wants {
		if !wants[i].HostIP.IsValid() {
			wants[i].HostIP = on
		}
	}
	published, bindings, err := m.ports.reserve(id, wants, to4, to6)
	if err != nil {
		return err
	}
	m.mu.Lock()
	a.bindings, a.ports, a.to4, a.to6 = bindings, published, to4, to6
	m.mu.Unlock()
	if err := m.rewrite(id, a); err != nil {
		m.withdraw(id, a)
		return err
	}
	if err := m.firewall.change(elementsOf(bindings), nil); err != nil {
		m.withdraw(id, a)
		return err
	}
	m.flows.forget(bindings)
	return nil
}

// sameHostPorts turns wishes for any port, or one of several, into wishes for the one
// that the container has now.
func sameHostPorts(wants []Port, have []Published) []Port {
	wants = slices.Clone(wants)
	kept := make(map[uint16]bool, len(have))
	for i, w := range wants {
		for _, p := range have {
			free := w.HostPort == 0 || w.HostPort <= p.HostPort && p.HostPort <= w.HostPortEnd
			if free && !kept[p.HostPort] && p.ContainerPort == w.ContainerPort && p.Proto == w.Proto {
				wants[i].HostPort, wants[i].HostPortEnd = p.HostPort, 0
				kept[p.HostPort] = true
				break
			}
		}
	}
	return wants
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

// Ports returns what is published for a container.
func (m *Manager) Ports(id string) []Published {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.endpoints[id]; a != nil {
		return a.ports
	}
	return nil
}
