package networks

import (
	"cmp"
	"strconv"

	"berth/internal/container"
	netroom "berth/internal/network"

	"github.com/moby/moby/api/types/network"
)

// Of returns the container's place in its networks, by the networks' names.
func (s *Set) Of(rec *container.Record) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	for _, name := range NamesOf(rec) {
		ep := &network.EndpointSettings{}
		if want := rec.Networks[name]; want != nil {
			ep = Wished(want)
		}
		if userDefined(name) {
			ep.DNSNames = dnsNames(rec, name)
		}
		if userDefined(name) || !rec.State.StartedAt.IsZero() {
			ep.NetworkID = s.ID(name)
		}
		out[name] = ep
	}
	for _, ep := range s.endpoints(rec) {
		if shown := out[ep.Name]; shown != nil {
			fillEndpoint(shown, ep)
		}
	}
	return out
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

// members are the running containers on a network.
func (s *Set) members(name string) map[string]network.EndpointResource {
	members := map[string]network.EndpointResource{}
	for _, rec := range s.users(name) {
		m := network.EndpointResource{Name: rec.Name}
		for _, ep := range s.endpoints(rec) {
			if ep.Name == name {
				m.EndpointID, m.MacAddress = ep.EndpointID, network.HardwareAddr(ep.MAC)
				m.IPv4Address, m.IPv6Address = ep.IPv4, ep.IPv6
			}
		}
		members[rec.ID] = m
	}
	return members
}

// Ports returns what is published of a container now; exposed ports which are not
// have no bindings.
func (s *Set) Ports(rec *container.Record) network.PortMap {
	ports := network.PortMap{}
	if s.Endpoint(rec) == nil {
		return ports
	}
	for p := range rec.Config.ExposedPorts {
		ports[p] = nil
	}
	for _, b := range s.Manager.Ports(rec.ID) {
		p, ok := network.PortFrom(b.ContainerPort, network.IPProtocol(cmp.Or(b.Proto, "tcp")))
		if ok {
			ports[p] = append(ports[p], network.PortBinding{HostIP: b.HostIP, HostPort: strconv.Itoa(int(b.HostPort))})
		}
	}
	return ports
}
