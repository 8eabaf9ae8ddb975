package network

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"

	"berth/internal/fault"
	"berth/internal/network/nameserver"
)

// Manager is the network of one engine. Its methods may be called at the same
// time. Order of locks: setup, firewall.mu, then any one of the leaf locks
// (Manager.mu, portTable.mu, ipam.mu, pool.mu, reaper.mu).
type Manager struct {
	cfg     Config
	names   names
	log     *slog.Logger
	subnet4 netip.Prefix
	subnet6 netip.Prefix // zero without IPv6
	ipv6    bool
	mtu     int
	addrs   *ipam
	route   *routeConn // in the host's namespace

	firewall *firewall
	ports    *portTable
	bridged  *pool
	bare     *pool
	reaper   *reaper
	flows    *flows

	nameService *nameserver.Client
	watcher     *watcher
	user        userNets
	standard    *userNet // the default network, for those who join it beside others

	// chosen ends the time in which no other engine may choose a subnet: ours is
	// visible to it only when the bridge has its addresses.
	chosen func()

	bridgeIndex atomic.Int32
	setup       sync.Mutex  // serialises ensureReady
	ready       atomic.Bool // bridge and table were made and nothing says they are gone

	forwarding atomic.Bool // the host forwards packets

	mu        sync.Mutex // guards the rest; leaf lock
	endpoints map[string]*attachment
	adopted   bool // Adopt has run: what is not in endpoints belongs to nobody
	closed    bool
}

// attachment is a container's claim on a sandbox.
type attachment struct {
	sandbox  *sandbox
	endpoint *Endpoint // nil while Attach is at work
	bindings []*binding

	// What is published, and the addresses that it leads to: those of the network
	// that has the default route.
	ports    []Published
	to4, to6 netip.Addr

	joined   []*joinedEnd // networks beside the sandbox's own
	upstream []string     // name servers for what is not found on them
	named    bool         // by the name service
}

// Open prepares a Manager and chooses its addresses. Nothing in the kernel is
// touched before Adopt, which has to be called once before Attach.
func Open(ctx context.Context, cfg Config) (*Manager, error) {
	var err error
	for _, dir := range []*string{&cfg.RunDir, &cfg.DataRoot} {
		if *dir == "" {
			return nil, fault.New(fault.Invalid, "open network", "", "run directory and data root are required")
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return nil, fault.New(fault.Internal, "open network", *dir, "%w", err)
		}
	}
	m := &Manager{cfg: cfg, log: cfg.Logger, endpoints: map[string]*attachment{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.names, err = deriveNames(cfg); err != nil {
		return nil, err
	}
	v, err := readSysctl("ipv6/conf/all/disable_ipv6")
	m.ipv6 = err == nil && v == "0"
	if m.mtu = cfg.MTU; m.mtu == 0 {
		m.mtu = hostMTU()
	}
	if err := m.chooseSubnets(ctx); err != nil {
		return nil, err
	}
	m.addrs = newIPAM(m.subnet4, m.subnet6, &m.cfg)
	m.standard = m.newStandardNet()
	m.ports = &portTable{byKey: map[portKey]*binding{}, loopback6: m.loopback6Works}
	m.reaper = newReaper(m)
	m.nameService = nameserver.NewClient(filepath.Join(cfg.RunDir, "names"), cfg.NameServer, m.log)
	m.flows = newFlows(m)
	if m.route, err = dialRoute(); err != nil {
		m.chosen()
		return nil, fault.New(fault.Internal, "open network", "", "%w", err)
	}
	if m.firewall, err = newFirewall(m); err != nil {
		m.chosen()
		m.route.close()
		return nil, err
	}
	m.makePools()
	return m, nil
}

func (m *Manager) makePools() {
	size := m.cfg.PoolSize
	if size == 0 {
		size = defaultPoolSize
	}
	size = max(size, 0)
	m.bridged = newPool(size, m.log, func() (*sandbox, error) { return m.buildBridged(identity{}) }, m.reaper.discard)
	m.bare = newPool((size+3)/4, m.log, m.buildBare, m.reaper.discard)
}

// chooseSubnets settles the addresses: configured, remembered, or picked.
func (m *Manager) chooseSubnets(ctx context.Context) (err error) {
	before, err := loadSaved(m.cfg)
	if err != nil {
		return err
	}
	if m.chosen, err = lockSubnetChoice(ctx); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			m.chosen()
		}
	}()
	own := 0
	if link, err := netlink.LinkByName(m.names.bridge); err == nil && link.Attrs().Alias == m.names.alias {
		own = link.Attrs().Index
	}
	used, err := occupied(own)
	if err != nil {
		return err
	}
	now := saved{}
	if now.Subnet4, err = m.chooseSubnet(m.cfg.Subnet4, before.Subnet4, used, own != 0, m.cfg.pickSubnet4); err != nil {
		return err
	}
	if !now.Subnet4.Addr().Is4() || now.Subnet4.Bits() > 29 || now.Subnet4.Bits() < 8 {
		return fault.New(fault.Invalid, "use subnet", now.Subnet4.String(), "the IPv4 subnet has a length from 8 to 29 bits")
	}
	if m.ipv6 && !m.cfg.NoIPv6 {
		if now.Subnet6, err = m.chooseSubnet(m.cfg.Subnet6, before.Subnet6, used, own != 0, m.cfg.pickSubnet6); err != nil {
			return err
		}
		if !now.Subnet6.Addr().Is6() || now.Subnet6.Bits() > 96 {
			return fault.New(fault.Invalid, "use subnet", now.Subnet6.String(), "the IPv6 subnet has a length of at most 96 bits")
		}
	}
	m.subnet4, m.subnet6 = now.Subnet4, now.Subnet6
	if err := m.cfg.fits(now.Subnet4, now.Subnet6); err != nil {
		return err
	}
	if !now.Subnet6.IsValid() {
		now.Subnet6 = before.Subnet6
	}
	if now == before {
		return nil
	}
	return storeSaved(m.cfg, now)
}

