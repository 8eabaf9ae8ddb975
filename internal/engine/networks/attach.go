package networks

import (
	"context"
	"net/netip"
	"slices"

	"berth/internal/container"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"
	netroom "berth/internal/network"

	"github.com/moby/moby/api/types/events"
)

// Attach puts a container that is being started on its networks and writes the files
// in /etc that describe them. It returns where its network namespace is, "" where
// that is the host's. Containers that share another's have no networks.
func (s *Set) Attach(ctx context.Context, rec *container.Record) (namespace string, err error) {
	own, err := s.sandbox(ctx, rec)
	if err != nil {
		return "", err
	}
	if own != nil {
		namespace = own.SandboxPath
		err = s.joinOthers(ctx, rec, own)
	}
	if err == nil {
		err = s.writeFiles(rec, own)
	}
	return namespace, err
}

// sandbox gives a container its network namespace, with the default network in it if
// it is on that; nil means that it has the host's.
func (s *Set) sandbox(ctx context.Context, rec *container.Record) (*netroom.Endpoint, error) {
	names := NamesOf(rec)
	switch mode := rec.HostConfig.NetworkMode; {
	case mode.IsHost():
		return nil, nil
	case mode.IsUserDefined() || !slices.Contains(names, bridge):
		return s.Manager.NewSandbox(ctx, rec.ID)
	}
	req := netroom.Request{}
	if ep := rec.Networks[bridge]; ep != nil {
		req.MAC, req.GwPriority = []byte(ep.MacAddress), ep.GwPriority
		if ep.IPAMConfig != nil {
			req.IPv4, req.IPv6 = ep.IPAMConfig.IPv4Address.Unmap(), ep.IPAMConfig.IPv6Address
		}
	}
	var err error
	if len(names) == 1 { // otherwise they go to whichever network gets the default route
		if req.Ports, err = wantedPorts(rec); err != nil {
			return nil, err
		}
	}
	return s.Manager.Attach(ctx, rec.ID, req)
}

// wantedPorts is what a container's record wants published.
func wantedPorts(rec *container.Record) (list []netroom.Port, err error) {
	ports, err := vocabulary.Ports(&vocabulary.Request{Config: rec.Config, HostConfig: rec.HostConfig})
	for _, p := range ports {
		list = append(list, netroom.Port{
			Proto: string(p.Port.Proto()), HostIP: p.HostIP, HostPort: p.From, HostPortEnd: p.To, ContainerPort: p.Port.Num(),
		})
	}
	return list, err
}

// joins tells whether a container gets an interface for a network of that name.
func joins(name string) bool { return name == bridge || userDefined(name) }

// joinOthers puts a container that is being started on the networks beside own,
// which it has, publishes its ports and gives it a name service.
func (s *Set) joinOthers(ctx context.Context, rec *container.Record, own *netroom.Endpoint) error {
	some := false
	for _, name := range NamesOf(rec) {
		if !joins(name) || name == own.Name {
			continue
		}
		r, err := s.find(name)
		if err != nil {
			return err
		}
		if err := s.join(ctx, rec, r); err != nil {
			return err
		}
		some = true
	}
	if !some {
		return nil
	}
	return s.publish(ctx, rec)
}

// join puts a running container on a network.
func (s *Set) join(ctx context.Context, rec *container.Record, r *record) error {
	if !joins(r.Name) {
		return nil
	}
	if _, err := s.Manager.Join(ctx, rec.ID, s.joinRequest(rec, r)); err != nil || !userDefined(r.Name) {
		return err
	}
	return s.serveNames(rec)
}

// publish publishes a running container's ports where its default route is now.
func (s *Set) publish(ctx context.Context, rec *container.Record) error {
	ports, err := wantedPorts(rec)
	if err != nil {
		return err
	}
	return s.Manager.Publish(ctx, rec.ID, ports)
}

func (s *Set) serveNames(rec *container.Record) error {
	servers := make([]string, 0, len(rec.HostConfig.DNS))
	for _, a := range rec.HostConfig.DNS {
		servers = append(servers, a.String())
	}
	upstream, err := netroom.Upstream(servers)
	if err != nil {
		return err
	}
	return s.Manager.ServeNames(rec.ID, upstream)
}

