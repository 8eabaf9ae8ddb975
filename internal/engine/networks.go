package engine

import (
	"context"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/internal/container"
	"berth/internal/engine/filter"
	"berth/internal/engine/reclaim"
	"berth/internal/fault"
	"berth/internal/metadata"
	netroom "berth/internal/network"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// netRecord is what is written down of a user-defined network.
type netRecord struct {
	netroom.Definition
	Created    time.Time
	Labels     map[string]string    `json:",omitempty"`
	Options    map[string]string    `json:",omitempty"`
	Aux        [2]map[string]string `json:",omitzero"` // auxiliary addresses by name, IPv4 and IPv6
	Attachable bool                 `json:",omitempty"`
}

// networks finds the user-defined networks by id and name. A name is taken here.
type networks struct {
	mu   sync.Mutex // guards by; nothing else is locked under it
	by   map[string]*netRecord
	busy map[string]bool // names of networks being made
}

func (n *networks) all() []*netRecord {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.SortedFunc(maps.Values(n.by), func(a, b *netRecord) int { return strings.Compare(a.Name, b.Name) })
}

// find returns a network by id, name or unique prefix of the id, nil if there is none.
func (n *networks) find(ref string) (*netRecord, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.by[ref]; r != nil {
		return r, nil
	}
	var found *netRecord
	for _, r := range n.by {
		if r.Name == ref {
			return r, nil
		}
		if ref != "" && strings.HasPrefix(r.ID, ref) {
			if found != nil {
				return nil, fault.New(fault.Invalid, "", "", "network %s is ambiguous (2 matches found on ID prefix)", ref)
			}
			found = r
		}
	}
	return found, nil
}

// reserve takes a name.
func (n *networks) reserve(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	taken := n.busy[name]
	for _, r := range n.by {
		taken = taken || r.Name == name
	}
	if taken {
		return fault.New(fault.Conflict, "", "", "network with name %s already exists", name)
	}
	if n.busy == nil {
		n.busy = make(map[string]bool)
	}
	n.busy[name] = true
	return nil
}

// settle gives a reserved name to its network, or back when r is nil.
func (n *networks) settle(name string, r *netRecord) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.busy, name)
	if r == nil {
		return
	}
	if n.by == nil {
		n.by = make(map[string]*netRecord)
	}
	n.by[r.ID] = r
}

func (n *networks) drop(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.by, id)
}

// readNetworks makes the networks known that were created before.
func (e *Engine) readNetworks() error {
	var bad []metadata.BadRecord
	err := e.db.View(func(tx *metadata.Tx) (err error) {
		bad, err = e.netRecords.ForEach(tx, func(id string, r netRecord) error {
			if r.ID != id || r.Name == "" {
				e.log.Error("a network's record is incomplete; it is left alone", "network", id)
				return nil
			}
			e.nets.settle("", &r)
			e.network.Define(r.Definition)
			return nil
		})
		return err
	})
	for _, b := range bad {
		e.log.Error("a network's record can't be read; it is left alone", "network", b.Key, "error", b.Err)
	}
	return fault.Wrap("read networks", "", err)
}

var networkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// NetworkCreate makes a bridge network.
func (e *Engine) NetworkCreate(ctx context.Context, req network.CreateRequest) (network.CreateResponse, error) {
	none := network.CreateResponse{}
	r, err := e.newNetwork(req)
	if err != nil {
		return none, err
	}
	if err := e.nets.reserve(r.Name); err != nil {
		return none, err
	}
	if r.Definition, err = e.network.Create(ctx, r.Definition); err != nil {
		e.nets.settle(r.Name, nil)
		return none, err
	}
	err = e.db.Update(func(tx *metadata.Tx) error { return e.netRecords.Put(tx, r.ID, *r) })
	if err != nil {
		_ = e.network.Remove(r.ID)
		e.nets.settle(r.Name, nil)
		return none, fault.Wrap("create network", r.Name, err)
	}
	e.nets.settle(r.Name, r)
	e.publishNetwork(events.ActionCreate, r, "")
	return network.CreateResponse{ID: r.ID}, nil
}

