package network

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Adopt makes records, kernel and living containers agree: what belongs to a
// container in live is served on, everything else of this engine is removed.
// Then the pool begins to fill. It is called once, right after Open. When the
// bridge or the table cannot be made it says so and keeps trying: containers
// that need no bridge can run meanwhile.
func (m *Manager) Adopt(ctx context.Context, live map[string]bool) error {
	defer m.chosen()
	if err := ctx.Err(); err != nil {
		return fault.Wrap("adopt network", "", err)
	}
	if err := m.makeDirs(); err != nil {
		return err
	}
	records, err := m.readRecords()
	if err != nil {
		return err
	}
	var kept, dead []record
	for _, r := range records {
		if live[r.Container] {
			kept = append(kept, r)
		} else {
			dead = append(dead, r)
		}
	}
	m.adoptRecords(kept)
	m.mu.Lock()
	m.adopted = true
	m.mu.Unlock()
	m.adoptNames()
	m.sweepNames()
	setup := m.ensureReady()
	for _, r := range dead {
		m.removeFiles(r.Container)
		m.flows.forget(bindingsOf(r, -1))
	}
	if setup == nil {
		m.sweepLinks()
		m.sweepUserLinks()
	}
	if m.watcher, err = startWatcher(m); err != nil {
		m.log.Warn("cannot watch the nftables table: it will not be put back when somebody flushes it", "error", err)
	}
	for _, p := range []*pool{m.bridged, m.bare} {
		p.refillNow()
	}
	for _, w := range m.Warnings() {
		m.log.Warn(w)
	}
	return setup
}

// adoptRecords takes over the endpoints of living containers.
func (m *Manager) adoptRecords(kept []record) {
	if len(kept) == 0 {
		return
	}
	wanted := map[uint64]*os.File{}
	for _, r := range kept {
		wanted[r.Inode] = nil
	}
	findNamespaces(wanted)
	for _, r := range kept {
		s := &sandbox{id: r.Sandbox, inode: r.Inode, ns: wanted[r.Inode], veth: r.Veth, index: r.Index,
			record: r, num: r.Number, extra: r.ExtraIPv6, ip4: r.IPv4, ip6: r.IPv6}
		a := &attachment{sandbox: s}
		a.bindings = m.adoptPorts(r)
		if s.bare() {
			a.endpoint = m.bareEndpoint(r)
		} else {
			m.adoptAddress(s)
			a.endpoint = m.bridgeEndpoint(r)
		}
		m.adoptJoined(a, r)
		if s.ns == nil {
			m.log.Warn("no process of the container was found: its network namespace cannot be opened by name", "container", r.Container)
		} else if err := m.linkSandbox(r.Container, s.ns); err != nil {
			m.log.Warn("cannot name the container's network namespace", "container", r.Container, "error", err)
		}
		m.mu.Lock()
		m.endpoints[r.Container] = a
		m.mu.Unlock()
	}
}

func (m *Manager) adoptAddress(s *sandbox) {
	if _, err := m.addrs.reserve(s.ip4); err != nil {
		m.log.Warn("adopted address", "address", s.ip4, "error", err)
	}
	if s.extra.IsValid() {
		_ = m.addrs.reserve6(s.extra)
	}
}

// adoptPorts holds the host's ports again. One that somebody took in between is
// published all the same: the map decides where packets go.
func (m *Manager) adoptPorts(r record) []*binding {
	list := bindingsOf(r, -1)
	for _, b := range list {
		socket, _, err := holdPort(b.portKey)
		if err != nil {
			m.log.Warn("another program on this host holds a published port", "port", b.portKey, "container", r.Container, "error", err)
			continue
		}
		b.socket = socket
	}
	m.ports.add(list)
	m.flows.forget(list) // those that began while no engine could
	return list
}

func bindingsOf(r record, socket int) []*binding {
	list := make([]*binding, 0, len(r.Ports))
	for _, p := range r.Ports {
		b := &binding{portKey: p.key(), owner: r.Container, socket: socket}
		to4, to6 := r.IPv4, r.IPv6
		if r.To4.IsValid() {
			to4, to6 = r.To4, r.To6
		}
		to := to4
		if p.HostIP.Is6() {
			to = to6
		}
		b.to = netip.AddrPortFrom(to, p.ContainerPort)
		list = append(list, b)
	}
	return list
}