func (s *Set) joinRequest(rec *container.Record, r *record) netroom.JoinRequest {
	j := netroom.JoinRequest{Network: r.ID}
	if userDefined(r.Name) {
		j.Names = dnsNames(rec, r.Name)
	}
	links := slices.Clone(rec.HostConfig.Links)
	if ep := rec.Networks[r.Name]; ep != nil {
		links = append(links, ep.Links...)
	}
	for _, l := range links {
		name, alias := vocabulary.Link(l)
		if other, err := s.Containers.Find(name); err == nil {
			if j.Links == nil {
				j.Links = make(map[string]string)
			}
			j.Links[alias] = other.ID
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

// Renamed tells the networks of a running container about its new name.
func (s *Set) Renamed(rec *container.Record) {
	if !rec.State.Alive() {
		return
	}
	for _, ep := range s.Manager.Joined(rec.ID) {
		if !userDefined(ep.Name) {
			continue
		}
		if err := s.Manager.SetNames(rec.ID, ep.NetworkID, dnsNames(rec, ep.Name)); err != nil {
			s.Log.Warn("rename a container on its network", "container", rec.ID, "network", ep.Name, "error", err)
		}
	}
}

// Settle makes a living container's networks those that its record names: a connect
// or disconnect may have been cut short.
func (s *Set) Settle(ctx context.Context, rec *container.Record) {
	s.announced.Store(rec.ID, true) // by the engine that started it
	own, ok := s.Manager.Endpoint(rec.ID)
	if !ok {
		return
	}
	names := NamesOf(rec)
	if len(names) == 1 && len(s.Manager.Joined(rec.ID)) == 0 && own.Name == names[0] {
		return // nearly all of them
	}
	warn := func(err error) {
		if err != nil && !fault.Is(err, fault.Unavailable) { // it is ending
			s.Log.Warn("settle the networks of a container", "container", rec.ID, "error", err)
		}
	}
	for _, ep := range s.endpoints(rec) {
		if joins(ep.Name) && !slices.Contains(names, ep.Name) {
			warn(s.Manager.Leave(ctx, rec.ID, ep.NetworkID))
		}
	}
	warn(s.publish(ctx, rec))
	s.refresh(rec)
}

// Announce tells that a container which is being started is on its networks.
func (s *Set) Announce(rec *container.Record) {
	s.announced.Store(rec.ID, true)
	s.tellAll(events.ActionConnect, rec)
}

// Detach takes a container that has ended off its networks and frees its namespace.
func (s *Set) Detach(ctx context.Context, rec *container.Record) error {
	if _, ok := s.announced.LoadAndDelete(rec.ID); ok {
		s.tellAll(events.ActionDisconnect, rec)
	}
	if !rec.OwnsNetwork() {
		return nil
	}
	return s.Manager.Detach(ctx, rec.ID)
}

// tellAll publishes an event of each network that a container is on.
func (s *Set) tellAll(action events.Action, rec *container.Record) {
	for _, name := range NamesOf(rec) {
		if r, _ := s.find(name); r != nil {
			s.tell(action, r, rec.ID)
		}
	}
}

// addresses are a running container's on all of its networks.
func (s *Set) addresses(rec *container.Record, own *netroom.Endpoint) []netip.Addr {
	var out []netip.Addr
	if own != nil {
		out = append(out, own.IPv4.Addr(), own.IPv6.Addr())
	}
	for _, ep := range s.Manager.Joined(rec.ID) {
		out = append(out, ep.IPv4.Addr(), ep.IPv6.Addr())
	}
	return out
}

// Endpoint returns a container's place in its own network while it has one.
func (s *Set) Endpoint(rec *container.Record) *netroom.Endpoint {
	if !rec.State.Alive() || !rec.OwnsNetwork() {
		return nil
	}
	ep, _ := s.Manager.Endpoint(rec.ID)
	return ep
}

// endpoints are the places that a running container has on networks.
func (s *Set) endpoints(rec *container.Record) []*netroom.Endpoint {
	own := s.Endpoint(rec)
	if own == nil {
		return nil
	}
	return append(s.Manager.Joined(rec.ID), own)
}
