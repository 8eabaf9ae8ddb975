package network

import (
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Port is a wish to publish one port of a container.
type Port struct {
	Proto string `json:"proto"` // "tcp" (or empty) or "udp"
	// HostIP is the host's address to publish on. The zero Addr means all, IPv4
	// and IPv6; 0.0.0.0 means all IPv4 and :: all IPv6 addresses.
	HostIP        netip.Addr `json:"hostIP"`
	HostPort      uint16     `json:"hostPort"`              // 0: any free port
	HostPortEnd   uint16     `json:"hostPortEnd,omitempty"` // when above HostPort: the first free port of the range
	ContainerPort uint16     `json:"containerPort"`
}

// Published is one port of a container on one address of the host. Its HostIP
// and HostPort are what was made, those of the embedded Port what was asked for.
type Published struct {
	Port
	HostIP   netip.Addr `json:"onIP"` // 0.0.0.0 or :: for all of a family
	HostPort uint16     `json:"onPort"`
}

func (p Published) key() portKey {
	proto, _ := protocolNumber(p.Proto)
	return portKey{proto: proto, addr: p.HostIP, port: p.HostPort}
}

func protocolNumber(name string) (uint8, error) {
	switch name {
	case "", "tcp":
		return unix.IPPROTO_TCP, nil
	case "udp":
		return unix.IPPROTO_UDP, nil
	case "sctp":
		return 0, fault.New(fault.Unsupported, "publish port", "protocol sctp", "only tcp and udp ports can be published")
	}
	return 0, fault.New(fault.Invalid, "publish port", "protocol "+name, "the protocol is tcp or udp")
}

func protocolName(n uint8) string {
	if n == unix.IPPROTO_UDP {
		return "udp"
	}
	return "tcp"
}

// portKey names a port of the host.
type portKey struct {
	proto uint8
	addr  netip.Addr // 0.0.0.0 or :: for all
	port  uint16
}

func (k portKey) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(k.addr, k.port), protocolName(k.proto))
}

// binding is a published port: where it leads, whose it is, and the socket that
// keeps everybody else on the host from using it (-1 when it could not be had
// again after a restart).
type binding struct {
	portKey
	to     netip.AddrPort
	owner  string // container
	socket int
}

func (b *binding) element() element { return portElement(b.addr, b.proto, b.port, b.to) }

func elementsOf(list []*binding) []element {
	out := make([]element, len(list))
	for i, b := range list {
		out[i] = b.element()
	}
	return out
}

// portTable holds every published port of this engine.
type portTable struct {
	loopback6 func() bool // whether ports can be reached through ::1

	mu    sync.Mutex // guards byKey; leaf lock
	byKey map[portKey]*binding
}

// elements is the content that the firewall's maps must have.
func (t *portTable) elements() []element {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]element, 0, len(t.byKey))
	for _, b := range t.byKey {
		out = append(out, b.element())
	}
	return out
}

func (t *portTable) add(list []*binding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range list {
		t.byKey[b.portKey] = b
	}
}

// forget takes ports out of the table; their sockets still hold them.
func (t *portTable) forget(list []*binding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range list {
		if t.byKey[b.portKey] == b {
			delete(t.byKey, b.portKey)
		}
	}
}

// release forgets ports and lets others on the host use them.
func (t *portTable) release(list []*binding) {
	t.forget(list)
	for _, b := range list {
		b.drop()
	}
}

// drop closes the holding socket.
func (b *binding) drop() {
	if b.socket >= 0 {
		unix.Close(b.socket)
		b.socket = -1
	}
}

// holder names the container that holds a port which k collides with.
func (t *portTable) holder(k portKey) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if b, ok := t.byKey[k]; ok {
		return b.owner, true
	}
	for have, b := range t.byKey {
		if have.proto == k.proto && have.port == k.port && have.addr.Is4() == k.addr.Is4() &&
			(have.addr.IsUnspecified() || k.addr.IsUnspecified()) {
			return b.owner, true
		}
	}
	return "", false
}

// reserve takes the ports that a container wants, all or none. The result
// follows the order of the wishes; a wish for all addresses yields one entry
// for each address family.
func (t *portTable) reserve(owner string, wants []Port, to4, to6 netip.Addr) ([]Published, []*binding, error) {
	var published []Published
	var bound []*binding
	for _, w := range wants {
		p, b, err := t.reserveOne(owner, w, to4, to6)
		if err != nil {
			t.release(bound)
			return nil, nil, err
		}
		published, bound = append(published, p...), append(bound, b...)
	}
	return published, bound, nil
}

// ephemeralTries bounds the search for a port that is free on both families.
const ephemeralTries = 64

