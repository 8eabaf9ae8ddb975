package network

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// JoinRequest is what a container wants of a network that it joins.
type JoinRequest struct {
	Network    string // id
	IPv4, IPv6 netip.Addr
	MAC        net.HardwareAddr
	GwPriority int      // the highest has the default route; then the name decides
	Names      []string // by which others on the network find the container
	// Links are names by which this container alone finds others, by their ids.
	Links map[string]string
}

// joined is what the run directory knows about a container on one network.
type joined struct {
	Network  string     `json:"network"`
	Endpoint string     `json:"endpoint"`
	Veth     string     `json:"veth"`
	Index    int        `json:"index"`
	Inside   string     `json:"inside"` // name of the interface in the container
	IPv4     netip.Addr `json:"ipv4"`
	IPv6     netip.Addr `json:"ipv6"`
	MAC      string     `json:"mac"`
	Priority int        `json:"priority,omitempty"`
	Names    []string   `json:"names,omitempty"`

	Links map[string]string `json:"links,omitempty"`
}

// joinedEnd is a container on a network.
type joinedEnd struct {
	joined
	container string
	net       *userNet
	endpoint  *Endpoint
}

// Join puts an attached container on a further network. The caller sees to it
// that no two calls are about the same container at once.
func (m *Manager) Join(ctx context.Context, id string, r JoinRequest) (*Endpoint, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap("join network", r.Network, err)
	}
	n, err := m.netByID(r.Network)
	if err != nil {
		return nil, err
	}
	a, err := m.attached(id)
	if err != nil {
		return nil, err
	}
	if len(r.MAC) != 0 && (len(r.MAC) != 6 || r.MAC[0]&1 != 0) {
		return nil, fault.New(fault.Invalid, "use MAC address", r.MAC.String(), "it must be a unicast address of 6 bytes")
	}
	if err := m.ensureReady(); err != nil {
		return nil, err
	}
	if err := m.ensureUserBridge(n); err != nil {
		return nil, err
	}
	if !n.def.Internal {
		if err := m.enableForwarding(); err != nil {
			return nil, err
		}
	}
	j := &joinedEnd{container: id, net: n}
	j.Network, j.Endpoint, j.Priority, j.Names, j.Links = r.Network, randomID(32), r.GwPriority, r.Names, r.Links
	if n == m.standard {
		j.IPv4, j.IPv6, err = m.assignStandard(r.IPv4.Unmap(), r.IPv6)
	} else {
		j.IPv4, j.IPv6, err = n.assign(r.IPv4.Unmap(), r.IPv6)
		if fault.Is(err, fault.Conflict) && m.reaper.hasten(r.IPv4.Unmap(), r.IPv6) {
			j.IPv4, j.IPv6, err = n.assign(r.IPv4.Unmap(), r.IPv6)
		}
	}
	if err != nil {
		return nil, err
	}
	defer n.settled()
	mac := r.MAC
	if len(mac) == 0 {
		mac = hardwareAddr(j.IPv4)
	}
	j.MAC, j.Inside = mac.String(), a.freeInterface(n.def.Inside)
	if err := m.plugJoined(a, j, mac); err != nil {
		m.unplugJoined(j)
		return nil, err
	}
	j.endpoint = m.joinedEndpoint(a, j)
	m.enter(a, j)
	if err := m.rewrite(id, a); err != nil {
		m.leave(a, j)
		m.unplugJoined(j)
		return nil, err
	}
	return j.endpoint, m.chooseRoute(id, a)
}

// attached returns the claim of a container that has its namespace.
func (m *Manager) attached(id string) (*attachment, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.endpoints[id]
	if !ok || a.endpoint == nil {
		return nil, fault.New(fault.Conflict, "join network", shortID(id), "the container has no network namespace of its own")
	}
	if a.sandbox.ns == nil {
		return nil, fault.New(fault.Unavailable, "join network", shortID(id), "its network namespace can't be reached any more").WithHint("restart the container")
	}
	return a, nil
}

// freeInterface returns the first name that begins so and is not in use.
func (a *attachment) freeInterface(begin string) string {
	begin = cmp.Or(begin, "eth")
	for i := 0; ; i++ {
		name := begin + strconv.Itoa(i)
		if name == insideName && !a.sandbox.bare() {
			continue
		}
		if !slices.ContainsFunc(a.joined, func(j *joinedEnd) bool { return j.Inside == name }) {
			return name
		}
	}
}

func (m *Manager) enter(a *attachment, j *joinedEnd) {
	m.mu.Lock()
	a.joined = append(slices.Clone(a.joined), j)
	m.mu.Unlock()
	j.net.mu.Lock()
	j.net.ends[j.container] = j
	j.net.mu.Unlock()
}

