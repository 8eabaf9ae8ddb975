package network

import (
	"net/netip"

	"github.com/google/nftables/expr"
)

// userRules are the rules of all user-defined networks, by chain. They say for
// each network what guardRules, masqueradeRules and forwardRules say for the
// default one, and keep internal ones from everything outside.
func (m *Manager) userRules() (guard, masquerade, forward [][]expr.Any) {
	for _, n := range m.user.all() {
		br := n.def.Bridge
		loopback := netip.MustParsePrefix("127.0.0.0/8")
		guard = append(guard, cat(iif(expr.CmpOpEq, br), inPrefix(loopback, ipv4Saddr), drop()))
		masquerade = append(masquerade, cat(oif(expr.CmpOpEq, br), inPrefix(loopback, ipv4Saddr), []expr.Any{&expr.Masq{}}))
		type side struct {
			subnet       netip.Prefix
			gateway      netip.Addr
			source, dest uint32
		}
		sides := []side{{n.def.Subnet4, n.def.Gateway4, ipv4Saddr, ipv4Daddr}}
		if n.def.Subnet6.IsValid() {
			sides = append(sides, side{n.def.Subnet6, n.def.Gateway6, ipv6Saddr, ipv6Daddr})
			masquerade = append(masquerade, cat(oif(expr.CmpOpEq, br), inPrefix(netip.MustParsePrefix("::1/128"), ipv6Saddr), []expr.Any{&expr.Masq{}}))
		}
		for _, s := range sides {
			// Without masquerading replies carry the containers' addresses, and the
			// forward chain tells what is one.
			if n.def.Internal || !n.def.NoMasq {
				guard = append(guard, cat(iif(expr.CmpOpNeq, br), iif(expr.CmpOpNeq, "lo"), inPrefix(s.subnet, s.dest), notAddr(s.gateway, s.dest), drop()))
			}
			if !n.def.Internal && !n.def.NoMasq {
				masquerade = append(masquerade, cat(inPrefix(s.subnet, s.source), oif(expr.CmpOpNeq, br), []expr.Any{&expr.Masq{}}))
			}
			masquerade = append(masquerade, cat(oif(expr.CmpOpEq, br), inPrefix(s.subnet, s.source), wasPublished(expr.CmpOpNeq), []expr.Any{&expr.Masq{}}))
		}
		if n.def.Internal {
			forward = append(forward,
				cat(iif(expr.CmpOpEq, br), oif(expr.CmpOpNeq, br), drop()),
				cat(oif(expr.CmpOpEq, br), iif(expr.CmpOpNeq, br), drop()))
			continue
		}
		forward = append(forward, cat(oif(expr.CmpOpEq, br), iif(expr.CmpOpNeq, br),
			ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, expr.CmpOpEq),
			wasPublished(expr.CmpOpEq), drop()))
	}
	return guard, masquerade, forward
}
