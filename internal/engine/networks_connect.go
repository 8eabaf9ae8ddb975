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

// bridge is the name of the default network.
const bridge = network.NetworkBridge

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

// networkNames are the networks that a container is on while it runs, by name: the
// first is the one that it was created on.
func networkNames(rec *container.Record) []string {
	mode := rec.HostConfig.NetworkMode
	if mode.IsContainer() {
		return nil
	}
	names := slices.Sorted(maps.Keys(rec.Networks))
	first := slices.Index(names, string(mode))
	switch {
	case first >= 0:
		names = append([]string{string(mode)}, slices.Delete(names, first, first+1)...)
	case !mode.IsUserDefined() && !rec.Disconnected:
		names = append([]string{string(mode)}, names...)
	}
	return names
}

// joins tells whether a container gets an interface for a network of that name.
func joins(name string) bool { return name == bridge || userDefined(name) }

// joinNetworks puts a container that is being started on the networks beside own,
// which it has, publishes its ports and gives it a name service.
func (e *Engine) joinNetworks(ctx context.Context, rec *container.Record, own *netroom.Endpoint) error {
	some := false
	for _, name := range networkNames(rec) {
		if !joins(name) || name == own.Name {
			continue
		}
		r, err := e.joinable(name)
		if err != nil {
			return err
		}
		if err := e.join(ctx, rec, r); err != nil {
			return err
		}
		some = true
		e.publishNetwork(events.ActionConnect, r, rec.ID)
	}
	if !some {
		return nil
	}
	return e.publishPorts(ctx, rec)
}

// join puts a running container on a network.
func (e *Engine) join(ctx context.Context, rec *container.Record, r *netRecord) error {
	if !joins(r.Name) {
		return nil
	}
	if _, err := e.network.Join(ctx, rec.ID, e.joinRequest(rec, r)); err != nil || !userDefined(r.Name) {
		return err
	}
	return e.serveNames(rec)
}