// settled ends what assign began: the container is among the ends, or will not be.
func (n *userNet) settled() {
	n.mu.Lock()
	n.joining--
	n.mu.Unlock()
}

func (m *Manager) leave(a *attachment, j *joinedEnd) {
	m.mu.Lock()
	a.joined = slices.DeleteFunc(slices.Clone(a.joined), func(o *joinedEnd) bool { return o == j })
	m.mu.Unlock()
	j.net.mu.Lock()
	delete(j.net.ends, j.container)
	j.net.mu.Unlock()
}

// plugJoined makes the pair of interfaces and gives the inner one its addresses.
func (m *Manager) plugJoined(a *attachment, j *joinedEnd, mac net.HardwareAddr) error {
	inside, err := routeInside(a.sandbox.ns)
	if err != nil {
		return fault.New(fault.Internal, "enter network namespace", shortID(j.container), "%w", err)
	}
	defer inside.close()
	n := j.net
	for {
		j.Veth = "veth" + m.names.tag + randomID(4)[:7]
		err := m.route.do(m.joinRequests(a, j, mac)...)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return fault.New(fault.Internal, "plug container into", n.def.Bridge, "%w", err)
		}
		break
	}
	if j.Index, err = m.route.indexOf(j.Veth); err != nil {
		return fault.New(fault.Internal, "create interface", j.Veth, "%w", err)
	}
	if n.def.Isolated {
		if link, err := netlink.LinkByIndex(j.Index); err != nil || netlink.LinkSetIsolated(link, true) != nil {
			return fault.New(fault.Unsupported, "isolate container on", n.def.Name, "the kernel does not isolate ports of a bridge")
		}
	}
	index, err := inside.indexOf(j.Inside)
	if err != nil {
		return fault.New(fault.Internal, "create interface", j.Inside, "%w", err)
	}
	reqs := []*nl.NetlinkRequest{
		linkRequest(unix.RTM_NEWLINK, 0, loopbackIndex, true),
		linkRequest(unix.RTM_NEWLINK, 0, index, true),
		addrRequest(index, netip.PrefixFrom(j.IPv4, n.def.Subnet4.Bits()), 0),
	}
	if j.IPv6.IsValid() {
		reqs = append(reqs, addrRequest(index, netip.PrefixFrom(j.IPv6, n.def.Subnet6.Bits()), unix.IFA_F_NODAD))
	}
	if err := inside.do(reqs...); err != nil {
		return fault.New(fault.Internal, "configure interface", j.Inside, "%w", err)
	}
	return nil
}

// joinRequests creates the pair and puts the host's end on the network's bridge.
func (m *Manager) joinRequests(a *attachment, j *joinedEnd, mac net.HardwareAddr) []*nl.NetlinkRequest {
	mtu := u32(uint32(m.userMTU(j.net)))
	create := linkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, 0, false)
	create.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(j.Veth)))
	create.AddData(nl.NewRtAttr(unix.IFLA_MTU, mtu))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(j.Inside))
	peer.AddRtAttr(unix.IFLA_MTU, mtu)
	peer.AddRtAttr(unix.IFLA_ADDRESS, mac)
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, u32(uint32(a.sandbox.ns.Fd())))
	create.AddData(info)
	quiet := linkRequest(unix.RTM_NEWLINK, 0, 0, false)
	quiet.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(j.Veth)))
	if ipv6Works() {
		quiet.AddData(noAutoAddress())
	}
	quiet.AddData(nl.NewRtAttr(unix.IFLA_MASTER, u32(uint32(j.net.index))))
	return []*nl.NetlinkRequest{create, quiet, portRequest(j.Veth, j.net.def.Isolated)}
}

// unplugJoined takes a container's interface away now.
func (m *Manager) unplugJoined(j *joinedEnd) {
	if j.Index != 0 {
		attrs := netlink.NewLinkAttrs()
		attrs.Index = j.Index
		if name, err := m.route.nameOf(j.Index); err == nil && name == j.Veth {
			_ = netlink.LinkDel(&netlink.Veth{LinkAttrs: attrs})
		}
	} else if link, err := netlink.LinkByName(j.Veth); j.Veth != "" && err == nil {
		_ = netlink.LinkDel(link)
	}
	j.net.free(j.IPv4, j.IPv6)
}

// routeInside opens a route socket in a namespace.
func routeInside(ns *os.File) (conn *routeConn, err error) {
	inside := insideNamespace(ns, func() error {
		conn, err = dialRoute()
		return err
	})
	return conn, inside
}

// insideNamespace runs do in a thread that visits a network namespace; one that
// can't come back ends with its goroutine.
func insideNamespace(ns *os.File, do func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		home, herr := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err = herr; err != nil {
			runtime.UnlockOSThread()
			return
		}
		defer unix.Close(home)
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			return
		}
		err = do()
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return err
}

