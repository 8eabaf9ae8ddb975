package network

import (
	"context"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"berth/internal/fault"
)

// Request is what a container wants of the default bridge. Zero fields leave the
// choice to the Manager and are served from the pool.
type Request struct {
	Ports []Port
	IPv4  netip.Addr
	IPv6  netip.Addr
	MAC   net.HardwareAddr

	GwPriority int // see JoinRequest; without other networks it says nothing
}

// Endpoint is a container's place in a network. It must not be changed.
type Endpoint struct {
	ContainerID string
	// SandboxPath opens the network namespace, for runtimes and other programs,
	// while the engine that returned it runs.
	SandboxPath string
	SandboxID   string // 64 hex digits
	Name        string // "bridge" or "none"
	NetworkID   string
	EndpointID  string // 64 hex digits

	// Only on the bridge:
	IPv4, IPv6         netip.Prefix // address with the subnet's length; IPv6 may be zero
	Gateway4, Gateway6 netip.Addr
	MAC                net.HardwareAddr
}

// Attach gives a container an endpoint on the default bridge. Without ports it
// costs no more than writing the record; with ports, one nftables transaction.
func (m *Manager) Attach(ctx context.Context, containerID string, r Request) (*Endpoint, error) {
	want := identity{ip4: r.IPv4, ip6: r.IPv6, mac: r.MAC}
	if len(r.MAC) != 0 && (len(r.MAC) != 6 || r.MAC[0]&1 != 0) {
		return nil, fault.New(fault.Invalid, "use MAC address", r.MAC.String(), "it must be a unicast address of 6 bytes")
	}
	a, err := m.claim(ctx, containerID)
	if err != nil {
		return nil, err
	}
	if err := m.attach(a, containerID, r, want); err != nil {
		m.unclaim(containerID, a)
		return nil, err
	}
	return a.endpoint, nil
}

// attach fills a claim; on failure unclaim undoes what it did.
func (m *Manager) attach(a *attachment, id string, r Request, want identity) error {
	// The bridge and the table must stand before ports are promised.
	if err := m.ensureReady(); err != nil {
		return err
	}
	if err := m.enableForwarding(); err != nil {
		return err
	}
	s, err := m.obtain(want)
	if err != nil {
		return err
	}
	a.sandbox, s.record.Priority = s, r.GwPriority
	published, bindings, err := m.ports.reserve(id, r.Ports, s.ip4, s.ip6)
	if err != nil {
		return err
	}
	a.bindings, a.ports = bindings, published
	if len(bindings) > 0 {
		a.to4, a.to6 = s.ip4, s.ip6
	}
	if err := m.commit(id, s, published); err != nil {
		return err
	}
	if err := m.firewall.change(elementsOf(bindings), nil); err != nil {
		return err
	}
	m.flows.forget(bindings)
	return m.finish(id, a, m.bridgeEndpoint(s.record))
}

// NewSandbox gives a container of network mode none a namespace with a loopback
// only.
func (m *Manager) NewSandbox(ctx context.Context, containerID string) (*Endpoint, error) {
	a, err := m.claim(ctx, containerID)
	if err != nil {
		return nil, err
	}
	err = func() (err error) {
		if a.sandbox = m.bare.take(); a.sandbox == nil {
			if a.sandbox, err = m.buildBare(); err != nil {
				return err
			}
		}
		if err := m.commit(containerID, a.sandbox, nil); err != nil {
			return err
		}
		return m.finish(containerID, a, m.bareEndpoint(a.sandbox.record))
	}()
	if err != nil {
		m.unclaim(containerID, a)
		return nil, err
	}
	return a.endpoint, nil
}

// obtain returns a bridged sandbox: a ready one, or one made to measure.
func (m *Manager) obtain(want identity) (*sandbox, error) {
	if want.any() {
		if s := m.bridged.take(); s != nil {
			return s, nil
		}
		s, err := m.buildBridged(want)
		if fault.Is(err, fault.Exhausted) {
			// The last free addresses may be going to the pool just now.
			if s := m.bridged.takeSoon(); s != nil {
				return s, nil
			}
		}
		return s, err
	}
	if len(want.mac) == 0 {
		// A ready namespace may happen to have the wanted addresses.
		if s := m.bridged.takeMatching(func(s *sandbox) bool {
			return (!want.ip4.IsValid() || s.ip4 == want.ip4.Unmap()) && (!want.ip6.IsValid() || s.ip6 == want.ip6)
		}); s != nil {
			return s, nil
		}
	}
	s, err := m.buildBridged(want)
	if fault.Is(err, fault.Conflict) && m.reaper.hasten(want.ip4.Unmap(), want.ip6) {
		s, err = m.buildBridged(want)
	}
	if err == nil || !fault.Is(err, fault.Conflict) {
		return s, err
	}
	// It may be the pool that holds the address.
	held := m.bridged.takeMatching(func(s *sandbox) bool { return s.ip4 == want.ip4.Unmap() || s.ip6 == want.ip6 })
	if held == nil {
		return nil, err
	}
	m.evict(held)
	return m.buildBridged(want)
}

