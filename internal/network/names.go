package network

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
	"berth/internal/network/nameserver"
)

// NameServer is the address of the name service inside of every container on a
// user-defined network, the same as with other engines.
const NameServer = "127.0.0.11"

// NameServerMain is the process of the name service, see Config.NameServer.
func NameServerMain(path string) error { return nameserver.Main(path) }

// ServeNames starts the name service in a container's namespace, once. upstream
// are the name servers for all other names; none keeps every query inside.
func (m *Manager) ServeNames(id string, upstream []string) error {
	a, err := m.attached(id)
	if err != nil {
		return err
	}
	if a.named {
		return nil
	}
	a.upstream = upstream
	if err := m.rewrite(id, a); err != nil {
		return err
	}
	return m.startNames(id, a)
}

// adoptNames gives the containers that have lived through the end of an engine new
// sockets, and ends the service that they had.
func (m *Manager) adoptNames() {
	m.mu.Lock()
	all := make(map[string]*attachment, len(m.endpoints))
	for id, a := range m.endpoints {
		if len(m.nameEntry(id, a).On) > 0 && a.sandbox.ns != nil {
			all[id] = a
		}
	}
	m.mu.Unlock()
	for id, a := range all {
		if err := m.startNames(id, a); err != nil {
			m.log.Warn("cannot serve names", "container", id, "error", err)
		}
	}
	m.nameService.Retire()
}

// nameEntry is what the name service has to know of a container. The default network
// has no names, as with other engines; while all networks are internal no question
// goes outside (CVE-2024-29018).
func (m *Manager) nameEntry(id string, a *attachment) nameserver.Entry {
	e := nameserver.Entry{Container: id}
	if four, _ := m.gateways(id, a); four != nil {
		e.Upstream = a.upstream
	}
	for _, j := range a.joined {
		if j.net != m.standard {
			e.On = append(e.On, nameserver.End{Network: j.Network, Name: j.net.def.Name, IPv4: j.IPv4, IPv6: j.IPv6, Names: j.Names, Links: j.Links})
		}
	}
	return e
}

// startNames makes a container's two sockets, on ports of their own, so that port 53
// stays the container's, and leads packets for port 53 to them.
func (m *Manager) startNames(id string, a *attachment) error {
	var udp, tcp socket
	err := insideNamespace(a.sandbox.ns, func() (err error) {
		if udp, err = nameSocket(unix.SOCK_DGRAM); err != nil {
			return err
		}
		tcp, err = nameSocket(unix.SOCK_STREAM)
		return err
	})
	if err == nil {
		err = redirectNames(a, udp.port, tcp.port)
	}
	if err != nil {
		udp.close()
		tcp.close()
		return fault.New(fault.Internal, "serve names for", shortID(id), "%w", err)
	}
	a.named = true
	return m.nameService.Put(m.nameEntry(id, a), udp.fd, tcp.fd)
}

// stopNames ends the name service of a container, if it has one.
func (m *Manager) stopNames(id string, a *attachment) {
	if a.named {
		a.named = false
		m.nameService.Drop(id)
	}
}

// socket is one of the name service.
type socket struct {
	fd   int // 0: none
	port uint16
}

func (s socket) close() {
	if s.fd > 0 {
		unix.Close(s.fd)
	}
}

// nameSocket opens a socket at NameServer in the thread's namespace.
func nameSocket(kind int) (socket, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return socket{}, err
	}
	s := socket{fd: fd}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(NameServer).As4()}); err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err == nil {
		s.port, err = boundPort(fd)
	}
	if err != nil {
		s.close()
		return socket{}, err
	}
	return s, nil
}

// redirectNames leads packets for port 53 to the sockets, by a table inside of the
// container's namespace that replaces the one of an earlier engine at once.
func redirectNames(a *attachment, udp, tcp uint16) error {
	conn, err := nftables.New(nftables.WithNetNSFd(int(a.sandbox.ns.Fd())))
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: "berth-names"}
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{Name: "output", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	local := netip.MustParseAddr(NameServer)
	for _, to := range []struct {
		proto byte
		port  uint16
	}{{unix.IPPROTO_UDP, udp}, {unix.IPPROTO_TCP, tcp}} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: cat(
			loadAddr(ipv4Daddr, 4, unix.NFT_REG_1), []expr.Any{
				&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: local.AsSlice()},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{to.proto}},
				&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{0, 53}},
				&expr.Immediate{Register: unix.NFT_REG_1, Data: local.AsSlice()},
				&expr.Immediate{Register: unix.NFT_REG_2, Data: binary.BigEndian.AppendUint16(nil, to.port)},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: unix.NFT_REG_1, RegProtoMin: unix.NFT_REG_2},
			})})
	}
	return conn.Flush()
}
