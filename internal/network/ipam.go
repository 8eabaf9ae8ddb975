package network

import (
	"encoding/binary"
	"math/bits"
	"net"
	"net/netip"
	"sync"

	"berth/internal/fault"
)

// ipam hands out host numbers in a subnet. One number gives a container its
// IPv4 address, IPv6 address and hardware address alike, so an address always
// has the same hardware address and no neighbour cache on the bridge goes stale.
// Numbers are given out in a circle: an address is used again as late as
// possible.
type ipam struct {
	subnet4, subnet6 netip.Prefix // subnet6 is zero when the host has no IPv6

	gateway4 netip.Addr // the bridge's
	router4  netip.Addr // zero, or somebody else's
	router6  netip.Addr

	first, last uint32 // the numbers from first to before last are given out

	mu    sync.Mutex // guards the rest; leaf lock
	used  []uint64   // bitmap by number
	size  uint32     // of the subnet, or as much of it as is looked at
	next  uint32
	extra map[netip.Addr]struct{} // addresses that were asked for and do not follow from a number
}

// gatewayNumber is the bridge's own for IPv6, and for IPv4 unless it is configured;
// 0 is the network.
const gatewayNumber = 1

// maxNumbers bounds the bitmap for large configured subnets.
const maxNumbers = 1 << 16

// newIPAM makes the addresses of the subnets that were chosen; cfg says what was
// configured within them.
func newIPAM(subnet4, subnet6 netip.Prefix, cfg *Config) *ipam {
	a := &ipam{subnet4: subnet4, subnet6: subnet6, gateway4: cfg.Gateway4, router4: cfg.Router4, router6: cfg.Router6,
		extra: map[netip.Addr]struct{}{}}
	all := uint64(1) << (32 - subnet4.Bits())
	size := min(all, maxNumbers)
	a.first, a.last = gatewayNumber, uint32(size-1) // the last one is the broadcast address
	if r := cfg.Range4; r.IsValid() {
		a.first = max(a.number4(r.Masked().Addr()), gatewayNumber)
		end := uint64(a.number4(r.Masked().Addr())) + 1<<(32-r.Bits())
		a.last = uint32(min(end, all-1))
		size = max(size, min(end, all))
	}
	a.size, a.next, a.used = uint32(size), a.first, make([]uint64, (size+63)/64)
	a.used[0] = 1 | 1<<gatewayNumber
	if !a.gateway4.IsValid() {
		a.gateway4 = a.addr4(gatewayNumber)
	}
	for _, own := range []netip.Addr{a.gateway4, a.router4} {
		if n := a.number4(own); own.IsValid() && n < a.size {
			a.used[n/64] |= 1 << (n % 64)
		}
	}
	if a.router6.IsValid() {
		a.extra[a.router6] = struct{}{}
	}
	return a
}

// number4 is the number of an IPv4 address in the subnet.
func (a *ipam) number4(ip netip.Addr) uint32 {
	if !ip.Is4() {
		return 0
	}
	b, base := ip.As4(), a.subnet4.Addr().As4()
	return binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(base[:])
}

// ours tells whether a number belongs to the network itself.
func (a *ipam) ours(n uint32) bool {
	return n <= gatewayNumber || n == a.number4(a.gateway4) || n == a.number4(a.router4)
}

// gateway6 is the bridge's address; zero without IPv6.
func (a *ipam) gateway6() netip.Addr { return a.addr6(gatewayNumber) }

// ways are what default routes lead to.
func (a *ipam) ways() (four, six netip.Addr) {
	four, six = a.gateway4, a.gateway6()
	if a.router4.IsValid() {
		four = a.router4
	}
	if a.router6.IsValid() && six.IsValid() {
		six = a.router6
	}
	return four, six
}

func (a *ipam) addr4(n uint32) netip.Addr {
	b := a.subnet4.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}

