package network

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// insideName is the interface of a container on the bridge.
const insideName = "eth0"

// SandboxSysctls are the settings, below /proc/sys/net, that every namespace of
// a Manager has when it is handed out. The two for IPv4 are what other engines
// give containers too: ping and ports below 1024 without extra rights. Router
// advertisements are ignored (CVE-2020-13401: a neighbour on the bridge could
// become the gateway), and addresses are ours alone, so that waiting for
// duplicate detection is pointless.
var SandboxSysctls = [...][2]string{
	{"ipv6/conf/default/accept_ra", "0"},
	{"ipv6/conf/default/accept_dad", "0"},
	{"ipv4/ip_unprivileged_port_start", "0"},
	{"ipv4/ping_group_range", "0 2147483647"},
}

// sandbox is one network namespace of ours, ready or claimed. The descriptor
// keeps it alive until the container's processes do.
type sandbox struct {
	id    string   // 64 hex digits
	ns    *os.File // the namespace; nil after adoption when no process of the container was found
	inode uint64   // of the namespace, to recognise it after a restart

	record    record // what is, or will be, written for the claim
	unclaimed bool   // its files still have the names of a ready one

	// Zero for a bare namespace:
	veth  string // host-side interface
	index int    // its number
	num   uint32 // number in the subnet
	extra netip.Addr
	ip4   netip.Addr
	ip6   netip.Addr
	mac   net.HardwareAddr
}

func (s *sandbox) bare() bool { return s.veth == "" }

func (s *sandbox) closeNS() {
	if s.ns != nil {
		s.ns.Close()
		s.ns = nil
	}
}

func randomID(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, see its documentation
	return hex.EncodeToString(b)
}

// newNamespace makes a namespace with our settings and returns it with a route
// socket inside. A thread visits the namespace and comes back; one that cannot
// come back ends with its goroutine.
func newNamespace() (ns *os.File, inside *routeConn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var home int
		home, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			return
		}
		defer unix.Close(home)
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			return
		}
		ns, inside, err = furnishNamespace()
		if back := unix.Setns(home, unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	<-done
	if err == nil {
		return ns, inside, nil
	}
	if ns != nil {
		ns.Close()
	}
	if inside != nil {
		inside.close()
	}
	return nil, nil, namespaceError(err)
}

func namespaceError(err error) error {
	e := fault.New(fault.Internal, "create network namespace", "", "%w", err)
	switch {
	case errors.Is(err, unix.EPERM):
		e.Kind = fault.Forbidden
		return e.WithHint("the engine needs CAP_SYS_ADMIN")
	case errors.Is(err, unix.ENOSPC):
		e.Kind = fault.Exhausted
		return e.WithHint("raise user.max_net_namespaces")
	}
	return e
}

// furnishNamespace runs on a thread inside the new namespace.
func furnishNamespace() (*os.File, *routeConn, error) {
	for _, s := range SandboxSysctls {
		if err := writeSysctl(s[0], s[1]); err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, nil, err
		}
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ns := os.NewFile(uintptr(fd), "netns")
	conn, err := dialRoute()
	return ns, conn, err
}

// writeSysctl sets a value below /proc/sys/net in the thread's own namespace.
// Plain system calls: a file of the runtime's poller costs twice as much.
func writeSysctl(name, value string) error {
	path := "/proc/sys/net/" + name
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// buildBare makes a namespace with nothing but a loopback that is up.
func (m *Manager) buildBare() (*sandbox, error) {
	s, inside, err := startSandbox()
	if err != nil {
		return nil, err
	}
	defer inside.close()
	if err := inside.do(linkRequest(unix.RTM_NEWLINK, 0, loopbackIndex, true)); err != nil {
		s.closeNS()
		return nil, fault.New(fault.Internal, "bring up loopback", "", "%w", err)
	}
	if err := m.prepare(s); err != nil {
		m.reaper.discard(s)
		return nil, err
	}
	return s, nil
}

// loopbackIndex is the loopback's number in every namespace.
const loopbackIndex = 1

func startSandbox() (*sandbox, *routeConn, error) {
	ns, inside, err := newNamespace()
	if err != nil {
		return nil, nil, err
	}
	s := &sandbox{id: randomID(32), ns: ns}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		inside.close()
		s.closeNS()
		return nil, nil, fault.New(fault.Internal, "identify network namespace", "", "%w", err)
	}
	s.inode = st.Ino
	return s, inside, nil
}