// newNetwork turns a request into a record, and refuses by name what there is not.
func (e *Engine) newNetwork(req network.CreateRequest) (*netRecord, error) {
	wrong := func(format string, args ...any) error { return fault.New(fault.Invalid, "", "", format, args...) }
	refused := func(what string) error {
		return fault.New(fault.Unsupported, "", "", "%s: not offered by this engine", what)
	}
	switch name := req.Name; {
	case name == network.NetworkBridge, name == network.NetworkHost, name == network.NetworkNone, name == network.NetworkDefault:
		return nil, fault.New(fault.Forbidden, "", "", "operation is not permitted on predefined %s network", name)
	case !networkName.MatchString(name):
		return nil, wrong("invalid network name %q: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed", name)
	}
	switch req.Driver {
	case "", "bridge", "default":
	case "host", "null":
		return nil, fault.New(fault.Forbidden, "", "", "only one instance of %q network is allowed", req.Driver)
	default:
		return nil, refused("network driver " + strconv.Quote(req.Driver))
	}
	switch {
	case req.Scope == "swarm" || req.Ingress:
		return nil, fault.New(fault.Unavailable, "", "", "This node is not a swarm manager: networks have the scope local")
	case req.ConfigOnly || req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return nil, refused("networks that hold a configuration for others")
	case req.EnableIPv4 != nil && !*req.EnableIPv4:
		return nil, refused("networks without IPv4")
	}
	r := &netRecord{Created: time.Now(), Labels: req.Labels, Options: req.Options, Attachable: req.Attachable}
	r.ID, r.Name, r.Internal = newID(), req.Name, req.Internal
	r.IPv6 = req.EnableIPv6 != nil && *req.EnableIPv6
	if req.IPAM != nil {
		if err := r.readIPAM(req.IPAM); err != nil {
			return nil, err
		}
	}
	if r.Subnet6.IsValid() && !r.IPv6 {
		r.IPv6 = true // who names an IPv6 subnet wants it
	}
	return r, r.readOptions(req.Options)
}

func (r *netRecord) readIPAM(in *network.IPAM) error {
	wrong := func(format string, args ...any) error { return fault.New(fault.Invalid, "", "", format, args...) }
	if in.Driver != "" && in.Driver != "default" {
		return fault.New(fault.Unsupported, "", "", "IPAM driver %q: not offered by this engine", in.Driver)
	}
	for k := range in.Options {
		return fault.New(fault.Unsupported, "", "", "IPAM option %q: not offered by this engine", k)
	}
	for _, c := range in.Config {
		if !c.Subnet.IsValid() {
			if c.Gateway.IsValid() || c.IPRange.IsValid() || len(c.AuxAddress) > 0 {
				return wrong("invalid network config: a gateway, range or auxiliary address needs a subnet")
			}
			continue
		}
		if c.Subnet != c.Subnet.Masked() {
			return wrong("invalid network config: invalid subnet %s: it should be %s", c.Subnet, c.Subnet.Masked())
		}
		family := 0
		if c.Subnet.Addr().Is6() {
			family = 1
		}
		subnet, gateway := &r.Subnet4, &r.Gateway4
		if family == 1 {
			subnet, gateway = &r.Subnet6, &r.Gateway6
			if c.IPRange.IsValid() {
				return fault.New(fault.Unsupported, "", "", "an IPv6 range of addresses: not offered by this engine")
			}
		}
		if subnet.IsValid() {
			return fault.New(fault.Unsupported, "", "", "more than one subnet of an address family: not offered by this engine")
		}
		*subnet, *gateway = c.Subnet, c.Gateway
		if family == 0 {
			r.Range4 = c.IPRange
		}
		for name, a := range c.AuxAddress {
			if r.Aux[family] == nil {
				r.Aux[family] = make(map[string]string)
			}
			r.Aux[family][name] = a.String()
			r.Reserved = append(r.Reserved, a)
		}
	}
	return nil
}

// readOptions reads docker's options of bridge networks.
func (r *netRecord) readOptions(opts map[string]string) error {
	for key, value := range opts {
		wrong := fault.New(fault.Invalid, "", "", "invalid value %q of the option %s", value, key)
		yes, notBool := strconv.ParseBool(value)
		switch key {
		case "com.docker.network.bridge.name":
			r.Bridge = value
		case "com.docker.network.bridge.enable_icc":
			r.Isolated = !yes
		case "com.docker.network.bridge.enable_ip_masquerade":
			r.NoMasq = !yes
		case "com.docker.network.bridge.host_binding_ipv4":
			notBool = nil
			a, err := netip.ParseAddr(value)
			if err != nil {
				return wrong
			}
			r.HostIP = a
		case "com.docker.network.driver.mtu", "mtu":
			notBool = nil
			n, err := strconv.Atoi(value)
			if err != nil || n < 68 || n > 65535 {
				return wrong
			}
			r.MTU = n
		default:
			return fault.New(fault.Unsupported, "", "", "network option %s: not offered by this engine", key)
		}
		if notBool != nil && (strings.HasSuffix(key, "enable_icc") || strings.HasSuffix(key, "masquerade")) {
			return wrong
		}
	}
	return nil
}

// NetworkRemove removes a user-defined network that no running container is on.
func (e *Engine) NetworkRemove(_ context.Context, ref string) error {
	r, err := e.userNetwork(ref)
	if err != nil {
		return err
	}
	return e.removeNetwork(r)
}

