package network

import (
	"fmt"

	"github.com/google/nftables"
)

// Warnings names what on the host keeps containers from being reached or from
// reaching out although our own rules allow it. Rules that iptables-legacy made
// are not visible to it.
func (m *Manager) Warnings() []string {
	var out []string
	conn, err := nftables.New()
	if err != nil {
		return nil
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil
	}
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop {
			continue
		}
		if family, ok := familyNames[c.Table.Family]; ok && c.Table.Name != m.names.table {
			out = append(out, fmt.Sprintf("the host's firewall (table %s %s, chain %s) drops forwarded packets by default: "+
				"containers reach the outside, and the outside their published ports, only as far as it allows", family, c.Table.Name, c.Name))
		}
	}
	if !m.forwarding.Load() {
		return out // no container needed it yet
	}
	if v, err := readSysctl("ipv4/ip_forward"); err == nil && v == "0" {
		out = append(out, "net.ipv4.ip_forward is off: containers reach nothing but this host")
	}
	if v, err := readSysctl("ipv6/conf/all/forwarding"); m.ipv6 && err == nil && v == "0" {
		out = append(out, "net.ipv6.conf.all.forwarding is off: containers reach nothing but this host over IPv6")
	}
	return out
}

var familyNames = map[nftables.TableFamily]string{
	nftables.TableFamilyIPv4: "ip",
	nftables.TableFamilyIPv6: "ip6",
	nftables.TableFamilyINet: "inet",
}
