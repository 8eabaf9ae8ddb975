package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

func TestPublishedPorts(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	setBridgeNetfilter(t, "0")
	m := startManager(t, testConfig(t))
	lan := newNeighbour(t, 1)
	ip := netip.MustParseAddr
	ctx := context.Background()
	cases := []struct {
		name string
		port Port
		want string // address and port of each publication; * for any port
	}{
		{"all addresses", Port{HostPort: 8080, ContainerPort: 80}, "0.0.0.0:8080 [::]:8080"},
		{"all of IPv4", Port{HostIP: ip("0.0.0.0"), HostPort: 8081, ContainerPort: 80}, "0.0.0.0:8081"},
		{"all of IPv6", Port{HostIP: ip("::"), HostPort: 8081, ContainerPort: 80}, "[::]:8081"},
		{"one address", Port{HostIP: lan.host4, HostPort: 8082, ContainerPort: 80}, "10.99.1.1:8082"},
		{"one IPv6 address", Port{HostIP: lan.host6, HostPort: 8082, ContainerPort: 80}, "[fd99:0:0:1::1]:8082"},
		{"the same port on another address", Port{HostIP: ip("127.0.0.1"), HostPort: 8082, ContainerPort: 80}, "127.0.0.1:8082"},
		{"mapped IPv4", Port{HostIP: ip("::ffff:127.0.0.1"), HostPort: 8083, ContainerPort: 80}, "127.0.0.1:8083"},
		{"udp beside tcp", Port{Proto: "udp", HostPort: 8080, ContainerPort: 80}, "0.0.0.0:8080 [::]:8080"},
		{"any port", Port{ContainerPort: 80}, "0.0.0.0:* [::]:*"},
		{"any udp port", Port{Proto: "udp", ContainerPort: 80}, "0.0.0.0:* [::]:*"},
		{"first free of a range", Port{HostPort: 8080, HostPortEnd: 8090, ContainerPort: 80}, "0.0.0.0:8083 [::]:8083"},
	}
	// 8083 on 127.0.0.1 is taken by then, so the range's first free one comes later.
	cases[len(cases)-1].want = "0.0.0.0:8084 [::]:8084"
	for i, c := range cases {
		id := fmt.Sprint("c", i)
		e, err := m.Attach(ctx, id, Request{Ports: []Port{c.port}})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if s := describe(m.Ports(id), c.port.HostPort == 0); s != c.want {
			t.Errorf("%s: published on %s, want %s", c.name, s, c.want)
		}
		b := enter(t, e)
		serve(t, b.place, id, ":80")
		for _, p := range m.Ports(id) {
			addr, from := p.HostIP, lan.place
			if addr == netip.IPv4Unspecified() {
				addr = lan.host4
			} else if addr == netip.IPv6Unspecified() {
				addr = lan.host6
			} else if addr.IsLoopback() {
				from = nil
			}
			expect(t, from, p.Proto, at(addr, p.HostPort), id)
		}
	}
}

// describe lists what was published; a port that was left to the engine, and is
// the same on all addresses, is a star.
func describe(list []Published, anyPort bool) string {
	var got []string
	for _, p := range list {
		port := fmt.Sprint(p.HostPort)
		if anyPort && p.HostPort > 1024 && p.HostPort == list[0].HostPort {
			port = "*"
		}
		got = append(got, net.JoinHostPort(p.HostIP.String(), port))
		if p.ContainerPort != 80 {
			got = append(got, fmt.Sprint("for container port ", p.ContainerPort))
		}
	}
	return strings.Join(got, " ")
}

