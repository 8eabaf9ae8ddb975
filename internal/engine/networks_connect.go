package engine

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"berth/internal/container"
	"berth/internal/fault"
	netroom "berth/internal/network"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// resolveNetworks replaces ids in a new container's record by names, and refuses
// networks that there are not.
func (e *Engine) resolveNetworks(rec *container.Record) error {
	mode := &rec.HostConfig.NetworkMode
	if mode.IsUserDefined() {
		r, err := e.nets.find(string(*mode))
		if err != nil {
			return err
		}
		if r == nil {
			return noNetwork(string(*mode))
		}
		if ep := rec.Networks[string(*mode)]; ep != nil && string(*mode) != r.Name {
			delete(rec.Networks, string(*mode))
			rec.Networks[r.Name] = ep
		}
		*mode = api.NetworkMode(r.Name)
		if rec.Networks == nil {
			rec.Networks = make(map[string]*network.EndpointSettings, 1)
		}
		if rec.Networks[r.Name] == nil {
			rec.Networks[r.Name] = &network.EndpointSettings{}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rec.Networks)) {
		if !userDefined(name) {
			continue
		}
		r, err := e.nets.find(name)
		if err != nil {
			return err
		}
		if r == nil {
			return noNetwork(name)
		}
		ep := rec.Networks[name]
		if err := checkWished(r, ep); err != nil {
			return err
		}
		delete(rec.Networks, name)
		rec.Networks[r.Name] = ep
	}
	return nil
}

// noNetwork refuses a create. It is no fault.NotFound: docker's command line takes
// that for a missing image, and goes to fetch it.
func noNetwork(name string) error {
	return fault.New(fault.Invalid, "", "", "network %s not found", name)
}

// userDefined tells whether a network's name is none of those that are always there.
func userDefined(name string) bool {
	return name != network.NetworkBridge && name != network.NetworkHost && name != network.NetworkNone && name != network.NetworkDefault
}

// checkWished refuses addresses that the network does not have.
func checkWished(r *netRecord, ep *network.EndpointSettings) error {
	if ep == nil || ep.IPAMConfig == nil {
		return nil
	}
	if a := ep.IPAMConfig.IPv4Address.Unmap(); a.IsValid() && !r.Subnet4.Contains(a) {
		return fault.New(fault.Invalid, "", "", "invalid config for network %s: invalid endpoint settings: no configured subnet contains IP address %s", r.Name, a)
	}
	if a := ep.IPAMConfig.IPv6Address; a.IsValid() && !(r.Subnet6.IsValid() && r.Subnet6.Contains(a)) {
		return fault.New(fault.Invalid, "", "", "invalid config for network %s: invalid endpoint settings: no configured subnet contains IP address %s", r.Name, a)
	}
	return nil
}

