package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	nameTTL        = 600 // seconds, as docker's
	forwardTimeout = 4 * time.Second
	forwardsAtOnce = 64 // of one container; more are refused
	maxMessage     = 64 << 10
	tcpIdle        = 10 * time.Second
)

// service answers the name queries of one container on the two sockets that the
// engine has made in its namespace.
type service struct {
	zone *zone
	id   string
	udp  *net.UDPConn
	tcp  *net.TCPListener
	busy chan struct{}
	life context.Context
	end  context.CancelFunc
}

// newService takes the sockets over, a datagram one and one that listens.
func newService(z *zone, id string, udp, tcp int) (*service, error) {
	s := &service{zone: z, id: id, busy: make(chan struct{}, forwardsAtOnce)}
	s.life, s.end = context.WithCancel(context.Background())
	datagrams, stream := os.NewFile(uintptr(udp), "udp"), os.NewFile(uintptr(tcp), "tcp")
	defer datagrams.Close()
	defer stream.Close()
	packets, err := net.FilePacketConn(datagrams)
	if err != nil {
		return nil, err
	}
	listener, err := net.FileListener(stream)
	if err != nil {
		_ = packets.Close()
		return nil, err
	}
	var ok1, ok2 bool
	s.udp, ok1 = packets.(*net.UDPConn)
	s.tcp, ok2 = listener.(*net.TCPListener)
	if !ok1 || !ok2 {
		_, _ = packets.Close(), listener.Close()
		return nil, errors.New("these are not the sockets of a name service")
	}
	go s.serveUDP()
	go s.serveTCP()
	return s, nil
}

func (s *service) close() {
	s.end()
	_, _ = s.udp.Close(), s.tcp.Close()
}

func (s *service) serveUDP() {
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

func (s *service) serveTCP() {
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
func (s *service) serveStream(c *net.TCPConn) {
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
func (s *service) answer(query []byte, send func([]byte)) {
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
func (s *service) local(query []byte) (reply []byte, local bool) {
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
			if host, known := s.zone.reverse(s.id, addr); known {
				return s.build(head, q, nil, host), true
			}
		}
	default:
		if ip4, ip6, known := s.zone.lookup(s.id, name); known {
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
	if len(s.zone.upstream(s.id)) == 0 {
		return refusal(query, dnsmessage.RCodeServerFailure), true
	}
	return nil, false
}

// build makes the answer with addresses or a host's name; neither says that the
// name exists and has nothing of the wanted kind.
func (s *service) build(head dnsmessage.Header, q dnsmessage.Question, addrs []netip.Addr, host string) []byte {
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
