package network

import (
	"net/netip"
	"strings"
)

// lookup finds the addresses that a name has for a container: those of everybody
// with that name on the networks that both are on.
func (m *Manager) lookup(id, name string) (ip4, ip6 []netip.Addr, known bool) {
	m.mu.Lock()
	a := m.endpoints[id]
	var nets []*userNet
	if a != nil {
		for _, j := range a.joined {
			if j.net != m.standard { // has no names, as with other engines
				nets = append(nets, j.net)
			}
		}
	}
	m.mu.Unlock()
	for _, n := range nets {
		short, within := strings.CutSuffix(name, "."+strings.ToLower(n.def.Name))
		n.mu.Lock()
		linked := ""
		if own := n.ends[id]; own != nil {
			for alias, target := range own.Links {
				if strings.EqualFold(alias, name) {
					linked = target
				}
			}
		}
		for _, j := range n.ends {
			if linked != "" && j.container == linked {
				known = true
				ip4 = append(ip4, j.IPv4)
				if j.IPv6.IsValid() {
					ip6 = append(ip6, j.IPv6)
				}
				continue
			}
			for _, have := range j.Names {
				if !strings.EqualFold(have, name) && !(within && strings.EqualFold(have, short)) {
					continue
				}
				known = true
				ip4 = append(ip4, j.IPv4)
				if j.IPv6.IsValid() {
					ip6 = append(ip6, j.IPv6)
				}
				break
			}
		}
		n.mu.Unlock()
	}
	return ip4, ip6, known
}

// reverse finds the name of an address on a container's networks.
func (m *Manager) reverse(id string, addr netip.Addr) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.endpoints[id]
	if a == nil {
		return "", false
	}
	for _, j := range a.joined {
		if j.net == m.standard {
			continue
		}
		j.net.mu.Lock()
		for _, other := range j.net.ends {
			if (other.IPv4 == addr || other.IPv6 == addr) && len(other.Names) > 0 {
				name := other.Names[0] + "." + j.net.def.Name
				j.net.mu.Unlock()
				return name, true
			}
		}
		j.net.mu.Unlock()
	}
	return "", false
}
