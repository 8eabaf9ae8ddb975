package network

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// NameServer is the address of the name service inside of every container on a
// user-defined network, the same as with other engines.
const NameServer = "127.0.0.11"

const (
	nameTTL        = 600 // seconds, as docker's
	forwardTimeout = 4 * time.Second
	forwardsAtOnce = 64 // of one container; more are refused
	maxMessage     = 64 << 10
	tcpIdle        = 10 * time.Second
)

// nameService answers the name queries of one container: names of containers on
// its networks by what is known here, others through the name servers outside. Its
// sockets are in the container's namespace, on ports of their own, so that port 53
// stays the container's; packets for it are redirected there.
type nameService struct {
	m        *Manager
	id       string
	upstream []netip.AddrPort
	udp      *net.UDPConn
	tcp      *net.TCPListener
	busy     chan struct{}
	life     context.Context
	end      context.CancelFunc
}

// ServeNames starts the name service in a container's namespace, once. upstream
// are the name servers for all other names; none keeps every query inside.
func (m *Manager) ServeNames(id string, upstream []string) error {
	a, err := m.attached(id)
	if err != nil {
		return err
	}
	if a.names != nil {
		return nil
	}
	a.upstream = upstream
	if err := m.rewrite(id, a); err != nil {
		return err
	}
	return m.startNames(id, a)
}

// adoptNames starts the name service of a container that has lived through the end
// of an engine.
func (m *Manager) adoptNames(id string, a *attachment) {
	named := slices.ContainsFunc(a.joined, func(j *joinedEnd) bool { return j.net != m.standard })
	if !named || a.sandbox.ns == nil {
		return
	}
	if err := m.startNames(id, a); err != nil {
		m.log.Warn("cannot serve names", "container", id, "error", err)
	}
}

func (m *Manager) startNames(id string, a *attachment) error {
	s := &nameService{m: m, id: id, busy: make(chan struct{}, forwardsAtOnce)}
	for _, u := range a.upstream {
		if addr, err := netip.ParseAddr(u); err == nil {
			s.upstream = append(s.upstream, netip.AddrPortFrom(addr, 53))
		}
	}
	err := insideNamespace(a.sandbox.ns, func() (err error) {
		local := net.ParseIP(NameServer)
		if s.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: local}); err != nil {
			return err
		}
		s.tcp, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: local})
		return err
	})
	if err == nil {
		err = s.redirect(a)
	}
	if err != nil {
		s.close()
		return fault.New(fault.Internal, "serve names for", shortID(id), "%w", err)
	}
	s.life, s.end = context.WithCancel(context.Background())
	m.mu.Lock()
	a.names = s
	m.mu.Unlock()
	go s.serveUDP()
	go s.serveTCP()
	return nil
}

func (s *nameService) close() {
	if s.udp != nil {
		s.udp.Close()
	}
	if s.tcp != nil {
		s.tcp.Close()
	}
	if s.end != nil {
		s.end()
	}
}

// stopNames ends the name service of a container, if it has one.
func (m *Manager) stopNames(a *attachment) {
	if a.names != nil {
		a.names.close()
		a.names = nil
	}
}

// redirect leads packets for port 53 to the sockets, by a table inside of the
// container's namespace that replaces the one of an earlier engine.
func (s *nameService) redirect(a *attachment) error {
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
		port  int
	}{{unix.IPPROTO_UDP, s.udp.LocalAddr().(*net.UDPAddr).Port}, {unix.IPPROTO_TCP, s.tcp.Addr().(*net.TCPAddr).Port}} {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: cat(
			loadAddr(ipv4Daddr, 4, unix.NFT_REG_1), []expr.Any{
				&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: local.AsSlice()},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{to.proto}},
				&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{0, 53}},
				&expr.Immediate{Register: unix.NFT_REG_1, Data: local.AsSlice()},
				&expr.Immediate{Register: unix.NFT_REG_2, Data: binary.BigEndian.AppendUint16(nil, uint16(to.port))},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: unix.NFT_REG_1, RegProtoMin: unix.NFT_REG_2},
			})})
	}
	return conn.Flush()
}

func (s *nameService) serveUDP() {
	buf := make([]byte, 4096)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(time.Millisecond)
			continue
		}
		query := append([]byte(nil), buf[:n]...)
		s.answer(query, func(reply []byte) { _, _ = s.udp.WriteToUDPAddrPort(reply, from) })
	}
}

func (s *nameService) serveTCP() {
	for {
		c, err := s.tcp.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(time.Millisecond)
			continue
		}
		select {
		case s.busy <- struct{}{}:
			go func() {
				defer func() { c.Close(); <-s.busy }()
				s.serveStream(c)
			}()
		default:
			c.Close()
		}
	}
}

// serveStream answers the queries of one connection, each after the other.
func (s *nameService) serveStream(c *net.TCPConn) {
	unhook := context.AfterFunc(s.life, func() { c.Close() })
	defer unhook()
	for {
		_ = c.SetDeadline(time.Now().Add(tcpIdle))
		query, err := readFramed(c)
		if err != nil {
			return
		}
		if reply, local := s.local(query); local {
			err = writeFramed(c, reply)
		} else {
			err = writeFramed(c, s.forward(query, true))
		}
		if err != nil {
			return
		}
	}
}

