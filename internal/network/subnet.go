package network

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// poolBits is the length of the IPv4 prefixes we pick: 4,093 containers, four
// times what one Linux bridge can carry, and small enough to fit between the
// ranges of VPNs and other engines.
const poolBits = 20

// candidateRanges are cut into /20 pools and tried in order. 172.17 (Docker's
// first) and 172.31 (the default private cloud of a large provider) are left
// out, and so is everything below 172.24, where Docker grows upwards.
var candidateRanges = [...]string{
	"172.30.0.0/16", "172.29.0.0/16", "172.28.0.0/16", "172.27.0.0/16", "172.26.0.0/16",
	"10.213.0.0/16", "10.214.0.0/16", "10.215.0.0/16", "192.168.192.0/18",
}

// defaultRouteBits: prefixes at most this long are ways to say "everything"
// (0.0.0.0/0, and the halves that VPN clients install) and block nothing.
const defaultRouteBits = 2

// occupied returns every prefix that a route, an address or a name server of
// the host uses, in all routing tables, except those of the interface own.
func occupied(own int) ([]netip.Prefix, error) {
	var used []netip.Prefix
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := routesOf(family, unix.RT_TABLE_UNSPEC)
		if err != nil {
			return nil, fault.New(fault.Internal, "list routes", "", "%w", err)
		}
		for _, r := range routes {
			if own != 0 && r.LinkIndex == own {
				continue
			}
			if p, ok := toPrefix(r.Dst); ok && p.Bits() > defaultRouteBits {
				used = append(used, p)
			}
		}
	}
	for _, path := range []string{hostResolvConf, systemdResolvConf} {
		used = append(used, nameServersOf(path)...)
	}
	return used, nil
}

func toPrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones).Masked(), true
}

// nameServersOf returns the name servers in a resolv.conf as host prefixes: a
// server reached through the default route would vanish behind our subnet.
func nameServersOf(path string) []netip.Prefix {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []netip.Prefix
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && !a.IsLoopback() {
			a = a.WithZone("").Unmap()
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

func overlapping(p netip.Prefix, used []netip.Prefix) (netip.Prefix, bool) {
	for _, u := range used {
		if u.Overlaps(p) {
			return u, true
		}
	}
	return netip.Prefix{}, false
}

// pickSubnet4 returns the first free pool. Engines other than the default one
// start at a place derived from their name, so that two of them, one of which
// is not running now, rarely choose the same.
func (c *Config) pickSubnet4(n names, used []netip.Prefix) (netip.Prefix, error) {
	if c.poolsOf(4) != nil {
		return c.fromPools(4, used)
	}
	var pools []netip.Prefix
	for _, r := range candidateRanges {
		pools = append(pools, cut(netip.MustParsePrefix(r), poolBits)...)
	}
	start := 0
	if n.table != "berth" {
		start = int(hashOf(n.id, 0) % uint64(len(pools)))
	}
	for i := range pools {
		p := pools[(start+i)%len(pools)]
		if _, taken := overlapping(p, used); !taken {
			return p, nil
		}
	}
	return netip.Prefix{}, fault.New(fault.Exhausted, "choose IPv4 subnet", n.bridge,
		"every candidate overlaps a route of this host").WithHint("name a free subnet in the engine's configuration")
}

func cut(r netip.Prefix, bits int) []netip.Prefix {
	base := r.Addr().As4()
	first := binary.BigEndian.Uint32(base[:])
	out := make([]netip.Prefix, 0, 1<<(bits-r.Bits()))
	for i := range cap(out) {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], first+uint32(i)<<(32-bits))
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(b), bits))
	}
	return out
}

// pickSubnet6 derives a unique local /64 (RFC 4193) from the machine and the
// engine, so that it is the same again when the remembered one is lost.
func (c *Config) pickSubnet6(n names, used []netip.Prefix) (netip.Prefix, error) {
	if c.poolsOf(6) != nil {
		return c.fromPools(6, used)
	}
	machine, _ := os.ReadFile("/etc/machine-id")
	for try := range uint64(16) {
		h := hashOf(string(machine)+n.id, try)
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], h)
		b[0], b[6], b[7] = 0xfd, 0, 0
		p := netip.PrefixFrom(netip.AddrFrom16(b), 64)
		if _, taken := overlapping(p, used); !taken {
			return p, nil
		}
	}
	return netip.Prefix{}, fault.New(fault.Exhausted, "choose IPv6 subnet", n.bridge, "every candidate overlaps a route of this host")
}

func hashOf(s string, salt uint64) uint64 {
	h := sha256.New()
	h.Write([]byte(s))
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], salt)
	h.Write(b[:])
	return binary.BigEndian.Uint64(h.Sum(nil))
}
