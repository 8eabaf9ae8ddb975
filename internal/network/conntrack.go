package network

import (
	"errors"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flows drops what connection tracking remembers of UDP ports whose publication
// changed: a client that keeps sending would be led to where the port went
// before. The kernel offers no way to do so but to walk its whole table (10 ms
// for each family on a machine with much memory, however empty the table is), so
// it is done in the background, many ports at once.
type flows struct {
	m *Manager

	mu      sync.Mutex // guards the rest; leaf lock
	pending []*binding
	running bool
	idle    sync.Cond
}

func newFlows(m *Manager) *flows {
	f := &flows{m: m}
	f.idle.L = &f.mu
	return f
}

// forget has stale flows of the given ports dropped soon.
func (f *flows) forget(list []*binding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range list {
		if b.proto == unix.IPPROTO_UDP {
			f.pending = append(f.pending, b)
		}
	}
	if len(f.pending) > 0 && !f.running {
		f.running = true
		go f.run()
	}
}

func (f *flows) run() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.pending) > 0 {
		list := f.pending
		f.pending = nil
		f.mu.Unlock()
		if err := f.m.staleFlows(list).drop(); err != nil {
			f.m.log.Warn("cannot clear connection tracking of UDP ports", "error", err)
		}
		f.mu.Lock()
	}
	f.running = false
	f.idle.Broadcast()
}

// wait blocks until nothing is pending.
func (f *flows) wait() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.running {
		f.idle.Wait()
	}
}

// portFlows matches tracked UDP flows that lead elsewhere than they should.
type portFlows struct {
	now map[portKey]netip.AddrPort // where ports lead; ports led nowhere are absent
	old []*binding
}

func (m *Manager) staleFlows(list []*binding) *portFlows {
	p := &portFlows{now: map[portKey]netip.AddrPort{}, old: list}
	m.ports.mu.Lock()
	defer m.ports.mu.Unlock()
	for _, b := range list {
		if cur, ok := m.ports.byKey[b.portKey]; ok {
			p.now[b.portKey] = cur.to
		}
	}
	return p
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (p *portFlows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	sent, _ := netip.AddrFromSlice(flow.Forward.DstIP)
	led, _ := netip.AddrFromSlice(flow.Reverse.SrcIP)
	sent, led = sent.Unmap(), led.Unmap()
	for _, b := range p.old {
		here := flow.Forward.DstPort == b.port && sent.Is4() == b.addr.Is4() && (b.addr.IsUnspecified() || b.addr == sent)
		if !here {
			continue
		}
		to, published := p.now[b.portKey]
		if to != netip.AddrPortFrom(led, flow.Reverse.SrcPort) && (published || led == b.to.Addr()) {
			return true
		}
	}
	return false
}

func (p *portFlows) drop() error {
	var v4, v6 bool
	for _, b := range p.old {
		v4, v6 = v4 || b.addr.Is4(), v6 || b.addr.Is6()
	}
	var errs [2]error
	if v4 {
		_, errs[0] = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, p)
	}
	if v6 {
		_, errs[1] = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET6, p)
	}
	return errors.Join(errs[:]...)
}