// findNamespaces opens the network namespaces with the wanted inode numbers
// through the processes inside them: the one way to reach a namespace of which
// nobody has a descriptor.
func findNamespaces(wanted map[uint64]*os.File) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	missing := len(wanted)
	for _, p := range procs {
		if missing == 0 {
			return
		}
		if c := p.Name()[0]; c < '0' || c > '9' {
			continue
		}
		path := "/proc/" + p.Name() + "/ns/net"
		inode, ok := namespaceInode(path)
		if have, known := wanted[inode]; !ok || !known || have != nil {
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(fd), "netns")
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil || st.Ino != inode { // the process is another one by now
			f.Close()
			continue
		}
		wanted[inode] = f
		missing--
	}
}

// namespaceInode reads "net:[4026531840]".
func namespaceInode(path string) (uint64, bool) {
	var buf [64]byte
	n, err := unix.Readlink(path, buf[:])
	if err != nil {
		return 0, false
	}
	s, ok := strings.CutPrefix(string(buf[:n]), "net:[")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64)
	return inode, err == nil
}

// sweepNames removes names of namespaces that belong to no adopted container.
func (m *Manager) sweepNames() {
	entries, err := os.ReadDir(m.netnsDir())
	if err != nil {
		return
	}
	for _, e := range entries {
		m.mu.Lock()
		a, kept := m.endpoints[e.Name()]
		kept = kept && a.sandbox.ns != nil
		m.mu.Unlock()
		if !kept {
			_ = os.Remove(filepath.Join(m.netnsDir(), e.Name()))
		}
	}
}

// sweepLinks buries our interfaces on the bridge that belong to no adopted
// container: the ready ones of an engine that was killed, which the kernel is
// about to take back, and those of dead containers. Their addresses stay
// reserved until the interfaces are gone.
func (m *Manager) sweepLinks() {
	ports, err := wholeList(m.bridgePorts)
	if err != nil {
		m.log.Warn("cannot list interfaces", "error", err)
		return
	}
	kept := map[int]bool{}
	m.mu.Lock()
	for _, a := range m.endpoints {
		kept[a.sandbox.index] = true
		for _, j := range a.joined {
			kept[j.Index] = true
		}
	}
	m.mu.Unlock()
	for _, p := range ports {
		if strings.HasPrefix(p.name, "veth"+m.names.tag) && !kept[p.index] {
			m.reaper.bury(p.name, p.index, [2]netip.Addr{}, func() {})
		}
	}
}

// bridgePort is an interface on our bridge.
type bridgePort struct {
	index int
	name  string
}

// bridgePorts lists the interfaces on our bridge. By hand: decoding everything
// that the kernel tells about two hundred interfaces takes seven milliseconds of
// an engine's start.
func (m *Manager) bridgePorts() ([]bridgePort, error) {
	const skipStatistics = 1 << 3 // RTEXT_FILTER_SKIP_STATS
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, u32(uint32(m.bridgeIndex.Load()))))
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, u32(skipStatistics)))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil && len(msgs) == 0 {
		return nil, err
	}
	out := make([]bridgePort, 0, len(msgs))
	for _, msg := range msgs {
		if len(msg) < unix.SizeofIfInfomsg {
			continue
		}
		p := bridgePort{index: int(nl.DeserializeIfInfomsg(msg).Index)}
		master := uint32(0)
		for kind, value := range attributes(msg[unix.SizeofIfInfomsg:]) {
			switch {
			case kind == unix.IFLA_IFNAME:
				p.name = unix.ByteSliceToString(value)
			case kind == unix.IFLA_MASTER && len(value) == 4:
				master = binary.NativeEndian.Uint32(value)
			}
		}
		if master == uint32(m.bridgeIndex.Load()) {
			out = append(out, p)
		}
	}
	return out, err
}

// removeDirs removes the run directory's own folders when they are empty.
func (m *Manager) removeDirs() {
	_ = os.Remove(m.recordDir())
	_ = os.Remove(m.netnsDir())
}