// evict destroys a sandbox now, so that its address can be used again at once.
func (m *Manager) evict(s *sandbox) {
	attrs := netlink.NewLinkAttrs()
	attrs.Index = s.index
	_ = netlink.LinkDel(&netlink.Veth{LinkAttrs: attrs})
	m.addrs.free(s.num, s.extra)
	m.unprepare(s)
	s.closeNS()
}

// claim enters a container that is about to get a sandbox.
func (m *Manager) claim(ctx context.Context, id string) (*attachment, error) {
	if err := ctx.Err(); err != nil {
		return nil, fault.Wrap("attach container", id, err)
	}
	if err := checkID(id); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fault.New(fault.Unavailable, "attach container", shortID(id), "the network is shutting down")
	}
	if _, taken := m.endpoints[id]; taken {
		return nil, fault.New(fault.Conflict, "attach container", shortID(id), "the container is attached to a network already")
	}
	a := &attachment{}
	m.endpoints[id] = a
	return a, nil
}

func (m *Manager) finish(id string, a *attachment, e *Endpoint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.endpoints[id] != a {
		return fault.New(fault.Canceled, "attach container", shortID(id), "the container was detached meanwhile")
	}
	a.endpoint = e
	return nil
}

// unclaim undoes a failed Attach.
func (m *Manager) unclaim(id string, a *attachment) {
	m.mu.Lock()
	if m.endpoints[id] == a {
		delete(m.endpoints, id)
	}
	m.mu.Unlock()
	m.dismantle(id, a)
}

// dismantle frees everything a claim holds. The record goes last.
func (m *Manager) dismantle(id string, a *attachment) {
	m.ports.forget(a.bindings)
	if err := m.firewall.change(nil, elementsOf(a.bindings)); err != nil {
		m.log.Warn("cannot withdraw published ports", "container", id, "error", err)
	}
	m.ports.release(a.bindings)
	m.flows.forget(a.bindings)
	m.removeFiles(id)
	m.buryJoined(id, a)
	if a.sandbox != nil {
		m.reaper.discard(a.sandbox)
	}
}

// Endpoint returns the endpoint of an attached container.
func (m *Manager) Endpoint(containerID string) (*Endpoint, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.endpoints[containerID]
	if !ok || a.endpoint == nil {
		return nil, false
	}
	return a.endpoint, true
}

// Detach frees what the container holds. The kernel takes the namespace back in
// the background. A container that is not attached is no error.
func (m *Manager) Detach(_ context.Context, containerID string) error {
	m.mu.Lock()
	a, ok := m.endpoints[containerID]
	if ok && a.endpoint == nil {
		m.mu.Unlock()
		return fault.New(fault.Conflict, "detach container", shortID(containerID), "it is just being attached")
	}
	delete(m.endpoints, containerID)
	m.mu.Unlock()
	if ok {
		m.dismantle(containerID, a)
	}
	return nil
}

func (m *Manager) newRecord(s *sandbox) record {
	r := record{Version: recordVersion, Sandbox: s.id, Endpoint: randomID(32), Inode: s.inode}
	if !s.bare() {
		r.Veth, r.Index, r.Number = s.veth, s.index, s.num
		r.IPv4, r.IPv6, r.ExtraIPv6, r.MAC = s.ip4, s.ip6, s.extra, s.mac.String()
	}
	return r
}

func (m *Manager) bridgeEndpoint(r record) *Endpoint {
	mac, _ := net.ParseMAC(r.MAC)
	way4, way6 := m.addrs.ways()
	e := &Endpoint{
		ContainerID: r.Container, SandboxPath: m.sandboxPath(r.Container), SandboxID: r.Sandbox,
		Name: "bridge", NetworkID: m.names.id, EndpointID: r.Endpoint,
		IPv4: netip.PrefixFrom(r.IPv4, m.subnet4.Bits()), Gateway4: way4,
		MAC: mac,
	}
	if r.IPv6.IsValid() && m.subnet6.IsValid() {
		e.IPv6, e.Gateway6 = netip.PrefixFrom(r.IPv6, m.subnet6.Bits()), way6
	}
	return e
}

func (m *Manager) bareEndpoint(r record) *Endpoint {
	return &Endpoint{ContainerID: r.Container, SandboxPath: m.sandboxPath(r.Container), SandboxID: r.Sandbox,
		Name: "none", NetworkID: NoneNetworkID, EndpointID: r.Endpoint}
}
