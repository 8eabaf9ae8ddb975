package networks

import (
	"maps"
	"slices"

	"berth/internal/container"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Wished keeps what a user may ask of an endpoint and drops what only the engine
// says about one.
func Wished(ep *network.EndpointSettings) *network.EndpointSettings {
	return &network.EndpointSettings{IPAMConfig: ep.IPAMConfig, Aliases: ep.Aliases, Links: ep.Links, MacAddress: ep.MacAddress, GwPriority: ep.GwPriority}
}

// NamesOf returns the networks that a container is on while it runs, by name: the
// first is the one that it was created on.
func NamesOf(rec *container.Record) []string {
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

// Resolve replaces ids in a new container's record by names, and refuses networks
// that there are not.
func (s *Set) Resolve(rec *container.Record) error {
	if err := s.resolveLinks(rec); err != nil {
		return err
	}
	mode := &rec.HostConfig.NetworkMode
	if mode.IsUserDefined() {
		r, err := s.named(string(*mode))
		if err != nil {
			return err
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
		r, err := s.named(name)
		if err != nil {
			return err
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

// named finds a network that a create names. That there is none is no
// fault.NotFound: docker's command line takes that for a missing image, and goes to
// fetch it.
func (s *Set) named(ref string) (*record, error) {
	r, err := s.find(ref)
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.Invalid, "", "", "network %s not found", ref)
	}
	return r, err
}

// checkWished refuses addresses that the network does not have.
func checkWished(r *record, ep *network.EndpointSettings) error {
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

// wishedOf judges what a container that is being connected asks of the network.
func wishedOf(r *record, in *network.EndpointSettings) (*network.EndpointSettings, error) {
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
	ep := Wished(in)
	return ep, checkWished(r, ep)
}

// mayConnect refuses, in docker's words, what doesn't go together.
func mayConnect(rec *container.Record, r *record) error {
	wrong := func(format string, args ...any) error { return fault.New(fault.Forbidden, "", "", format, args...) }
	on := NamesOf(rec)
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