// publishPorts publishes a running container's ports where its default route is now.
func (e *Engine) publishPorts(ctx context.Context, rec *container.Record) error {
	req, err := networkRequest(rec)
	if err != nil {
		return err
	}
	return e.network.Publish(ctx, rec.ID, req.Ports)
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
	j := netroom.JoinRequest{Network: r.ID}
	if userDefined(r.Name) {
		j.Names = dnsNames(rec, r.Name)
	}
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

// mayConnect refuses, in docker's words, what doesn't go together.
func mayConnect(rec *container.Record, r *netRecord) error {
	wrong := func(format string, args ...any) error { return fault.New(fault.Forbidden, "", "", format, args...) }
	on := networkNames(rec)
	mode := rec.HostConfig.NetworkMode
	switch {
	case r.Name == network.NetworkHost:
		return wrong("container cannot be disconnected from host network or connected to host network")
	case mode.IsContainer() || mode == network.NetworkHost:
		return wrong("container sharing network namespace with another container or host cannot be connected to any other network")
	case slices.Contains(on, r.Name):
		return wrong("endpoint with name %s already exists in network %s", rec.Name, r.Name)
	case len(on) > 0 && (r.Name == network.NetworkNone || slices.Contains(on, network.NetworkNone)):
		return wrong("container cannot be connected to multiple networks with one of the networks in private (none) mode")
	}
	return nil
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
	if err := mayConnect(rec, r); err != nil {
		return err
	}
	ep, err := wishedOf(r, req.EndpointConfig)
	if err != nil {
		return err
	}
	next := rec.Clone()
	next.Networks = maps.Clone(rec.Networks)
	if next.Networks == nil {
		next.Networks = make(map[string]*network.EndpointSettings, 1)
	}
	next.Networks[r.Name] = ep
	if string(rec.HostConfig.NetworkMode) == r.Name {
		next.Disconnected = false
	}
	if rec.State.Alive() {
		if err = e.join(ctx, next, r); err == nil {
			err = e.publishPorts(ctx, next)
		}
	}
	if err == nil {
		err = e.save(next)
	}
	if err != nil {
		if rec.State.Alive() {
			_ = e.network.Leave(ctx, rec.ID, r.ID)
			_ = e.publishPorts(ctx, rec)
		}
		return err
	}
	next = c.Edit(func(rec *container.Record) { rec.Networks, rec.Disconnected = next.Networks, next.Disconnected })
	e.networksChanged(next)
	e.publishNetwork(events.ActionConnect, r, rec.ID)
	return nil
}

// wishedOf judges what a container that is being connected asks of the network.
func wishedOf(r *netRecord, in *network.EndpointSettings) (*network.EndpointSettings, error) {
	if in == nil {
		return &network.EndpointSettings{}, nil
	}
	if len(in.DriverOpts) > 0 {
		return nil, fault.New(fault.Unsupported, "", "", "driver options of endpoints: not offered by this engine")
	}
	if len(in.Aliases) > 0 && !userDefined(r.Name) {
		return nil, fault.New(fault.Invalid, "", "", "network-scoped alias is supported only for containers in user defined networks")
	}
	if len(in.Links) > 0 && !userDefined(r.Name) {
		return nil, fault.New(fault.Unsupported, "", "", "links on the network %s: not offered by this engine", r.Name)
	}
	ep := wished(in)
	return ep, checkWished(r, ep)
}

// joinable finds a network that a container can be on, the predefined ones included.
func (e *Engine) joinable(ref string) (*netRecord, error) {
	r, err := e.nets.find(ref)
	if err != nil || r != nil {
		return r, err
	}
	for _, n := range e.allNetworks() {
		if n.Name == ref || len(ref) >= 4 && strings.HasPrefix(n.ID, ref) {
			b := e.network.Bridge()
			r := &netRecord{Definition: netroom.Definition{ID: n.ID, Name: n.Name}}
			if n.Name == bridge {
				r.Subnet4, r.Subnet6 = b.Subnet4, b.Subnet6
			}
			return r, nil
		}
	}
	return nil, fault.New(fault.NotFound, "", "", "network %s not found", ref)
}

// driver names what makes the network.
func (r *netRecord) driver() string {
	switch r.Name {
	case network.NetworkHost:
		return "host"
	case network.NetworkNone:
		return "null"
	}
	return "bridge"
}

// bothOf finds a network and a container, whose lock it takes.
func (e *Engine) bothOf(ctx context.Context, netRef, ref string) (*netRecord, *container.Container, error) {
	r, err := e.joinable(netRef)
	if err != nil {
		return nil, nil, err
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
	switch on := slices.Contains(networkNames(rec), r.Name); {
	case on && r.Name == network.NetworkHost:
		return fault.New(fault.Forbidden, "", "", "container cannot be disconnected from host network or connected to host network")
	case !on:
		return fault.New(fault.Forbidden, "", "", "container %s is not connected to network %s", rec.ID, r.Name)
	}
	next := rec.Clone()
	next.Networks = maps.Clone(rec.Networks)
	delete(next.Networks, r.Name)
	next.Disconnected = rec.Disconnected || string(rec.HostConfig.NetworkMode) == r.Name && !userDefined(r.Name)
	if err := e.save(next); err != nil {
		return err
	}
	next = c.Edit(func(rec *container.Record) { rec.Networks, rec.Disconnected = next.Networks, next.Disconnected })
	if rec.State.Alive() {
		if err := e.network.Leave(ctx, rec.ID, r.ID); err != nil {
			return err
		}
		if err := e.publishPorts(ctx, next); err != nil {
			return err
		}
		e.networksChanged(next)
	}
	e.publishNetwork(events.ActionDisconnect, r, rec.ID)
	return nil
}

// settleNetworks makes a living container's networks those that its record names: a
// connect or disconnect may have been cut short.
func (e *Engine) settleNetworks(ctx context.Context, rec *container.Record) {
	own, ok := e.network.Endpoint(rec.ID)
	if !ok {
		return
	}
	names := networkNames(rec)
	if len(names) == 1 && len(e.network.Joined(rec.ID)) == 0 && own.Name == names[0] {
		return // nearly all of them
	}
	warn := func(err error) {
		if err != nil && !fault.Is(err, fault.Unavailable) { // it is ending
			e.log.Warn("settle the networks of a container", "container", rec.ID, "error", err)
		}
	}
	for _, ep := range e.endpoints(rec) {
		if joins(ep.Name) && !slices.Contains(names, ep.Name) {
			warn(e.network.Leave(ctx, rec.ID, ep.NetworkID))
		}
	}
	warn(e.publishPorts(ctx, rec))
	e.networksChanged(rec)
}

// renamed tells the networks of a running container about its new name.
func (e *Engine) renamed(rec *container.Record) {
	if !rec.State.Alive() {
		return
	}
	for _, ep := range e.network.Joined(rec.ID) {
		if !userDefined(ep.Name) {
			continue
		}
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
