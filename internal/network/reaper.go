package network

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// reaper waits for the interfaces of given-up sandboxes to go away and then
// frees their addresses. The kernel destroys namespaces in batches once nobody
// holds them, which costs a fraction of deleting each interface by request; only
// an interface that stays (somebody looks at the namespace with a shell) is
// deleted by us.
type reaper struct {
	m *Manager

	mu      sync.Mutex // guards the rest; leaf lock
	dying   map[int]*corpse
	running bool
	stopped bool
	idle    sync.Cond // signalled when dying became empty or run ended
}

type corpse struct {
	veth  string
	index int
	addrs [2]netip.Addr // that it holds
	free  func()
	since time.Time
	asked bool // deleted by request
}

const (
	reapInterval = 50 * time.Millisecond
	reapGrace    = time.Second
)

func newReaper(m *Manager) *reaper {
	r := &reaper{m: m, dying: map[int]*corpse{}}
	r.idle.L = &r.mu
	return r
}

// discard gives a sandbox up: its namespace dies when the last process in it
// does, and its address is free after that.
func (r *reaper) discard(s *sandbox) {
	r.m.unprepare(s)
	s.closeNS()
	if s.bare() {
		return
	}
	r.bury(s.veth, s.index, [2]netip.Addr{s.ip4, s.ip6}, func() { r.m.addrs.free(s.num, s.extra) })
}

func (r *reaper) bury(veth string, index int, addrs [2]netip.Addr, free func()) {
	if index == 0 { // never came to be
		free()
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dying[index] = &corpse{veth: veth, index: index, addrs: addrs, free: free, since: time.Now()}
	if !r.running && !r.stopped {
		r.running = true
		go r.run()
	}
}

// run looks after the dying until there are none.
func (r *reaper) run() {
	for {
		time.Sleep(reapInterval)
		r.mu.Lock()
		if r.stopped {
			r.running = false
			r.idle.Broadcast()
			r.mu.Unlock()
			return
		}
		list := make([]*corpse, 0, len(r.dying))
		for _, c := range r.dying {
			list = append(list, c)
		}
		r.mu.Unlock()
		for _, c := range list {
			r.look(c)
		}
		r.mu.Lock()
		if len(r.dying) == 0 {
			r.running = false
			r.idle.Broadcast()
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
	}
}

func (r *reaper) look(c *corpse) {
	name, err := r.m.route.nameOf(c.index)
	if err == nil && name == c.veth {
		if !c.asked && time.Since(c.since) > reapGrace {
			c.asked = true
			r.deleteLink(c)
		}
		return
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		r.m.log.Warn("cannot look up interface", "interface", c.veth, "error", err)
		return
	}
	r.buried(c)
}

// buried frees the addresses of an interface that has gone, once.
func (r *reaper) buried(c *corpse) {
	r.mu.Lock()
	dying := r.dying[c.index] == c
	if dying {
		delete(r.dying, c.index)
	}
	r.mu.Unlock()
	if dying {
		c.free()
	}
}

// hasten frees addresses that somebody wants at once, most often the container that
// has had them before and is being started again: interfaces that hold them and are
// dying are deleted. It tells whether there were any.
func (r *reaper) hasten(wanted ...netip.Addr) bool {
	r.mu.Lock()
	var held []*corpse
	for _, c := range r.dying {
		if slices.ContainsFunc(wanted, func(a netip.Addr) bool { return a.IsValid() && slices.Contains(c.addrs[:], a) }) {
			held = append(held, c)
		}
	}
	r.mu.Unlock()
	for _, c := range held {
		if name, err := r.m.route.nameOf(c.index); err == nil && name == c.veth {
			r.deleteLink(c)
		}
		r.look(c)
	}
	return len(held) > 0
}

func (r *reaper) deleteLink(c *corpse) {
	attrs := netlink.NewLinkAttrs()
	attrs.Index = c.index
	if err := netlink.LinkDel(&netlink.Veth{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.ENODEV) {
		r.m.log.Warn("cannot delete interface", "interface", c.veth, "error", err)
	}
}

// stop ends the work, done or not, and returns when it has ended.
func (r *reaper) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	for r.running {
		r.idle.Wait()
	}
}

// wait blocks until nothing is dying, at most for limit; it hurries: whatever is
// still there after a short while is deleted by request.
func (r *reaper) wait(limit time.Duration) bool {
	timeout := time.AfterFunc(limit, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.idle.Broadcast()
	})
	defer timeout.Stop()
	deadline := time.Now().Add(limit)
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.dying) > 0 && time.Now().Before(deadline) {
		r.idle.Wait()
	}
	return len(r.dying) == 0
}
