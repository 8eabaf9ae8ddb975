package network

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// firewall is our nftables table. The published ports known to the port table
// are the truth; the kernel's copy is changed by small transactions and, when
// one is refused, made anew as a whole in one transaction.
type firewall struct {
	m     *Manager
	table *nftables.Table
	sets  [mapCount]*nftables.Set

	mu        sync.Mutex // guards the rest, and the order of transactions
	conn      *nftables.Conn
	portID    uint32 // netlink address of conn, to tell our own changes from others'
	built     bool
	loopback6 bool // as last written
}

// firewallSocketBuffer holds a whole table in one transaction: about 60 bytes a port.
const firewallSocketBuffer = 8 << 20

// elementsPerMessage keeps a list of elements below the 64 KiB of an attribute.
const elementsPerMessage = 256

func newFirewall(m *Manager) (*firewall, error) {
	f := &firewall{m: m, table: &nftables.Table{Family: nftables.TableFamilyINet, Name: m.names.table}}
	f.sets = newMaps(f.table)
	keep := func(c *netlink.Conn) (err error) {
		if f.portID, err = netlinkAddress(c); err != nil {
			return err
		}
		return c.SetWriteBuffer(firewallSocketBuffer)
	}
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(keep))
	if err != nil {
		return nil, fault.New(fault.Internal, "open netfilter socket", "", "%w", err)
	}
	f.conn = conn
	return f, nil
}

// netlinkAddress is the number under which the kernel knows a socket; it is the
// sender of the announcements of what the socket changes.
func netlinkAddress(c *netlink.Conn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var sa unix.Sockaddr
	if ctl := raw.Control(func(fd uintptr) { sa, err = unix.Getsockname(int(fd)) }); ctl != nil {
		return 0, ctl
	}
	if nl, ok := sa.(*unix.SockaddrNetlink); ok {
		return nl.Pid, err
	}
	return 0, err
}

func (f *firewall) close() { _ = f.conn.CloseLasting() }

// change adds and removes elements in one transaction. All of them must already
// be entered in, or removed from, the port table.
func (f *firewall) change(add, del []element) error {
	if len(add)+len(del) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.built && !f.loopback6Changed(add) {
		err := f.send(add, del)
		if err == nil {
			return nil
		}
		if errors.Is(err, unix.EPERM) {
			return firewallError("publish ports in", f.table.Name, err)
		}
	}
	return f.rebuildLocked()
}

// loopback6Changed tells whether the table's rule about ::1 no longer fits the
// host; asked only where it matters, since it reads a file.
func (f *firewall) loopback6Changed(add []element) bool {
	for _, e := range add {
		if e.set == mapAny6 {
			return f.loopback6 != f.m.loopback6Works()
		}
	}
	return false
}

func (f *firewall) send(add, del []element) error {
	if err := f.queue(del, f.conn.SetDeleteElements); err != nil {
		return err
	}
	if err := f.queue(add, f.conn.SetAddElements); err != nil {
		return err
	}
	return f.conn.Flush()
}

func (f *firewall) queue(elems []element, to func(*nftables.Set, []nftables.SetElement) error) error {
	var bySet [mapCount][]nftables.SetElement
	for _, e := range elems {
		bySet[e.set] = append(bySet[e.set], nftables.SetElement{Key: e.key, Val: e.val})
	}
	for i, list := range bySet {
		for len(list) > 0 {
			n := min(len(list), elementsPerMessage)
			if err := to(f.sets[i], list[:n]); err != nil {
				return err
			}
			list = list[n:]
		}
	}
	return nil
}

// rebuild replaces the table by what it has to be, atomically.
func (f *firewall) rebuild() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rebuildLocked()
}

func (f *firewall) rebuildLocked() error {
	loopback6 := f.m.loopback6Works()
	f.conn.AddTable(f.table) // so that deleting it cannot fail
	f.conn.DelTable(f.table)
	f.conn.AddTable(f.table)
	for _, set := range f.sets {
		if err := f.conn.AddSet(set, nil); err != nil {
			return firewallError("describe map", set.Name, err)
		}
	}
	if err := f.queue(f.m.ports.elements(), f.conn.SetAddElements); err != nil {
		return firewallError("describe ports of", f.table.Name, err)
	}
	for _, c := range f.m.ruleset(f.sets, loopback6) {
		nc := f.conn.AddChain(&nftables.Chain{Name: c.name, Table: f.table, Type: c.kind, Hooknum: c.hook, Priority: c.prio})
		for _, exprs := range c.rules {
			f.conn.AddRule(&nftables.Rule{Table: f.table, Chain: nc, Exprs: exprs})
		}
	}
	if err := f.conn.Flush(); err != nil {
		f.built = false
		return firewallError("write nftables table", f.table.Name, err)
	}
	f.built, f.loopback6 = true, loopback6
	return nil
}

// remove deletes the table; its absence is success.
func (f *firewall) remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.built = false
	f.conn.AddTable(f.table)
	f.conn.DelTable(f.table)
	if err := f.conn.Flush(); err != nil {
		return firewallError("delete nftables table", f.table.Name, err)
	}
	return nil
}

func firewallError(op, subject string, err error) error {
	e := fault.New(fault.Internal, op, subject, "%w", err)
	switch {
	case errors.Is(err, unix.EPERM):
		e.Kind = fault.Forbidden
		return e.WithHint("the engine needs CAP_NET_ADMIN")
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPROTONOSUPPORT):
		return e.WithHint("the kernel needs nftables with NAT in the inet family (modules nf_tables, nft_nat, nft_masq, nft_fib_inet, nft_ct)")
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENFILE):
		e.Kind = fault.Exhausted
	}
	return e
}

// loopback6Works tells whether the host reaches published ports through ::1:
// not where bridged packets pass ip6tables, see the package comment.
func (m *Manager) loopback6Works() bool {
	if !m.ipv6 {
		return false
	}
	v, err := readSysctl("bridge/bridge-nf-call-ip6tables")
	return err != nil || v == "0"
}

// elementCount is how many published ports the kernel holds; for tests and
// diagnosis.
func (f *firewall) elementCount() (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	total := 0
	for _, s := range f.sets {
		elems, err := f.conn.GetSetElements(s)
		if err != nil {
			return 0, fmt.Errorf("list map %s: %w", s.Name, err)
		}
		total += len(elems)
	}
	return total, nil
}