// rewrite replaces a container's record in the run directory.
func (m *Manager) rewrite(id string, a *attachment) error {
	r := a.sandbox.record
	r.Joined = nil
	for _, j := range a.joined {
		r.Joined = append(r.Joined, j.joined)
	}
	r.Ports, r.To4, r.To6, r.Upstream = a.ports, a.to4, a.to6, a.upstream
	data, err := json.Marshal(r)
	if err != nil {
		return fault.New(fault.Internal, "record endpoint of", id, "%w", err)
	}
	a.sandbox.record = r
	if err := writeFileAtomic(m.recordPath(id), data); err != nil || !a.named {
		return err
	}
	return m.nameService.Update(m.nameEntry(id, a))
}

func (m *Manager) joinedEndpoint(a *attachment, j *joinedEnd) *Endpoint {
	mac, _ := net.ParseMAC(j.MAC)
	d := j.net.def
	e := &Endpoint{
		ContainerID: j.container, SandboxPath: m.sandboxPath(j.container), SandboxID: a.sandbox.id,
		Name: d.Name, NetworkID: d.ID, EndpointID: j.Endpoint, MAC: mac, IPv4: netip.PrefixFrom(j.IPv4, d.Subnet4.Bits()),
	}
	if !d.Internal {
		e.Gateway4 = d.Gateway4
	}
	if j.IPv6.IsValid() {
		e.IPv6 = netip.PrefixFrom(j.IPv6, d.Subnet6.Bits())
		if !d.Internal {
			e.Gateway6 = d.Gateway6
		}
	}
	return e
}

// Joined returns the endpoints of a container on the networks that it has joined.
func (m *Manager) Joined(id string) []*Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.endpoints[id]
	if a == nil {
		return nil
	}
	out := make([]*Endpoint, 0, len(a.joined))
	for _, j := range a.joined {
		out = append(out, j.endpoint)
	}
	return out
}

// Leave takes a container off a network. One that is not on it is no error.
func (m *Manager) Leave(ctx context.Context, id, netID string) error {
	a, err := m.attached(id)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(a.joined, func(j *joinedEnd) bool { return j.Network == netID })
	if at < 0 && netID == m.standard.def.ID && !a.sandbox.bare() {
		return m.leaveStandard(id, a)
	}
	if at < 0 {
		return nil
	}
	j := a.joined[at]
	if a.to4 == j.IPv4 {
		m.withdraw(id, a)
	}
	m.leave(a, j)
	// The record goes first: an interface that none names is swept.
	if err := m.rewrite(id, a); err != nil {
		return err
	}
	m.unplugJoined(j)
	return m.chooseRoute(id, a)
}

// SetNames changes the names by which others on a network find a container.
func (m *Manager) SetNames(id, netID string, list []string) error {
	a, err := m.attached(id)
	if err != nil {
		return err
	}
	for _, j := range a.joined {
		if j.Network == netID {
			j.net.mu.Lock()
			j.Names = list
			j.net.mu.Unlock()
		}
	}
	return m.rewrite(id, a)
}

// adoptJoined takes over the networks of a living container.
func (m *Manager) adoptJoined(a *attachment, r record) {
	a.ports, a.to4, a.to6, a.upstream = r.Ports, r.To4, r.To6, r.Upstream
	if len(a.ports) > 0 && !a.to4.IsValid() {
		a.to4, a.to6 = r.IPv4, r.IPv6
	}
	for _, old := range r.Joined {
		n, err := m.netByID(old.Network)
		if err != nil {
			m.log.Warn("a container is on a network that is gone", "container", r.Container, "network", old.Network)
			continue
		}
		j := &joinedEnd{joined: old, container: r.Container, net: n}
		n.adopt(j)
		j.endpoint = m.joinedEndpoint(a, j)
		a.joined = append(a.joined, j)
		if n == m.standard {
			continue // its bridge is made when everything that leads there is known
		}
		if err := m.ensureUserBridge(n); err != nil {
			m.log.Warn("cannot make the bridge of a network in use", "network", n.def.Name, "error", err)
		}
	}
}

// buryJoined gives up a container's interfaces with its namespace; the addresses
// are free when the kernel has taken them back.
func (m *Manager) buryJoined(id string, a *attachment) {
	m.stopNames(id, a)
	for _, j := range a.joined {
		j.net.mu.Lock()
		if j.net.ends[id] == j {
			delete(j.net.ends, id)
		}
		j.net.mu.Unlock()
		m.reaper.bury(j.Veth, j.Index, [2]netip.Addr{j.IPv4, j.IPv6}, func() { j.net.free(j.IPv4, j.IPv6) })
	}
}
