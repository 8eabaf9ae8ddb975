package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// ensureBridge makes the bridge as it has to be and returns its number. What is
// already right is left alone, so that it may run at every start and whenever
// somebody took the bridge away.
func (m *Manager) ensureBridge() (int, error) {
	link, err := netlink.LinkByName(m.names.bridge)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		if link, err = m.createBridge(); err != nil {
			return 0, err
		}
		defer m.replug(link.Attrs().Index)
	case err != nil:
		return 0, fault.New(fault.Internal, "look up bridge", m.names.bridge, "%w", err)
	}
	if err := m.ownBridge(link); err != nil {
		return 0, err
	}
	index := link.Attrs().Index
	if err := m.bridgeSysctls(); err != nil {
		return 0, err
	}
	if err := m.bridgeAddresses(link); err != nil {
		return 0, err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return 0, fault.New(fault.Internal, "bring up bridge", m.names.bridge, "%w", err)
	}
	return index, m.loopback6Route(m.names.bridge, index)
}

func (m *Manager) createBridge() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = m.names.bridge
	attrs.MTU = m.mtu
	// A fixed address: otherwise the bridge would take that of its lowest port and change it as containers come and go.
	attrs.HardwareAddr = hardwareAddr(m.addrs.gateway4)
	link := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(link); err != nil {
		e := fault.New(fault.Internal, "create bridge", m.names.bridge, "%w", err)
		if errors.Is(err, unix.EPERM) {
			e.Kind = fault.Forbidden
			return nil, e.WithHint("the engine needs CAP_NET_ADMIN")
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil, e.WithHint("the kernel lacks bridges (module bridge)")
		}
		return nil, e
	}
	if err := netlink.LinkSetAlias(link, m.names.alias); err != nil {
		return nil, fault.New(fault.Internal, "mark bridge", m.names.bridge, "%w", err)
	}
	made, err := netlink.LinkByIndex(link.Attrs().Index)
	if err != nil {
		return nil, fault.New(fault.Internal, "look up bridge", m.names.bridge, "%w", err)
	}
	return made, nil
}

// replug puts the interfaces of living containers on a bridge that was made
// anew under them.
func (m *Manager) replug(bridge int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, a := range m.endpoints {
		if a.endpoint == nil || a.sandbox.bare() {
			continue
		}
		join := linkRequest(unix.RTM_NEWLINK, 0, a.sandbox.index, false)
		join.AddData(nl.NewRtAttr(unix.IFLA_MASTER, u32(uint32(bridge))))
		if err := m.route.do(join, portRequest(a.sandbox.veth, m.cfg.Isolated)); err != nil {
			m.log.Warn("cannot plug the container into the new bridge", "container", id, "error", err)
		}
	}
}

// ownBridge refuses a bridge that something else made. A bridge without a mark
// and without ports is ours too: the engine died between making and marking it.
func (m *Manager) ownBridge(link netlink.Link) error {
	if alias := link.Attrs().Alias; link.Type() == "bridge" && alias == m.names.alias {
		return nil
	} else if link.Type() == "bridge" && alias == "" {
		list := func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_V4) }
		if addrs, err := wholeList(list); err == nil && len(addrs) == 0 {
			return netlink.LinkSetAlias(link, m.names.alias)
		}
	}
	return fault.New(fault.Conflict, "use bridge", m.names.bridge, "the interface exists and belongs to something else").
		WithHint("name another bridge in the engine's configuration, or remove it: ip link delete %s", m.names.bridge)
}

// bridgeSysctls comes before addresses, which some of them would remove or add.
func (m *Manager) bridgeSysctls() error {
	set := [][2]string{{"ipv4/conf/" + m.names.bridge + "/route_localnet", "1"}}
	if m.ipv6 {
		conf := "ipv6/conf/" + m.names.bridge + "/"
		set = append(set, [2]string{conf + "disable_ipv6", "0"}, [2]string{conf + "accept_ra", "0"},
			[2]string{conf + "accept_dad", "0"}, [2]string{conf + "autoconf", "0"})
	}
	for _, s := range set {
		if err := ensureSysctl(s[0], s[1]); err != nil {
			return fault.New(fault.Internal, "configure bridge", m.names.bridge, "%w", err)
		}
	}
	return nil
}

