package network

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The maps of published ports: by address family, and whether the port is
// published on all addresses of the host or on one.
const (
	mapAny4 = iota
	mapAddr4
	mapAny6
	mapAddr6
	mapCount
)

var mapNames = [mapCount]string{"ports4", "ports4_addr", "ports6", "ports6_addr"}

// Registers of the nftables machine: 4 bytes each, counted from here.
const reg0 = unix.NFT_REG32_00

const (
	ipv4Daddr, ipv4Saddr = 16, 12 // offsets in the header
	ipv6Daddr, ipv6Saddr = 24, 8
	conntrackDNAT        = 1 << 5 // IPS_DST_NAT
)

// element is one published port in one map.
type element struct {
	set      int
	key, val []byte
}

// portElement encodes {address?, protocol, port} → {address, port}, each field
// padded to a register.
func portElement(host netip.Addr, proto uint8, port uint16, to netip.AddrPort) element {
	var e element
	if !host.IsUnspecified() {
		e.key = append(e.key, host.AsSlice()...)
		e.set++
	}
	if host.Is6() {
		e.set += mapAny6
	}
	e.key = append(e.key, proto, 0, 0, 0, byte(port>>8), byte(port), 0, 0)
	e.val = append(to.Addr().AsSlice(), byte(to.Port()>>8), byte(to.Port()), 0, 0)
	return e
}

func newMaps(table *nftables.Table) (sets [mapCount]*nftables.Set) {
	for i := range sets {
		addr := nftables.TypeIPAddr
		if i >= mapAny6 {
			addr = nftables.TypeIP6Addr
		}
		key := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
		if i == mapAddr4 || i == mapAddr6 {
			key = append([]nftables.SetDatatype{addr}, key...)
		}
		sets[i] = &nftables.Set{
			Table: table, Name: mapNames[i], ID: uint32(i + 1), IsMap: true, Concatenation: true,
			KeyType:  nftables.MustConcatSetType(key...),
			DataType: nftables.MustConcatSetType(addr, nftables.TypeInetService),
		}
	}
	return sets
}

// chain is one chain of the table with its rules.
type chain struct {
	name  string
	kind  nftables.ChainType
	hook  *nftables.ChainHook
	prio  *nftables.ChainPriority
	rules [][]expr.Any
}

// ruleset describes our whole table but for the maps' elements. loopback6 tells
// whether ports published on all IPv6 addresses include ::1.
func (m *Manager) ruleset(sets [mapCount]*nftables.Set, loopback6 bool) []chain {
	guard, masquerade, forward := m.userRules()
	toPublish := [][]expr.Any{cat(daddrIsLocal(), verdict(expr.VerdictJump, "publish"))}
	return []chain{
		{name: "publish", rules: publishRules(sets, loopback6)},
		{name: "guard", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting,
			prio: nftables.ChainPriorityRaw, rules: append(m.guardRules(), guard...)},
		{name: "prerouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting,
			prio: nftables.ChainPriorityNATDest, rules: toPublish},
		{name: "output", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookOutput,
			prio: nftables.ChainPriorityNATDest, rules: toPublish},
		{name: "postrouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting,
			prio: nftables.ChainPriorityNATSource, rules: append(m.masqueradeRules(), masquerade...)},
		{name: "forward", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward,
			prio: nftables.ChainPriorityFilter, rules: append(m.forwardRules(), forward...)},
	}
}

// guardRules run before connection tracking. Packets there still carry the
// addresses they had on the wire: published ports and replies carry the host's.
func (m *Manager) guardRules() [][]expr.Any {
	br := m.names.bridge
	rules := [][]expr.Any{
		cat(iif(expr.CmpOpNeq, "lo"), inPrefix(netip.MustParsePrefix("127.0.0.0/8"), ipv4Daddr), drop()),
		cat(iif(expr.CmpOpEq, br), inPrefix(netip.MustParsePrefix("127.0.0.0/8"), ipv4Saddr), drop()),
	}
	if m.cfg.NoMasq {
		return rules // replies carry the containers' addresses: forwardRules tell what is one
	}
	rules = append(rules, cat(iif(expr.CmpOpNeq, br), iif(expr.CmpOpNeq, "lo"), inPrefix(m.subnet4, ipv4Daddr),
		notAddr(m.addrs.gateway4, ipv4Daddr), drop()))
	if m.subnet6.IsValid() {
		rules = append(rules, cat(iif(expr.CmpOpNeq, br), iif(expr.CmpOpNeq, "lo"), inPrefix(m.subnet6, ipv6Daddr),
			notAddr(m.addrs.gateway6(), ipv6Daddr), drop()))
	}
	return rules
}