// userNetwork returns a user-defined network, and refuses the others.
func (e *Engine) userNetwork(ref string) (*netRecord, error) {
	r, err := e.nets.find(ref)
	if err != nil || r != nil {
		return r, err
	}
	for _, n := range e.allNetworks() {
		if n.Name == ref || len(ref) >= 4 && strings.HasPrefix(n.ID, ref) {
			return nil, fault.New(fault.Forbidden, "", "", "%s is a pre-defined network and cannot be removed", n.Name)
		}
	}
	return nil, fault.New(fault.NotFound, "", "", "network %s not found", ref)
}

func (e *Engine) removeNetwork(r *netRecord) error {
	if err := e.network.Remove(r.ID); err != nil {
		return err
	}
	// The kernel has forgotten it first: a crash in between brings it back whole.
	err := e.db.Update(func(tx *metadata.Tx) error { return e.netRecords.Delete(tx, r.ID) })
	if err != nil {
		e.network.Define(r.Definition)
		return fault.Wrap("remove network", r.Name, err)
	}
	e.nets.drop(r.ID)
	e.publishNetwork(events.ActionDestroy, r, "")
	return nil
}

// NetworkPruneReport is what a prune did or, after a dry run, what it would do.
type NetworkPruneReport struct {
	NetworksDeleted []string
	reclaim.Plan
}

// NetworkPrune removes the user-defined networks that no running container is on.
func (e *Engine) NetworkPrune(ctx context.Context, f filter.Set, dryRun bool) (NetworkPruneReport, error) {
	out := NetworkPruneReport{NetworksDeleted: []string{}}
	if err := f.Check("label", "label!", "until"); err != nil {
		return out, err
	}
	until, err := f.Until()
	if err != nil {
		return out, err
	}
	for _, r := range e.nets.all() {
		keep := reclaim.Spared(f, until, r.Created, r.Labels)
		if users := e.networkUsers(r.Name); len(users) > 0 {
			keep = "container " + users[0].Record().Name + " is on it"
		}
		out.Decide(reclaim.Item{Kind: "network", ID: r.ID, Names: []string{r.Name}}, "no running container is on it", keep)
	}
	for _, item := range out.Remove {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if r, _ := e.nets.find(item.ID); !dryRun && r != nil {
			if err := e.removeNetwork(r); err != nil {
				e.log.Warn("prune network", "network", r.Name, "error", err)
				continue
			}
		}
		out.NetworksDeleted = append(out.NetworksDeleted, item.Names[0])
	}
	if !dryRun {
		e.publishPrune(events.NetworkEventType, 0)
	}
	return out, nil
}

// networkUsers returns the running containers that are on a network. Those that
// don't run keep no network, as with docker: they say what is missing when they start.
func (e *Engine) networkUsers(name string) []*container.Container {
	var users []*container.Container
	for _, c := range e.containers.All() {
		if rec := c.Record(); rec.State.Alive() && slices.Contains(networkNames(rec), name) {
			users = append(users, c)
		}
	}
	return users
}

func (e *Engine) publishNetwork(action events.Action, r *netRecord, containerID string) {
	attrs := map[string]string{"name": r.Name, "type": r.driver()}
	if containerID != "" {
		attrs["container"] = containerID
	}
	e.bus.Publish(events.NetworkEventType, action, r.ID, attrs)
}

// describe shows a network as docker does.
func (r *netRecord) describe() network.Network {
	n := network.Network{
		Name: r.Name, ID: r.ID, Created: r.Created, Scope: "local", Driver: "bridge", EnableIPv4: true, EnableIPv6: r.Subnet6.IsValid(),
		Internal: r.Internal, Attachable: r.Attachable, Options: r.Options, Labels: r.Labels,
		IPAM: network.IPAM{Driver: "default", Options: map[string]string{}},
	}
	if n.Options == nil {
		n.Options = map[string]string{}
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	aux := func(from map[string]string) map[string]netip.Addr {
		out := make(map[string]netip.Addr, len(from))
		for k, v := range from {
			out[k], _ = netip.ParseAddr(v) // written by us
		}
		return out
	}
	c := network.IPAMConfig{Subnet: r.Subnet4, IPRange: r.Range4, Gateway: r.Gateway4}
	if len(r.Aux[0]) > 0 {
		c.AuxAddress = aux(r.Aux[0])
	}
	n.IPAM.Config = append(n.IPAM.Config, c)
	if r.Subnet6.IsValid() {
		c = network.IPAMConfig{Subnet: r.Subnet6, Gateway: r.Gateway6}
		if len(r.Aux[1]) > 0 {
			c.AuxAddress = aux(r.Aux[1])
		}
		n.IPAM.Config = append(n.IPAM.Config, c)
	}
	return n
}
