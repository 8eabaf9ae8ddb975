package nameserver

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// forward asks the name servers outside, one after the other.
func (s *service) forward(query []byte, stream bool) []byte {
	for _, server := range s.zone.upstream(s.id) {
		if reply, err := s.ask(server, query, stream); err == nil {
			return reply
		}
		if s.life.Err() != nil {
			return nil
		}
	}
	return refusal(query, dnsmessage.RCodeServerFailure)
}

func (s *service) ask(server netip.AddrPort, query []byte, stream bool) ([]byte, error) {
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