// identity is what a container asked for; zero fields follow from the number.
type identity struct {
	ip4, ip6 netip.Addr
	mac      net.HardwareAddr
}

func (w identity) any() bool { return !w.ip4.IsValid() && !w.ip6.IsValid() && len(w.mac) == 0 }

// buildBridged makes a namespace that is plugged into the bridge and complete.
func (m *Manager) buildBridged(want identity) (*sandbox, error) {
	s, err := m.buildOnce(want)
	if err != nil && !m.ready.Load() {
		return m.buildOnce(want) // somebody removed the bridge: it is made anew
	}
	return s, err
}

func (m *Manager) buildOnce(want identity) (*sandbox, error) {
	if err := m.ensureReady(); err != nil {
		return nil, err
	}
	s, inside, err := startSandbox()
	if err != nil {
		return nil, err
	}
	defer inside.close()
	if err := m.assign(s, want); err != nil {
		s.closeNS()
		return nil, err
	}
	if err = m.plug(s, inside); err == nil {
		err = m.prepare(s)
	}
	if err != nil {
		m.reaper.discard(s)
		return nil, err
	}
	return s, nil
}

func (m *Manager) assign(s *sandbox, want identity) (err error) {
	if want.ip4.IsValid() {
		s.num, err = m.addrs.reserve(want.ip4.Unmap())
	} else {
		s.num, err = m.addrs.take()
	}
	if err != nil {
		return err
	}
	s.ip4, s.ip6 = m.addrs.addr4(s.num), m.addrs.addr6(s.num)
	if want.ip6.IsValid() && want.ip6 != s.ip6 {
		if err := m.addrs.reserve6(want.ip6); err != nil {
			m.addrs.free(s.num, netip.Addr{})
			return err
		}
		s.ip6, s.extra = want.ip6, want.ip6
	}
	if s.mac = want.mac; len(s.mac) == 0 {
		s.mac = hardwareAddr(s.ip4)
	}
	return nil
}

// plug makes the interface pair, the host's end on the bridge, and sets the
// container's end up.
func (m *Manager) plug(s *sandbox, inside *routeConn) error {
	const op = "create interface"
	for {
		s.veth = "veth" + m.names.tag + randomID(4)[:7]
		err := m.route.do(m.pairRequests(s)...)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return m.plugError(s, err)
		}
		break
	}
	var err error
	if s.index, err = m.route.indexOf(s.veth); err != nil {
		return fault.New(fault.Internal, op, s.veth, "%w", err)
	}
	index, err := inside.indexOf(insideName)
	if err != nil {
		return fault.New(fault.Internal, op, insideName, "%w", err)
	}
	if err := inside.do(m.insideRequests(s, index)...); err != nil {
		return fault.New(fault.Internal, "configure interface", insideName, "%w", err)
	}
	return nil
}

func (m *Manager) plugError(s *sandbox, err error) error {
	e := fault.New(fault.Internal, "plug container into", m.names.bridge, "%w", err)
	switch {
	case errors.Is(err, unix.EXFULL):
		e.Kind = fault.Exhausted
		return e.WithHint("a Linux bridge carries 1023 interfaces; use network mode host or none for some containers")
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EINVAL):
		m.ready.Store(false) // somebody removed the bridge
	}
	return e
}

