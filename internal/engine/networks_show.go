package engine

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"berth/internal/container"
	"berth/internal/engine/filter"
	"berth/internal/fault"
	netroom "berth/internal/network"

	"github.com/moby/moby/api/types/network"
)

// networksOf returns the container's place in its networks, by the networks' names.
func (e *Engine) networksOf(rec *container.Record) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	for _, name := range networkNames(rec) {
		s := e.wantedOf(rec, name)
		if userDefined(name) {
			s.DNSNames = dnsNames(rec, name)
		}
		if userDefined(name) || rec.State.Alive() {
			s.NetworkID = e.networkID(name)
		}
		out[name] = s
	}
	for _, ep := range e.endpoints(rec) {
		if s := out[ep.Name]; s != nil {
			fillEndpoint(s, ep)
		}
	}
	return out
}

// endpoints are the places that a running container has on networks.
func (e *Engine) endpoints(rec *container.Record) []*netroom.Endpoint {
	own := e.endpoint(rec)
	if own == nil {
		return nil
	}
	return append(e.network.Joined(rec.ID), own)
}

// wantedOf is what a record asks of a network.
func (e *Engine) wantedOf(rec *container.Record, name string) *network.EndpointSettings {
	s := &network.EndpointSettings{}
	if want := rec.Networks[name]; want != nil {
		s.IPAMConfig, s.Aliases, s.Links, s.MacAddress, s.GwPriority = want.IPAMConfig, want.Aliases, want.Links, want.MacAddress, want.GwPriority
	}
	return s
}

// fillEndpoint adds what a container has on a network now.
func fillEndpoint(s *network.EndpointSettings, ep *netroom.Endpoint) {
	s.EndpointID = ep.EndpointID
	s.MacAddress = network.HardwareAddr(ep.MAC)
	s.Gateway, s.IPv6Gateway = ep.Gateway4, ep.Gateway6
	if ep.IPv4.IsValid() {
		s.IPAddress, s.IPPrefixLen = ep.IPv4.Addr(), ep.IPv4.Bits()
	}
	if ep.IPv6.IsValid() {
		s.GlobalIPv6Address, s.GlobalIPv6PrefixLen = ep.IPv6.Addr(), ep.IPv6.Bits()
	}
}

// networkID returns the id of a network by its name, "" when there is none.
func (e *Engine) networkID(name string) string {
	switch name {
	case network.NetworkBridge, network.NetworkDefault:
		return e.network.Bridge().ID
	case network.NetworkHost:
		return netroom.HostNetworkID
	case network.NetworkNone:
		return netroom.NoneNetworkID
	}
	if r, _ := e.nets.find(name); r != nil {
		return r.ID
	}
	return ""
}

// NetworkList returns the networks that match.
func (e *Engine) NetworkList(_ context.Context, f filter.Set) ([]network.Summary, error) {
	if err := f.Check("dangling", "driver", "id", "label", "name", "scope", "type"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	out := []network.Summary{}
	for _, n := range e.allNetworks() {
		own := userDefined(n.Name)
		wrongType := f.Has("type") && !f["type"]["builtin"] && !own || f.Has("type") && !f["type"]["custom"] && own
		if f.Has("dangling") && dangling != (own && len(e.networkUsers(n.Name)) == 0) || wrongType || !f.Match("name", n.Name) || !f.Exact("driver", n.Driver) || !f.Exact("scope", n.Scope) ||
			!f.Labels("label", n.Labels) || !prefixOf(f, n.ID) {
			continue
		}
		out = append(out, network.Summary{Network: n})
	}
	return out, nil
}

func prefixOf(f filter.Set, id string) bool { return idMatches(f, id) }

// NetworkInspect tells about one network and who is in it.
func (e *Engine) NetworkInspect(_ context.Context, ref string) (network.Inspect, error) {
	if r, err := e.nets.find(ref); err != nil {
		return network.Inspect{}, err
	} else if r != nil {
		return network.Inspect{Network: r.describe(), Containers: e.membersOf(r.Name)}, nil
	}
	for _, n := range e.allNetworks() {
		if n.Name != ref && (len(ref) < 4 || !strings.HasPrefix(n.ID, ref)) {
			continue
		}
		return network.Inspect{Network: n, Containers: e.membersOf(n.Name)}, nil
	}
	return network.Inspect{}, fault.New(fault.NotFound, "", "", "network %s not found", ref)
}

func (e *Engine) membersOf(name string) map[string]network.EndpointResource {
	members := map[string]network.EndpointResource{}
	for _, c := range e.containers.All() {
		rec := c.Record()
		if !rec.State.Alive() || !slices.Contains(networkNames(rec), name) {
			continue
		}
		m := network.EndpointResource{Name: rec.Name}
		for _, ep := range e.endpoints(rec) {
			if ep.Name == name {
				m.EndpointID, m.MacAddress = ep.EndpointID, network.HardwareAddr(ep.MAC)
				m.IPv4Address, m.IPv6Address = ep.IPv4, ep.IPv6
			}
		}
		members[rec.ID] = m
	}
	return members
}

func (e *Engine) allNetworks() []network.Network {
	base := func(name, id, driver string) network.Network {
		return network.Network{
			Name: name, ID: id, Driver: driver, Scope: "local", EnableIPv4: true, Created: e.opened,
			IPAM:    network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
			Options: map[string]string{}, Labels: map[string]string{},
		}
	}
	info := e.network.Bridge()
	bridge := base(network.NetworkBridge, info.ID, "bridge")
	bridge.EnableIPv6 = info.IPv6
	bridge.IPAM.Config = append(bridge.IPAM.Config, network.IPAMConfig{Subnet: info.Subnet4, Gateway: info.Gateway4})
	if info.Subnet6.IsValid() {
		bridge.IPAM.Config = append(bridge.IPAM.Config, network.IPAMConfig{Subnet: info.Subnet6, Gateway: info.Gateway6})
	}
	bridge.Options = map[string]string{
		"com.docker.network.bridge.default_bridge":       "true",
		"com.docker.network.bridge.enable_icc":           "true",
		"com.docker.network.bridge.enable_ip_masquerade": "true",
		"com.docker.network.bridge.host_binding_ipv4":    "0.0.0.0",
		"com.docker.network.bridge.name":                 info.Bridge,
		"com.docker.network.driver.mtu":                  strconv.Itoa(info.MTU),
	}
	out := []network.Network{
		bridge,
		base(network.NetworkHost, netroom.HostNetworkID, "host"),
		base(network.NetworkNone, netroom.NoneNetworkID, "null"),
	}
	for _, r := range e.nets.all() {
		out = append(out, r.describe())
	}
	return out
}
