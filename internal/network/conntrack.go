package network

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// staleFlows matches tracked UDP flows to the given published ports, and those
// that were led to the containers behind them.
type staleFlows []*binding

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s staleFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	from, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	to, from = to.Unmap(), from.Unmap()
	for _, b := range s {
		if flow.Forward.DstPort == b.port && to.Is4() == b.addr.Is4() && (b.addr.IsUnspecified() || b.addr == to) {
			return true
		}
		if from == b.to.Addr() && flow.Reverse.SrcPort == b.to.Port() && to != from {
			return true
		}
	}
	return false
}

func (s staleFlows) drop() error {
	var families [2]bool
	for _, b := range s {
		families[b2i(b.addr.Is6())] = true
	}
	for i, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if !families[i] {
			continue
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, s); err != nil {
			return err
		}
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
