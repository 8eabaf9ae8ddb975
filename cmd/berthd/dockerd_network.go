package main

import (
	"net/netip"
	"strconv"
	"strings"

	"berth/internal/fault"
	"berth/internal/network"
)

// bridgeOptions reads what is said about the default bridge and about the subnets
// of networks that name none, but for the subnets of the bridge themselves.
func bridgeOptions(s settings) (c network.Config, err error) {
	bad := func(name, value string) error {
		return fault.New(fault.Invalid, "", "", "--%s: %s is not an ip address", name, value)
	}
	c.MTU, _ = strconv.Atoi(s.text("mtu"))
	c.Isolated, c.NoMasq, c.NoIPv6 = s.text("icc") == "false", s.text("ip-masq") == "false", s.text("ipv6") == "false"
	if p, err := netip.ParsePrefix(s.text("bip")); err == nil && p.Addr() != p.Masked().Addr() {
		c.Gateway4 = p.Addr()
	}
	if p, err := netip.ParsePrefix(s.text("fixed-cidr")); err == nil && s.has("bip") {
		c.Range4 = p.Masked()
	}
	for name, to := range map[string]*netip.Addr{"default-gateway": &c.Router4, "default-gateway-v6": &c.Router6} {
		if v := s.text(name); v != "" {
			if *to, err = netip.ParseAddr(v); err != nil || to.Is4() != (to == &c.Router4) {
				return c, bad(name, v)
			}
		}
	}
	for _, v := range s["default-address-pool"] {
		p, err := addressPool(v)
		if err != nil {
			return c, err
		}
		c.Pools = append(c.Pools, p)
	}
	return c, nil
}

// addressPool reads "base=CIDR,size=BITS".
func addressPool(text string) (p network.Pool, err error) {
	bad := fault.New(fault.Invalid, "", "", "invalid default-address-pool %q", text).WithHint("write base=10.10.0.0/16,size=24")
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "base":
			p.Base, err = netip.ParsePrefix(value)
		case "size":
			p.Bits, err = strconv.Atoi(value)
		default:
			return p, bad
		}
		if err != nil {
			return p, bad
		}
	}
	return p, p.Check()
}