func TestPortConflicts(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	m := startManager(t, testConfig(t))
	lan := newNeighbour(t, 1)
	serve(t, nil, "host", ":7000")
	serve(t, nil, "host", "127.0.0.1:7001")
	ip := netip.MustParseAddr
	holder := "0123456789abcdef0123456789abcdef"
	attach(t, m, holder, Port{HostPort: 8080, ContainerPort: 80}, Port{HostIP: ip("127.0.0.1"), HostPort: 8081, ContainerPort: 80},
		Port{HostIP: ip("0.0.0.0"), HostPort: 8082, ContainerPort: 80, Proto: "udp"})
	cases := []struct {
		port Port
		kind fault.Kind
		says string
	}{
		{Port{HostPort: 8080, ContainerPort: 1}, fault.Conflict, "port is already allocated by container 0123456789ab"},
		{Port{HostIP: lan.host4, HostPort: 8080, ContainerPort: 1}, fault.Conflict, "10.99.1.1:8080/tcp: port is already allocated by container 0123456789ab"},
		{Port{HostPort: 8081, ContainerPort: 1}, fault.Conflict, "container 0123456789ab"},
		{Port{HostPort: 8082, ContainerPort: 1, Proto: "udp"}, fault.Conflict, "8082/udp"},
		{Port{HostPort: 7000, ContainerPort: 1}, fault.Conflict, "address already in use"},
		{Port{HostPort: 7001, ContainerPort: 1}, fault.Conflict, "another program on this host"},
		{Port{HostPort: 7000, ContainerPort: 1, Proto: "udp"}, fault.Conflict, "address already in use"},
		{Port{HostPort: 8080, HostPortEnd: 8081, ContainerPort: 1}, fault.Exhausted, "no port of the wanted range"},
		{Port{HostIP: ip("192.0.2.77"), HostPort: 80, ContainerPort: 1}, fault.Invalid, "not an address of this host"},
		{Port{HostPort: 9000}, fault.Invalid, "between 1 and 65535"},
		{Port{HostPort: 9000, HostPortEnd: 8999, ContainerPort: 1}, fault.Invalid, "ends before it begins"},
		{Port{HostPort: 9000, ContainerPort: 1, Proto: "sctp"}, fault.Unsupported, "sctp"},
		{Port{HostPort: 9000, ContainerPort: 1, Proto: "icmp"}, fault.Invalid, "icmp"},
		{Port{HostIP: ip("fe80::1%lo"), HostPort: 9000, ContainerPort: 1}, fault.Invalid, "zone"},
	}
	for _, c := range cases {
		// A port that could be had is given back when another of the request cannot.
		_, err := m.Attach(context.Background(), "x", Request{Ports: []Port{{HostPort: 9999, ContainerPort: 1}, c.port}})
		if err == nil || fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v; want a %s error with %q", c.port, err, c.kind, c.says)
		}
	}
	attach(t, m, "y", Port{HostPort: 9999, ContainerPort: 1})
	// Programs of the host are kept off published ports, even ones that set SO_REUSEADDR as Go's do.
	if l, err := net.Listen("tcp", ":9999"); err == nil {
		l.Close()
		t.Error("a program on the host could listen on a published port")
	}
	// Two engines that publish on different addresses do not collide, nor do the protocols.
	attach(t, m, "z", Port{HostIP: lan.host4, HostPort: 8081, ContainerPort: 80}, Port{HostPort: 8082, ContainerPort: 80})
}

// A server that was stopped a moment ago leaves connections in TIME_WAIT.
func TestPortOfStoppedServerIsFree(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	l, err := net.Listen("tcp4", "127.0.0.1:7500")
	must(t, err)
	c, err := net.Dial("tcp4", "127.0.0.1:7500")
	must(t, err)
	s, err := l.Accept()
	must(t, err)
	s.Close() // first: this side keeps TIME_WAIT
	c.Close()
	l.Close()
	time.Sleep(10 * time.Millisecond) // until the FIN of the other side is in
	if fd, err := bindSocket(portKey{proto: unix.IPPROTO_TCP, addr: netip.IPv4Unspecified(), port: 7500}, false); err == nil {
		unix.Close(fd)
		t.Skip("no connection stayed in TIME_WAIT")
	}
	m := startManager(t, testConfig(t))
	attach(t, m, "a", Port{HostPort: 7500, ContainerPort: 80})
	other := startManager(t, testConfig(t))
	if _, err := other.Attach(context.Background(), "b", Request{Ports: []Port{{HostPort: 7500, ContainerPort: 80}}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("another engine's attempt at the port: %v", err)
	}
	if l, err := net.Listen("tcp", ":7500"); err == nil {
		l.Close()
		t.Error("a program on the host could listen on the published port")
	}
}

func TestManyPorts(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	m := startManager(t, testConfig(t))
	lan := newNeighbour(t, 1)
	var ports []Port
	for p := uint16(20000); p < 22000; p++ {
		ports = append(ports, Port{HostPort: p, ContainerPort: 80})
	}
	a := attach(t, m, "a", ports...)
	serve(t, a.place, "a", ":80")
	expect(t, lan.place, "tcp", at(lan.host4, 20000), "a")
	expect(t, lan.place, "tcp", at(lan.host6, 21999), "a")
	refuse(t, lan.place, "tcp", at(lan.host4, 22000))
	must(t, m.Detach(context.Background(), "a"))
	if n, err := m.firewall.elementCount(); err != nil || n != 0 {
		t.Errorf("%d ports are left, error %v", n, err)
	}
}

// A client that sends from one port all the time must follow a published UDP
// port to its new container, and find it when it is published under its nose.
func TestDatagramsFollowThePort(t *testing.T) {
	if !onTestHost(t) {
		return
	}
	m := startManager(t, testConfig(t))
	lan := newNeighbour(t, 1)
	var c net.PacketConn
	must(t, lan.do(func() (err error) { c, err = net.ListenPacket("udp4", ":4000"); return err }))
	defer c.Close()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(lan.host4, 5000))
	answeredBy := func(name string) func() bool {
		return func() bool {
			_, _ = c.WriteTo([]byte("?"), to)
			buf := make([]byte, 100)
			_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			n, _, err := c.ReadFrom(buf)
			return err == nil && strings.HasPrefix(string(buf[:n]), name+" ")
		}
	}
	_ = answeredBy("")() // tracked as a flow to the host itself
	for _, name := range []string{"first", "second"} {
		b := attach(t, m, name, Port{Proto: "udp", HostPort: 5000, ContainerPort: 53})
		serve(t, b.place, name, ":53")
		begin := time.Now()
		eventually(t, name+" answers", answeredBy(name))
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("%s was reached after %v only", name, d)
		}
		must(t, m.Detach(context.Background(), name))
	}
}