// joinNetworks puts a container that is being started on its user-defined
// networks, publishes its ports there and gives it a name service.
func (e *Engine) joinNetworks(ctx context.Context, rec *container.Record) error {
	order := slices.SortedFunc(maps.Keys(rec.Networks), func(a, b string) int {
		if primary := string(rec.HostConfig.NetworkMode); (a == primary) != (b == primary) {
			if a == primary {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	var joined []*netRecord
	for _, name := range order {
		if !userDefined(name) {
			continue
		}
		r, err := e.nets.find(name)
		if err != nil {
			return err
		}
		if r == nil {
			return fault.New(fault.NotFound, "", "", "network %s not found", name)
		}
		if _, err := e.network.Join(ctx, rec.ID, e.joinRequest(rec, r)); err != nil {
			return err
		}
		joined = append(joined, r)
		e.publishNetwork(events.ActionConnect, r, rec.ID)
	}
	if len(joined) == 0 {
		return nil
	}
	if userDefined(string(rec.HostConfig.NetworkMode)) {
		req, err := networkRequest(rec)
		if err != nil {
			return err
		}
		for _, r := range joined {
			if r.Internal {
				continue
			}
			if _, err := e.network.Publish(ctx, rec.ID, r.ID, req.Ports); err != nil {
				return err
			}
			break
		}
	}
	return e.serveNames(rec)
}

func (e *Engine) serveNames(rec *container.Record) error {
	servers := make([]string, 0, len(rec.HostConfig.DNS))
	for _, s := range rec.HostConfig.DNS {
		servers = append(servers, s.String())
	}
	upstream, err := netroom.Upstream(servers)
	if err != nil {
		return err
	}
	return e.network.ServeNames(rec.ID, upstream)
}

func (e *Engine) joinRequest(rec *container.Record, r *netRecord) netroom.JoinRequest {
	j := netroom.JoinRequest{Network: r.ID, Names: dnsNames(rec, r.Name)}
	links := slices.Clone(rec.HostConfig.Links)
	if ep := rec.Networks[r.Name]; ep != nil {
		links = append(links, ep.Links...)
	}
	for _, l := range links {
		name, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = name
		}
		if other, err := e.containers.Find(name); err == nil {
			if j.Links == nil {
				j.Links = make(map[string]string)
			}
			j.Links[alias[strings.LastIndexByte(alias, '/')+1:]] = other.ID
		}
	}
	if ep := rec.Networks[r.Name]; ep != nil {
		j.GwPriority, j.MAC = ep.GwPriority, []byte(ep.MacAddress)
		if ep.IPAMConfig != nil {
			j.IPv4, j.IPv6 = ep.IPAMConfig.IPv4Address.Unmap(), ep.IPAMConfig.IPv6Address
		}
	}
	return j
}

// dnsNames are the names by which others on a network find a container.
func dnsNames(rec *container.Record, netName string) []string {
	out := []string{rec.Name}
	add := func(name string) {
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	if ep := rec.Networks[netName]; ep != nil {
		for _, a := range ep.Aliases {
			add(a)
		}
	}
	add(rec.ID[:12])
	add(rec.Config.Hostname)
	return out
}

// NetworkConnect puts a container on a further network, at once when it runs and
// at every start from now on.
func (e *Engine) NetworkConnect(ctx context.Context, ref string, req network.ConnectRequest) error {
	r, c, err := e.bothOf(ctx, ref, req.Container)
	if err != nil {
		return err
	}
	defer c.Unlock()
	rec := c.Record()
	switch m := rec.HostConfig.NetworkMode; {
	case m.IsContainer() || m == network.NetworkHost:
		return fault.New(fault.Forbidden, "", "", "container sharing network namespace with another container or host cannot be connected to any other network")
	case m.IsNone():
		return fault.New(fault.Forbidden, "", "", "container cannot be connected to multiple networks with one of the networks in private (none) mode")
	case rec.Networks[r.Name] != nil:
		return fault.New(fault.Forbidden, "", "", "endpoint with name %s already exists in network %s", rec.Name, r.Name)
	}
	ep := &network.EndpointSettings{}
	if req.EndpointConfig != nil {
		if len(req.EndpointConfig.DriverOpts) > 0 {
			return fault.New(fault.Unsupported, "", "", "driver options of endpoints: not offered by this engine")
		}
		ep = wished(req.EndpointConfig)
	}
	if err := checkWished(r, ep); err != nil {
		return err
	}
	next := rec.Clone()
	next.Networks = maps.Clone(rec.Networks)
	if next.Networks == nil {
		next.Networks = make(map[string]*network.EndpointSettings, 1)
	}
	next.Networks[r.Name] = ep
	if rec.State.Alive() {
		if _, err := e.network.Join(ctx, rec.ID, e.joinRequest(next, r)); err != nil {
			return err
		}
		if err := e.serveNames(next); err != nil {
			_ = e.network.Leave(ctx, rec.ID, r.ID)
			return err
		}
	}
	if err := e.save(next); err != nil {
		if rec.State.Alive() {
			_ = e.network.Leave(ctx, rec.ID, r.ID)
		}
		return err
	}
	next = c.Edit(func(rec *container.Record) { rec.Networks = next.Networks })
	e.networksChanged(next)
	e.publishNetwork(events.ActionConnect, r, rec.ID)
	return nil
}

// bothOf finds a user-defined network and a container, whose lock it takes.
func (e *Engine) bothOf(ctx context.Context, netRef, ref string) (*netRecord, *container.Container, error) {
	r, err := e.nets.find(netRef)
	if err != nil {
		return nil, nil, err
	}
	if r == nil {
		for _, n := range e.allNetworks() {
			if n.Name == netRef || len(netRef) >= 4 && strings.HasPrefix(n.ID, netRef) {
				return nil, nil, fault.New(fault.Unsupported, "", "", "connecting a container to, or disconnecting it from, the network %s", n.Name).
					WithHint("choose it when the container is created")
			}
		}
		return nil, nil, fault.New(fault.NotFound, "", "", "network %s not found", netRef)
	}
	c, err := e.containers.Find(ref)
	if err != nil {
		return nil, nil, err
	}
	if err := c.Lock(ctx); err != nil {
		return nil, nil, err
	}
	if s := c.State(); c.Gone() || s.Status == "removing" || s.Status == "dead" {
		c.Unlock()
		return nil, nil, fault.New(fault.Conflict, "", "", "Container %s is marked for removal and cannot be connected or disconnected to the network", c.ID)
	}
	return r, c, nil
}

// networksChanged brings the files of a running container up to date.
func (e *Engine) networksChanged(rec *container.Record) {
	if !rec.State.Alive() {
		return
	}
	own, _ := e.network.Endpoint(rec.ID)
	if err := e.writeNetworkFiles(rec, nil, own); err != nil {
		e.log.Warn("write the network files of a container", "container", rec.ID, "error", err)
	}
}

// NetworkDisconnect takes a container off a network.
func (e *Engine) NetworkDisconnect(ctx context.Context, ref string, req network.DisconnectRequest) error {
	r, c, err := e.bothOf(ctx, ref, req.Container)
	if err != nil {
		return err
	}
	defer c.Unlock()
	rec := c.Record()
	if rec.Networks[r.Name] == nil {
		return fault.New(fault.Forbidden, "", "", "container %s is not connected to network %s", rec.ID, r.Name)
	}
	next := rec.Clone()
	next.Networks = maps.Clone(rec.Networks)
	delete(next.Networks, r.Name)
	if err := e.save(next); err != nil {
		return err
	}
	next = c.Edit(func(rec *container.Record) { rec.Networks = next.Networks })
	if rec.State.Alive() {
		if err := e.network.Leave(ctx, rec.ID, r.ID); err != nil {
			return err
		}
		e.networksChanged(next)
	}
	e.publishNetwork(events.ActionDisconnect, r, rec.ID)
	return nil
}

// renamed tells the networks of a running container about its new name.
func (e *Engine) renamed(rec *container.Record) {
	if !rec.State.Alive() {
		return
	}
	for _, ep := range e.network.Joined(rec.ID) {
		if err := e.network.SetNames(rec.ID, ep.NetworkID, dnsNames(rec, ep.Name)); err != nil {
			e.log.Warn("rename a container on its network", "container", rec.ID, "network", ep.Name, "error", err)
		}
	}
}

// ownAddrs are a running container's addresses on all of its networks.
func (e *Engine) ownAddrs(rec *container.Record, own *netroom.Endpoint) []netip.Addr {
	var out []netip.Addr
	if own != nil {
		out = append(out, own.IPv4.Addr(), own.IPv6.Addr())
	}
	for _, ep := range e.network.Joined(rec.ID) {
		out = append(out, ep.IPv4.Addr(), ep.IPv6.Addr())
	}
	return out
}