// chooseSubnet keeps a remembered subnet while nothing else uses it, or while
// our bridge stands, since containers may be living in it.
func (m *Manager) chooseSubnet(fixed, remembered netip.Prefix, used []netip.Prefix, standing bool,
	pick func(names, []netip.Prefix) (netip.Prefix, error)) (netip.Prefix, error) {
	if fixed.IsValid() {
		fixed = fixed.Masked()
		if with, taken := overlapping(fixed, used); taken {
			return netip.Prefix{}, fault.New(fault.Conflict, "use subnet", fixed.String(), "it overlaps %s, which a route or a name server of this host uses", with).
				WithHint("configure another subnet")
		}
		return fixed, nil
	}
	if remembered.IsValid() && m.cfg.inPools(remembered) {
		with, taken := overlapping(remembered, used)
		if !taken || standing {
			return remembered.Masked(), nil
		}
		m.log.Warn("choosing another subnet: the host uses the remembered one", "subnet", remembered, "overlaps", with)
	}
	return pick(m.names, used)
}

// lockSubnetChoice keeps two engines from choosing the same free subnet before
// either has put it on its bridge. The lock is an abstract socket: its scope is
// the network namespace, and it is gone with its holder.
func lockSubnetChoice(ctx context.Context) (unlock func(), err error) {
	addr := &net.UnixAddr{Net: "unixgram", Name: "@berth-subnet-choice"}
	for {
		c, err := net.ListenUnixgram("unixgram", addr)
		if err == nil {
			return sync.OnceFunc(func() { c.Close() }), nil
		}
		select {
		case <-ctx.Done():
			return nil, fault.Wrap("choose subnet", "", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// ensureReady makes bridge and table unless they are known to stand.
func (m *Manager) ensureReady() error {
	if m.ready.Load() {
		return nil
	}
	m.setup.Lock()
	defer m.setup.Unlock()
	if m.ready.Load() {
		return nil
	}
	index, err := m.ensureBridge()
	if err != nil {
		return err
	}
	m.bridgeIndex.Store(int32(index))
	if err := m.firewall.rebuild(); err != nil {
		return err
	}
	m.ready.Store(true)
	return nil
}

// closeWait bounds how long Close waits for the kernel to take namespaces back.
const closeWait = 5 * time.Second

// Close stops the background work and gives the ready namespaces back. What
// belongs to containers stays for the next engine; when there are none, bridge
// and table go too, so that nothing is left.
func (m *Manager) Close() {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.closed = true
	empty := m.adopted && len(m.endpoints) == 0
	m.mu.Unlock()
	m.chosen()
	m.watcher.stop()
	m.bridged.close()
	m.bare.close()
	m.flows.wait()
	if !m.reaper.wait(closeWait) {
		m.log.Warn("some network interfaces are still in use by processes outside of any container")
	}
	m.reaper.stop()
	if empty {
		if err := m.firewall.remove(); err != nil {
			m.log.Warn("cannot remove the nftables table", "error", err)
		}
		m.removeUserBridges()
		if err := m.removeBridge(); err != nil {
			m.log.Warn("cannot remove the bridge", "bridge", m.names.bridge, "error", err)
		}
		m.removeDirs()
	}
	m.mu.Lock()
	for _, a := range m.endpoints {
		if a.sandbox != nil {
			a.sandbox.closeNS()
		}
		for _, b := range a.bindings {
			b.drop()
		}
	}
	m.mu.Unlock()
	m.nameService.Close()
	m.firewall.close()
	m.route.close()
}

// Info describes a network for listing and inspection.
type Info struct {
	ID       string // 64 hex digits, the same over restarts
	Name     string // "bridge", "host" or "none"
	Driver   string // "bridge", "host" or "null"
	Bridge   string // name of the bridge interface
	MTU      int    // bytes
	IPv6     bool
	Isolated bool // see Config
	NoMasq   bool
	Subnet4  netip.Prefix
	Subnet6  netip.Prefix
	Gateway4 netip.Addr
	Gateway6 netip.Addr
}

// Fixed ids of the networks that are the same for every engine.
const (
	HostNetworkID = "686f737400000000000000000000000000000000000000000000000000000000"
	NoneNetworkID = "6e6f6e6500000000000000000000000000000000000000000000000000000000"
)

// Bridge describes the default network.
func (m *Manager) Bridge() Info {
	return Info{
		ID: m.names.id, Name: "bridge", Driver: "bridge", Bridge: m.names.bridge, MTU: m.mtu, IPv6: m.subnet6.IsValid(),
		Isolated: m.cfg.Isolated, NoMasq: m.cfg.NoMasq,
		Subnet4: m.subnet4, Subnet6: m.subnet6,
		Gateway4: m.addrs.gateway4, Gateway6: m.addrs.gateway6(),
	}
}