// addr6 returns the zero Addr when there is no IPv6.
func (a *ipam) addr6(n uint32) netip.Addr {
	if !a.subnet6.IsValid() {
		return netip.Addr{}
	}
	b := a.subnet6.Addr().As16()
	binary.BigEndian.PutUint32(b[12:], binary.BigEndian.Uint32(b[12:])+n)
	return netip.AddrFrom16(b)
}

// hardwareAddr is locally administered and follows from the IPv4 address.
func hardwareAddr(ip netip.Addr) net.HardwareAddr {
	b := ip.As4()
	return net.HardwareAddr{0x02, 0xbe, b[0], b[1], b[2], b[3]}
}

// take reserves the next free number.
func (a *ipam) take() (uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := a.last
	for range 2 {
		for n := a.next; n < last; n++ {
			word := ^a.used[n/64] >> (n % 64)
			if word == 0 {
				n |= 63 // the loop's increment enters the next word
				continue
			}
			n += uint32(bits.TrailingZeros64(word))
			if n >= last {
				break
			}
			if _, clash := a.extra[a.addr6(n)]; clash {
				continue
			}
			a.used[n/64] |= 1 << (n % 64)
			a.next = n + 1
			return n, nil
		}
		a.next = a.first
	}
	return 0, fault.New(fault.Exhausted, "allocate address in", a.subnet4.String(),
		"all %d addresses are in use", a.last-max(a.first, gatewayNumber+1)).WithHint("remove containers, or give the engine a larger subnet")
}

// reserve takes the number of a wanted IPv4 address.
func (a *ipam) reserve(ip netip.Addr) (uint32, error) {
	const op = "assign address"
	if !a.subnet4.Contains(ip) {
		return 0, fault.New(fault.Invalid, op, ip.String(), "not inside the network's subnet %s", a.subnet4)
	}
	n := a.number4(ip)
	if a.ours(n) || n >= a.size-1 {
		return 0, fault.New(fault.Invalid, op, ip.String(), "the address belongs to the network itself")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.used[n/64]&(1<<(n%64)) != 0 {
		return 0, fault.New(fault.Conflict, op, ip.String(), "address already in use")
	}
	a.used[n/64] |= 1 << (n % 64)
	return n, nil
}

// reserve6 takes a wanted IPv6 address that does not follow from number n.
func (a *ipam) reserve6(ip netip.Addr) error {
	const op = "assign address"
	if !a.subnet6.IsValid() || !a.subnet6.Contains(ip) {
		return fault.New(fault.Invalid, op, ip.String(), "not inside the network's subnet %s", a.subnet6)
	}
	if ip == a.subnet6.Addr() || ip == a.gateway6() || ip == a.router6 {
		return fault.New(fault.Invalid, op, ip.String(), "the address belongs to the network itself")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	_, taken := a.extra[ip]
	if n, ok := a.number6(ip); ok && a.used[n/64]&(1<<(n%64)) != 0 {
		taken = true
	}
	if taken {
		return fault.New(fault.Conflict, op, ip.String(), "address already in use")
	}
	a.extra[ip] = struct{}{}
	return nil
}

// number6 is the number whose derived IPv6 address is ip.
func (a *ipam) number6(ip netip.Addr) (uint32, bool) {
	b, base := ip.As16(), a.subnet6.Addr().As16()
	if [12]byte(b[:12]) != [12]byte(base[:12]) {
		return 0, false
	}
	n := binary.BigEndian.Uint32(b[12:]) - binary.BigEndian.Uint32(base[12:])
	return n, n < a.size
}

// freeAddrs gives addresses back that reserve and reserve6, or take, have given out.
func (a *ipam) freeAddrs(ip4, ip6 netip.Addr) {
	b, base := ip4.As4(), a.subnet4.Addr().As4()
	a.free(binary.BigEndian.Uint32(b[:])-binary.BigEndian.Uint32(base[:]), ip6)
}

// free gives a number, and an address that was reserved beside it, back.
func (a *ipam) free(n uint32, extra netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ours(n) && n < a.size {
		a.used[n/64] &^= 1 << (n % 64)
	}
	if extra != a.router6 {
		delete(a.extra, extra)
	}
}