// pairRequests creates the veth pair and puts the host's end on the bridge.
// The host's end gets no IPv6 address of its own, and hairpin mode, so that a
// container reaches its own published port when bridged packets pass netfilter.
func (m *Manager) pairRequests(s *sandbox) []*nl.NetlinkRequest {
	name := nl.ZeroTerminated(s.veth)
	create := linkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, false)
	create.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, name))
	create.AddData(nl.NewRtAttr(unix.IFLA_MTU, u32(uint32(m.mtu))))
	create.AddData(nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, u32(1)))
	create.AddData(nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, u32(1)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(insideName))
	peer.AddRtAttr(unix.IFLA_MTU, u32(uint32(m.mtu)))
	peer.AddRtAttr(unix.IFLA_ADDRESS, s.mac)
	peer.AddRtAttr(unix.IFLA_NUM_TX_QUEUES, u32(1))
	peer.AddRtAttr(unix.IFLA_NUM_RX_QUEUES, u32(1))
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, u32(uint32(s.ns.Fd())))
	create.AddData(info)

	quiet := linkRequest(unix.RTM_NEWLINK, 0, 0, false)
	quiet.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, name))
	if m.ipv6 {
		quiet.AddData(noAutoAddress())
	}
	quiet.AddData(nl.NewRtAttr(unix.IFLA_MASTER, u32(uint32(m.bridgeIndex.Load()))))

	return []*nl.NetlinkRequest{create, quiet, portRequest(s.veth, m.cfg.Isolated)}
}

// portRequest brings a port of the bridge up, in hairpin mode. An isolated one
// reaches the bridge and no other isolated port.
func portRequest(veth string, isolated bool) *nl.NetlinkRequest {
	up := linkRequest(unix.RTM_NEWLINK, 0, 0, true)
	up.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(veth)))
	slave := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	slave.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	port := slave.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil)
	port.AddRtAttr(nl.IFLA_BRPORT_MODE, []byte{1})
	if isolated {
		port.AddRtAttr(nl.IFLA_BRPORT_ISOLATED, []byte{1})
	}
	up.AddData(slave)
	return up
}

// noAutoAddress keeps the kernel from giving an interface a link-local address.
func noAutoAddress() *nl.RtAttr {
	const addrGenModeNone = 1
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenModeNone})
	return spec
}

// insideRequests gives interface index its addresses and default routes.
func (m *Manager) insideRequests(s *sandbox, index int) []*nl.NetlinkRequest {
	reqs := []*nl.NetlinkRequest{
		linkRequest(unix.RTM_NEWLINK, 0, loopbackIndex, true),
		linkRequest(unix.RTM_NEWLINK, 0, index, true),
		addrRequest(index, netip.PrefixFrom(s.ip4, m.subnet4.Bits()), 0),
	}
	way4, way6 := m.addrs.ways()
	if s.ip6.IsValid() {
		reqs = append(reqs, addrRequest(index, netip.PrefixFrom(s.ip6, m.subnet6.Bits()), unix.IFA_F_NODAD),
			defaultRouteRequest(index, way6))
	}
	return append(reqs, defaultRouteRequest(index, way4))
}

func addrRequest(index int, p netip.Prefix, flags uint8) *nl.NetlinkRequest {
	family := familyOf(p.Addr())
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	msg := nl.NewIfAddrmsg(family)
	msg.Prefixlen = uint8(p.Bits())
	msg.Flags = flags
	msg.Index = uint32(index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice()))
	if family == unix.AF_INET {
		req.AddData(nl.NewRtAttr(unix.IFA_BROADCAST, lastAddr4(p).AsSlice()))
	}
	return req
}

// lastAddr4 is the broadcast address of an IPv4 prefix.
func lastAddr4(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

func defaultRouteRequest(index int, gateway netip.Addr) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	msg := nl.NewRtMsg()
	msg.Family = uint8(familyOf(gateway))
	msg.Table = unix.RT_TABLE_MAIN
	msg.Protocol = unix.RTPROT_STATIC
	msg.Scope = unix.RT_SCOPE_UNIVERSE
	msg.Type = unix.RTN_UNICAST
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, gateway.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.RTA_OIF, u32(uint32(index))))
	return req
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
