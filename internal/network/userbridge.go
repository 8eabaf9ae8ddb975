package network

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// ensureUserBridge makes the bridge of a user-defined network, or finds that it
// stands.
func (m *Manager) ensureUserBridge(n *userNet) error {
	n.setup.Lock()
	defer n.setup.Unlock()
	if n == m.standard {
		return m.ensureStandard(n)
	}
	if n.index != 0 {
		if name, err := m.route.nameOf(n.index); err == nil && name == n.def.Bridge {
			return nil
		}
	}
	n.index = 0
	link, err := netlink.LinkByName(n.def.Bridge)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		link, err = m.createUserBridge(n)
	case err == nil && link.Attrs().Alias != m.userAlias(n):
		return fault.New(fault.Conflict, "use bridge", n.def.Bridge, "the interface exists and belongs to something else").
			WithHint("name another one (com.docker.network.bridge.name), or remove it: ip link delete %s", n.def.Bridge)
	}
	if err != nil {
		return fault.Wrap("make bridge", n.def.Bridge, err)
	}
	if err := m.furnishUserBridge(n, link); err != nil {
		return fault.New(fault.Internal, "configure bridge", n.def.Bridge, "%w", err)
	}
	n.index = link.Attrs().Index
	return nil
}

func (m *Manager) createUserBridge(n *userNet) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = n.def.Bridge, m.userMTU(n), hardwareAddr(n.def.Gateway4)
	link := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(link); err != nil {
		return nil, err
	}
	if err := netlink.LinkSetAlias(link, m.userAlias(n)); err != nil {
		return nil, err
	}
	return netlink.LinkByIndex(link.Attrs().Index)
}

func (m *Manager) userMTU(n *userNet) int {
	if n.def.MTU > 0 {
		return n.def.MTU
	}
	return m.mtu
}

// furnishUserBridge sets everything that may be missing after a crash.
func (m *Manager) furnishUserBridge(n *userNet, link netlink.Link) error {
	name := n.def.Bridge
	set := [][2]string{{"ipv4/conf/" + name + "/route_localnet", "1"}}
	if ipv6Works() {
		off := "1"
		if n.def.Subnet6.IsValid() {
			off = "0"
		}
		conf := "ipv6/conf/" + name + "/"
		set = append(set, [2]string{conf + "disable_ipv6", off}, [2]string{conf + "accept_ra", "0"},
			[2]string{conf + "accept_dad", "0"}, [2]string{conf + "autoconf", "0"})
	}
	for _, s := range set {
		if err := ensureSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	for _, p := range []netip.Prefix{netip.PrefixFrom(n.def.Gateway4, n.def.Subnet4.Bits()), netip.PrefixFrom(n.def.Gateway6, n.def.Subnet6.Bits())} {
		if !p.Addr().IsValid() {
			continue
		}
		flags := uint8(0)
		if p.Addr().Is6() {
			flags = unix.IFA_F_NODAD
		}
		if err := m.route.do(addrRequest(link.Attrs().Index, p, flags)); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil || !n.def.Subnet6.IsValid() || n.def.Internal {
		return err
	}
	return m.loopback6Route(name, link.Attrs().Index)
}

// removeUserBridge removes a network's bridge if it is ours and nobody is on it.
func (m *Manager) removeUserBridge(n *userNet) {
	n.mu.Lock()
	busy := len(n.ends) > 0
	n.mu.Unlock()
	if busy {
		return
	}
	n.setup.Lock()
	defer n.setup.Unlock()
	n.index = 0
	link, err := netlink.LinkByName(n.def.Bridge)
	if err != nil || link.Attrs().Alias != m.userAlias(n) {
		return
	}
	if err := netlink.LinkDel(link); err != nil {
		m.log.Warn("cannot remove the bridge", "bridge", n.def.Bridge, "error", err)
	}
}

// sweepUserLinks removes bridges of networks that are not defined any more, and
// interfaces on our bridges that belong to no adopted container.
func (m *Manager) sweepUserLinks() {
	defined := map[string]bool{}
	bridges := map[int]bool{}
	for _, n := range m.user.all() {
		defined[m.userAlias(n)] = true
	}
	kept := map[int]bool{}
	m.mu.Lock()
	for _, a := range m.endpoints {
		for _, j := range a.joined {
			kept[j.Index] = true
		}
	}
	m.mu.Unlock()
	links, err := wholeList(netlink.LinkList)
	if err != nil {
		m.log.Warn("cannot list interfaces", "error", err)
		return
	}
	for _, l := range links {
		alias := l.Attrs().Alias
		if l.Type() != "bridge" || !strings.HasPrefix(alias, m.names.alias+":") {
			continue
		}
		if defined[alias] {
			bridges[l.Attrs().Index] = true
		} else if err := netlink.LinkDel(l); err != nil {
			m.log.Warn("cannot remove the bridge of a network that is gone", "bridge", l.Attrs().Name, "error", err)
		}
	}
	for _, l := range links {
		a := l.Attrs()
		if strings.HasPrefix(a.Name, "veth"+m.names.tag) && bridges[a.MasterIndex] && !kept[a.Index] {
			m.reaper.bury(a.Name, a.Index, [2]netip.Addr{}, func() {})
		}
	}
}