// readSysctl returns a value below /proc/sys/net of the thread's namespace.
// Plain system calls, as in writeSysctl: some are read for each published port.
func readSysctl(name string) (string, error) {
	path := "/proc/sys/net/" + name
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var buf [128]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// ensureSysctl writes only what differs, so that it works where /proc/sys is
// read-only and somebody else prepared it.
func ensureSysctl(name, value string) error {
	if have, err := readSysctl(name); err == nil && have == value {
		return nil
	}
	return writeSysctl(name, value)
}

// enableForwarding lets packets pass between the bridge and the outside. It
// waits for the first container: an engine that runs none changes no setting of
// the host.
func (m *Manager) enableForwarding() error {
	if m.forwarding.Load() {
		return nil
	}
	m.setup.Lock()
	defer m.setup.Unlock()
	const hint = "set it by hand, or let the engine write to /proc/sys"
	if v, err := readSysctl("ipv4/ip_forward"); err != nil || v == "0" {
		if err := writeSysctl("ipv4/ip_forward", "1"); err != nil {
			return fault.New(fault.Forbidden, "enable", "net.ipv4.ip_forward", "%w", err).WithHint(hint)
		}
		m.log.Warn("enabled net.ipv4.ip_forward: this host now forwards between its other interfaces too, unless its firewall says otherwise")
	}
	if v, err := readSysctl("ipv6/conf/all/forwarding"); m.ipv6 && (err != nil || v == "0") {
		keepRouterAdvertisements()
		if err := writeSysctl("ipv6/conf/all/forwarding", "1"); err != nil {
			return fault.New(fault.Forbidden, "enable", "net.ipv6.conf.all.forwarding", "%w", err).WithHint(hint)
		}
		m.log.Warn("enabled net.ipv6.conf.all.forwarding; interfaces that learn routes from advertisements keep doing so (accept_ra=2)")
	}
	m.forwarding.Store(true)
	return nil
}

// keepRouterAdvertisements: a forwarding interface with accept_ra=1 stops
// listening to routers, and the host would lose its own IPv6 default route.
func keepRouterAdvertisements() {
	dir, err := os.ReadDir("/proc/sys/net/ipv6/conf")
	if err != nil {
		return
	}
	for _, e := range dir {
		name := "ipv6/conf/" + e.Name() + "/accept_ra"
		if e.Name() == "all" || e.Name() == "lo" {
			continue
		}
		if v, err := readSysctl(name); err == nil && v == "1" {
			_ = writeSysctl(name, "2")
		}
	}
}

// bridgeAddresses gives the bridge the gateways' addresses and takes others
// from our families away, which an earlier choice of subnets may have left.
func (m *Manager) bridgeAddresses(link netlink.Link) error {
	want := map[netip.Prefix]bool{netip.PrefixFrom(m.addrs.gateway4, m.subnet4.Bits()): false}
	if m.subnet6.IsValid() {
		want[netip.PrefixFrom(m.addrs.gateway6(), m.subnet6.Bits())] = false
	}
	have, err := wholeList(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fault.New(fault.Internal, "list addresses of", m.names.bridge, "%w", err)
	}
	for i := range have {
		ip, _ := netip.AddrFromSlice(have[i].IP)
		ones, _ := have[i].Mask.Size()
		p := netip.PrefixFrom(ip.Unmap(), ones)
		if _, ours := want[p]; ours {
			want[p] = true
		} else if !p.Addr().IsLinkLocalUnicast() {
			_ = netlink.AddrDel(link, &have[i])
		}
	}
	for p, there := range want {
		if there {
			continue
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return fault.New(fault.Internal, "assign address", p.String(), "to bridge %s: %w", m.names.bridge, err)
		}
	}
	return nil
}

// loopback6Route makes ::1 local on a bridge too: a reply from a published
// port, turned back into one for ::1, is otherwise not routed to the host's
// socket. Packets that carry ::1 on the wire never get this far, the kernel
// drops them on every interface but the loopback.
func (m *Manager) loopback6Route(bridge string, index int) error {
	if !m.ipv6 {
		return nil
	}
	err := netlink.RouteReplace(&netlink.Route{
		LinkIndex: index,
		Dst:       &net.IPNet{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
		Table:     unix.RT_TABLE_LOCAL,
		Type:      unix.RTN_LOCAL,
		Priority:  4096 + index, // behind the loopback's own; routes of equal priority replace one another
	})
	if err != nil {
		return fault.New(fault.Internal, "add local route for ::1 on", bridge, "%w", err)
	}
	return nil
}

// wholeList repeats a listing that the kernel says changed under the reader. A
// host on which that never ends gets what there is.
func wholeList[T any](list func() ([]T, error)) ([]T, error) {
	for try := 0; ; try++ {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
		if try == 20 {
			return all, nil
		}
	}
}

// routesOf lists the routes in a table; RT_TABLE_UNSPEC means all tables.
func routesOf(family, table int) ([]netlink.Route, error) {
	return wholeList(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	})
}

// hostMTU is the MTU of the interface that the host's default route uses:
// containers must not send packets that the way out cannot carry.
func hostMTU() int {
	mtu := defaultMTU
	routes, err := routesOf(netlink.FAMILY_V4, unix.RT_TABLE_MAIN)
	if err != nil {
		return mtu
	}
	for _, r := range routes {
		if p, ok := toPrefix(r.Dst); ok && p.Bits() != 0 {
			continue
		}
		if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU >= 1280 {
			mtu = min(mtu, link.Attrs().MTU)
		}
	}
	return mtu
}

// removeBridge deletes the bridge; its absence is success.
func (m *Manager) removeBridge() error {
	link, err := netlink.LinkByName(m.names.bridge)
	if err != nil {
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return nil
		}
		return err
	}
	if link.Attrs().Alias != m.names.alias {
		return nil
	}
	return netlink.LinkDel(link)
}