func readFramed(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFramed(w io.Writer, b []byte) error {
	if len(b) == 0 || len(b) >= maxMessage {
		return io.ErrShortWrite
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// answer replies at once to what is known here; the rest waits for others.
func (s *nameService) answer(query []byte, send func([]byte)) {
	reply, local := s.local(query)
	if local {
		if len(reply) > 0 {
			send(reply)
		}
		return
	}
	select {
	case s.busy <- struct{}{}:
	default:
		send(refusal(query, dnsmessage.RCodeServerFailure))
		return
	}
	go func() {
		defer func() { <-s.busy }()
		if reply := s.forward(query, false); len(reply) > 0 {
			send(reply)
		}
	}()
}

// local answers a query from what is known here. local is false for what must be
// asked outside; an empty answer drops what is no query.
func (s *nameService) local(query []byte) (reply []byte, local bool) {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil || head.Response {
		return nil, true
	}
	q, err := p.Question()
	if err != nil || head.OpCode != 0 {
		return refusal(query, dnsmessage.RCodeNotImplemented), true
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	switch q.Type {
	case dnsmessage.TypePTR:
		if addr, ok := reverseAddr(name); ok {
			if host, known := s.m.reverse(s.id, addr); known {
				return s.build(head, q, nil, host), true
			}
		}
	default:
		if ip4, ip6, known := s.m.lookup(s.id, name); known {
			var addrs []netip.Addr
			switch q.Type {
			case dnsmessage.TypeA:
				addrs = ip4
			case dnsmessage.TypeAAAA:
				addrs = ip6
			}
			rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
			return s.build(head, q, addrs, ""), true
		}
	}
	if len(s.outside()) == 0 {
		return refusal(query, dnsmessage.RCodeServerFailure), true
	}
	return nil, false
}

// outside returns the name servers that this container may ask: none while all of
// its networks are internal (CVE-2024-29018).
func (s *nameService) outside() []netip.AddrPort {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	a := s.m.endpoints[s.id]
	if a == nil {
		return nil
	}
	if !a.sandbox.bare() {
		return s.upstream
	}
	for _, j := range a.joined {
		if !j.net.def.Internal {
			return s.upstream
		}
	}
	return nil
}

// build makes the answer with addresses or a host's name; neither says that the
// name exists and has nothing of the wanted kind.
func (s *nameService) build(head dnsmessage.Header, q dnsmessage.Question, addrs []netip.Addr, host string) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: head.ID, Response: true, RecursionDesired: head.RecursionDesired, RecursionAvailable: true})
	b.EnableCompression()
	if b.StartQuestions() != nil || b.Question(q) != nil || b.StartAnswers() != nil {
		return nil
	}
	rh := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: nameTTL}
	for _, a := range addrs {
		if a.Is4() {
			_ = b.AResource(rh, dnsmessage.AResource{A: a.As4()})
		} else {
			_ = b.AAAAResource(rh, dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	if host != "" {
		if n, err := dnsmessage.NewName(host + "."); err == nil {
			_ = b.PTRResource(rh, dnsmessage.PTRResource{PTR: n})
		}
	}
	reply, err := b.Finish()
	if err != nil {
		return nil
	}
	return reply
}

// refusal answers a query with a code alone.
func refusal(query []byte, code dnsmessage.RCode) []byte {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil {
		return nil
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: head.ID, Response: true, RecursionDesired: head.RecursionDesired, RecursionAvailable: true, RCode: code})
	if q, err := p.Question(); err == nil && b.StartQuestions() == nil {
		_ = b.Question(q)
	}
	reply, _ := b.Finish()
	return reply
}

// forward asks the name servers outside, one after the other.
func (s *nameService) forward(query []byte, stream bool) []byte {
	for _, server := range s.outside() {
		if reply, err := s.ask(server, query, stream); err == nil {
			return reply
		}
		if s.life.Err() != nil {
			return nil
		}
	}
	return refusal(query, dnsmessage.RCodeServerFailure)
}

func (s *nameService) ask(server netip.AddrPort, query []byte, stream bool) ([]byte, error) {
	network := "udp"
	if stream {
		network = "tcp"
	}
	ctx, cancel := context.WithTimeout(s.life, forwardTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	defer unhook()
	if stream {
		if err := writeFramed(c, query); err != nil {
			return nil, err
		}
		return readFramed(c)
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	reply := make([]byte, maxMessage)
	for {
		n, err := c.Read(reply)
		if err != nil {
			return nil, err
		}
		if answers(reply[:n], query) {
			return reply[:n], nil
		}
	}
}

// answers tells whether a datagram is the answer to a query: its number and its
// question are the same.
func answers(reply, query []byte) bool {
	var r, q dnsmessage.Parser
	rh, err := r.Start(reply)
	if err != nil || !rh.Response {
		return false
	}
	qh, err := q.Start(query)
	if err != nil || qh.ID != rh.ID {
		return false
	}
	want, err1 := q.Question()
	have, err2 := r.Question()
	return err1 == nil && (errors.Is(err2, dnsmessage.ErrSectionDone) || err2 == nil && want.Type == have.Type && strings.EqualFold(want.Name.String(), have.Name.String()))
}

// reverseAddr reads "4.3.2.1.in-addr.arpa" and its IPv6 form.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	parts := strings.Split(rest, ".")
	if !ok || len(parts) != 32 {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := 31; i >= 0; i-- {
		text.WriteString(parts[i])
		if i%4 == 0 && i > 0 {
			text.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(text.String())
	return a, err == nil
}
