package network

import (
	"net/netip"

	"berth/internal/fault"
)

// Pool is a range that is cut into subnets of one length.
type Pool struct {
	Base netip.Prefix
	Bits int // length of a subnet
}

// Check refuses a pool that cannot be cut.
func (p Pool) Check() error {
	longest := 29
	if p.Base.Addr().Is6() {
		longest = 96
	}
	if !p.Base.IsValid() || p.Bits < p.Base.Bits() || p.Bits > longest {
		return fault.New(fault.Invalid, "use address pool", p.Base.String(), "the size of its subnets is a length from %d to %d bits, not %d", max(p.Base.Bits(), 0), longest, p.Bits)
	}
	return nil
}

// triedSubnets bounds how many subnets of a pool are looked at: a large IPv6 pool
// has more than anybody waits for.
const triedSubnets = 1 << 20

// subnet returns the n-th subnet; ok is false when there are not so many.
func (p Pool) subnet(n uint64) (s netip.Prefix, ok bool) {
	width := p.Bits - p.Base.Bits()
	if width < 64 && n >= 1<<width {
		return s, false
	}
	b := p.Base.Masked().Addr().AsSlice()
	for at := p.Bits - 1; n > 0; at-- { // bit by bit, the lowest one first
		b[at/8] |= byte(n&1) << (7 - at%8)
		n >>= 1
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(a, p.Bits), true
}

// poolsOf are the configured pools of a family, 4 or 6.
func (c *Config) poolsOf(family int) (list []Pool) {
	for _, p := range c.Pools {
		if p.Base.Addr().Is4() == (family == 4) {
			list = append(list, p)
		}
	}
	return list
}

// fromPools returns the first subnet of the configured pools that is free.
func (c *Config) fromPools(family int, used []netip.Prefix) (netip.Prefix, error) {
	for _, p := range c.poolsOf(family) {
		for n := range uint64(triedSubnets) {
			s, ok := p.subnet(n)
			if !ok {
				break
			}
			if _, taken := overlapping(s, used); !taken {
				return s, nil
			}
		}
	}
	return netip.Prefix{}, fault.New(fault.Exhausted, "", "", "could not find an available, non-overlapping IPv%d address pool", family).
		WithHint("remove networks that are not used, name a subnet, or give the engine more address pools")
}

// inPools reports whether a subnet may be kept with the pools that are configured
// now.
func (c *Config) inPools(s netip.Prefix) bool {
	family := 6
	if s.Addr().Is4() {
		family = 4
	}
	pools := c.poolsOf(family)
	for _, p := range pools {
		if p.Base.Contains(s.Addr()) && s.Bits() == p.Bits {
			return true
		}
	}
	return pools == nil
}

// fits checks what is configured within the subnets of the default network.
func (c *Config) fits(subnet4, subnet6 netip.Prefix) error {
	in := func(what string, a netip.Addr, s netip.Prefix) error {
		if !a.IsValid() || s.IsValid() && s.Contains(a) && a != s.Masked().Addr() {
			return nil
		}
		return fault.New(fault.Invalid, "use "+what, a.String(), "it is no address of the bridge's subnet %s", s)
	}
	for _, err := range []error{
		in("address of the bridge", c.Gateway4, subnet4), in("default gateway", c.Router4, subnet4), in("default gateway", c.Router6, subnet6),
	} {
		if err != nil {
			return err
		}
	}
	if r := c.Range4; r.IsValid() && (!subnet4.Contains(r.Addr()) || r.Bits() < subnet4.Bits()) {
		return fault.New(fault.Invalid, "use range", r.String(), "it is outside of the bridge's subnet %s", subnet4)
	}
	return nil
}