// publishRules send a new connection to the container that published the port;
// a port on one address wins over one on all.
func publishRules(sets [mapCount]*nftables.Set, loopback6 bool) [][]expr.Any {
	rules := [][]expr.Any{
		cat(family(unix.NFPROTO_IPV4), loadAddr(ipv4Daddr, 4, reg0), loadPort(reg0+1), mapAndNAT(sets[mapAddr4], unix.NFPROTO_IPV4)),
		cat(family(unix.NFPROTO_IPV4), loadPort(reg0), mapAndNAT(sets[mapAny4], unix.NFPROTO_IPV4)),
	}
	if !loopback6 {
		rules = append(rules, cat(inPrefix(netip.MustParsePrefix("::1/128"), ipv6Daddr), verdict(expr.VerdictReturn, "")))
	}
	return append(rules,
		cat(family(unix.NFPROTO_IPV6), loadAddr(ipv6Daddr, 16, reg0), loadPort(reg0+4), mapAndNAT(sets[mapAddr6], unix.NFPROTO_IPV6)),
		cat(family(unix.NFPROTO_IPV6), loadPort(reg0), mapAndNAT(sets[mapAny6], unix.NFPROTO_IPV6)))
}

// masqueradeRules: containers go out under the host's address; what the host
// sends from a loopback address and what a container sends to a published port
// of its own network must come back through the host as well.
func (m *Manager) masqueradeRules() [][]expr.Any {
	br := m.names.bridge
	masq := []expr.Any{&expr.Masq{}}
	rules := [][]expr.Any{
		cat(oif(expr.CmpOpEq, br), inPrefix(netip.MustParsePrefix("127.0.0.0/8"), ipv4Saddr), masq),
		cat(oif(expr.CmpOpEq, br), inPrefix(m.subnet4, ipv4Saddr), wasPublished(expr.CmpOpNeq), masq),
	}
	if !m.cfg.NoMasq {
		rules = append(rules, cat(inPrefix(m.subnet4, ipv4Saddr), oif(expr.CmpOpNeq, br), masq))
	}
	if !m.subnet6.IsValid() {
		return rules
	}
	rules = append(rules,
		cat(oif(expr.CmpOpEq, br), inPrefix(netip.MustParsePrefix("::1/128"), ipv6Saddr), masq),
		cat(oif(expr.CmpOpEq, br), inPrefix(m.subnet6, ipv6Saddr), wasPublished(expr.CmpOpNeq), masq))
	if !m.cfg.NoMasq {
		rules = append(rules, cat(inPrefix(m.subnet6, ipv6Saddr), oif(expr.CmpOpNeq, br), masq))
	}
	return rules
}

// forwardRules are the second line behind guardRules: into the bridge go only
// published ports and what belongs to a known connection.
func (m *Manager) forwardRules() [][]expr.Any {
	br := m.names.bridge
	return [][]expr.Any{cat(oif(expr.CmpOpEq, br), iif(expr.CmpOpNeq, br),
		ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED, expr.CmpOpEq),
		wasPublished(expr.CmpOpEq), drop())}
}

func cat(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func verdict(kind expr.VerdictKind, to string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: to}}
}

func drop() []expr.Any { return verdict(expr.VerdictDrop, "") }

func iif(op expr.CmpOp, name string) []expr.Any { return ifName(expr.MetaKeyIIFNAME, op, name) }
func oif(op expr.CmpOp, name string) []expr.Any { return ifName(expr.MetaKeyOIFNAME, op, name) }

func ifName(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: unix.NFT_REG_1}, &expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: padded}}
}

func family(proto byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg0}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{proto}}}
}

func familyOfPrefix(a netip.Addr) []expr.Any {
	if a.Is4() {
		return family(unix.NFPROTO_IPV4)
	}
	return family(unix.NFPROTO_IPV6)
}

func loadAddr(offset, size, reg uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}}
}

// inPrefix matches packets whose address at offset is in p.
func inPrefix(p netip.Prefix, offset uint32) []expr.Any {
	size := p.Addr().BitLen() / 8
	mask := make([]byte, size)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return cat(familyOfPrefix(p.Addr()), loadAddr(offset, uint32(size), unix.NFT_REG_1), []expr.Any{
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: uint32(size), Mask: mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: p.Masked().Addr().AsSlice()},
	})
}

func notAddr(a netip.Addr, offset uint32) []expr.Any {
	return cat(loadAddr(offset, uint32(a.BitLen()/8), unix.NFT_REG_1),
		[]expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: a.AsSlice()}})
}

// loadPort puts {protocol, destination port} into reg and reg+1.
func loadPort(reg uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Payload{DestRegister: reg + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// mapAndNAT looks the registers up and redirects to what the map says; a port
// that is not in the map ends the rule, not the chain.
func mapAndNAT(set *nftables.Set, proto uint32) []expr.Any {
	portReg := uint32(reg0 + 1)
	if proto == unix.NFPROTO_IPV6 {
		portReg = reg0 + 4
	}
	return []expr.Any{
		&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: proto, RegAddrMin: reg0, RegProtoMin: portReg},
	}
}

// daddrIsLocal matches packets for one of the host's own addresses.
func daddrIsLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
	}
}

// wasPublished compares the "destination was translated" bit with zero: NEQ
// matches connections through a published port, EQ all others.
func wasPublished(op expr.CmpOp) []expr.Any {
	return ctBits(expr.CtKeySTATUS, conntrackDNAT, op)
}

func ctBits(key expr.CtKey, bits uint32, op expr.CmpOp) []expr.Any {
	native := binary.NativeEndian.AppendUint32(nil, bits)
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: native, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: reg0, Data: make([]byte, 4)},
	}
}