func (t *portTable) reserveOne(owner string, w Port, to4, to6 netip.Addr) ([]Published, []*binding, error) {
	proto, err := protocolNumber(w.Proto)
	if err != nil {
		return nil, nil, err
	}
	w.Proto = protocolName(proto)
	if w.ContainerPort == 0 {
		return nil, nil, fault.New(fault.Invalid, "publish port", "0/"+w.Proto, "a container's port is between 1 and 65535")
	}
	if w.HostPortEnd != 0 && w.HostPortEnd < w.HostPort {
		return nil, nil, fault.New(fault.Invalid, "publish port", fmt.Sprintf("%d-%d/%s", w.HostPort, w.HostPortEnd, w.Proto),
			"the range ends before it begins")
	}
	addrs, err := t.hostAddrs(w.HostIP, to6.IsValid())
	if err != nil {
		return nil, nil, err
	}
	first, tries := w.HostPort, 1
	if w.HostPort == 0 {
		tries = ephemeralTries
	} else if w.HostPortEnd > w.HostPort {
		tries = int(w.HostPortEnd-w.HostPort) + 1
	}
	for i := range tries {
		port := first
		if first != 0 {
			port += uint16(i)
		}
		var bound []*binding
		if bound, err = t.bindAll(owner, proto, addrs, port, w.ContainerPort, to4, to6); err == nil {
			return publishedOf(w, bound), bound, nil
		}
		if !fault.Is(err, fault.Conflict) {
			break
		}
	}
	if tries > 1 && fault.Is(err, fault.Conflict) {
		err = fault.New(fault.Exhausted, "publish port", fmt.Sprintf("%d/%s", w.ContainerPort, w.Proto),
			"no port of the wanted range is free on the host")
	}
	return nil, nil, err
}

func publishedOf(w Port, bound []*binding) []Published {
	out := make([]Published, len(bound))
	for i, b := range bound {
		out[i] = Published{Port: w, HostIP: b.addr, HostPort: b.port}
	}
	return out
}

// hostAddrs are the addresses to bind for a wish.
func (t *portTable) hostAddrs(ip netip.Addr, have6 bool) ([]netip.Addr, error) {
	ip = ip.Unmap()
	switch {
	case !ip.IsValid() && have6:
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, nil
	case !ip.IsValid():
		return []netip.Addr{netip.IPv4Unspecified()}, nil
	case ip.Zone() != "":
		return nil, fault.New(fault.Invalid, "publish port on", ip.String(), "an address with a zone cannot be published on")
	case ip.Is6() && !have6:
		return nil, fault.New(fault.Unsupported, "publish port on", ip.String(), "IPv6 is disabled on this host")
	case ip.Is6() && ip.IsLoopback() && !t.loopback6():
		return nil, fault.New(fault.Unsupported, "publish port on", ip.String(),
			"replies cannot be delivered to ::1 while net.bridge.bridge-nf-call-ip6tables is 1").WithHint("publish on 127.0.0.1")
	}
	return []netip.Addr{ip}, nil
}

// bindAll takes one port on several addresses; port 0 lets the kernel choose on
// the first address.
func (t *portTable) bindAll(owner string, proto uint8, addrs []netip.Addr, port, inside uint16, to4, to6 netip.Addr) ([]*binding, error) {
	var bound []*binding
	for _, a := range addrs {
		to := to4
		if a.Is6() {
			to = to6
		}
		k := portKey{proto: proto, addr: a, port: port}
		socket, got, err := holdPort(k)
		if err != nil {
			t.release(bound)
			return nil, t.holdError(k, err)
		}
		k.port, port = got, got
		b := &binding{portKey: k, to: netip.AddrPortFrom(to, inside), owner: owner, socket: socket}
		t.add([]*binding{b})
		bound = append(bound, b)
	}
	return bound, nil
}

func (t *portTable) holdError(k portKey, err error) error {
	const op = "publish port"
	switch err {
	case unix.EADDRINUSE:
		if owner, ours := t.holder(k); ours {
			return fault.New(fault.Conflict, op, k.String(), "port is already allocated by container %s", shortID(owner))
		}
		return fault.New(fault.Conflict, op, k.String(), "port is already allocated: address already in use").
			WithHint("another program on this host uses the port; ss -lntup shows which")
	case unix.EADDRNOTAVAIL:
		return fault.New(fault.Invalid, op, k.String(), "%s is not an address of this host", k.addr)
	case unix.EACCES, unix.EPERM:
		return fault.New(fault.Forbidden, op, k.String(), "%w", err).WithHint("ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE")
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		return fault.New(fault.Exhausted, op, k.String(), "%w", err)
	}
	return fault.New(fault.Internal, op, k.String(), "%w", err)
}

func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
