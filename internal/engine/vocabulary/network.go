package vocabulary

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/network"
)

// Publish asks for one port of the container to be reachable from outside.
type Publish struct {
	Port     network.Port
	HostIP   netip.Addr // zero means every address
	From, To uint16     // host ports to choose from; 0 means any free one
}

func checkPort(p network.Port) error {
	switch p.Proto() {
	case network.TCP, network.UDP:
		return nil
	case network.SCTP:
		return fault.New(fault.Unsupported, "", "", "port %s: the protocol sctp is not supported", p)
	}
	return invalid("invalid port %s: unknown protocol %q", p, p.Proto())
}

func checkPorts(r *Request) error {
	_, err := Ports(r)
	if err != nil {
		return err
	}
	mode := r.HostConfig.NetworkMode
	if len(r.HostConfig.PortBindings) > 0 && mode == network.NetworkHost {
		r.warn("Published ports are discarded when using host network mode")
	}
	if len(r.HostConfig.PortBindings) > 0 && mode.IsNone() {
		r.warn("Published ports are discarded when using network mode none")
	}
	return nil
}

// Ports returns what the request wants published, in order of the ports.
func Ports(r *Request) ([]Publish, error) {
	hc := r.HostConfig
	out := make([]Publish, 0, len(hc.PortBindings))
	for _, port := range slices.SortedFunc(maps.Keys(hc.PortBindings), comparePorts) {
		if err := checkPort(port); err != nil {
			return nil, err
		}
		if port.Num() == 0 {
			return nil, invalid("invalid port specification: %q", port)
		}
		for _, b := range hc.PortBindings[port] {
			from, to, err := hostPorts(b.HostPort)
			if err != nil {
				return nil, err
			}
			out = append(out, Publish{Port: port, HostIP: b.HostIP, From: from, To: to})
		}
	}
	if hc.PublishAllPorts {
		for _, port := range slices.SortedFunc(maps.Keys(r.Config.ExposedPorts), comparePorts) {
			if _, bound := hc.PortBindings[port]; !bound {
				out = append(out, Publish{Port: port})
			}
		}
	}
	return out, nil
}

func comparePorts(a, b network.Port) int {
	if a.Num() != b.Num() {
		return int(a.Num()) - int(b.Num())
	}
	return strings.Compare(string(a.Proto()), string(b.Proto()))
}

// hostPorts reads a host port or a range of them.
func hostPorts(s string) (from, to uint16, err error) {
	if s == "" {
		return 0, 0, nil
	}
	lo, hi, isRange := strings.Cut(s, "-")
	if !isRange {
		hi = lo
	}
	a, err1 := strconv.ParseUint(lo, 10, 16)
	b, err2 := strconv.ParseUint(hi, 10, 16)
	if err1 != nil || err2 != nil || a > b {
		return 0, 0, invalid("invalid port specification: %q", s)
	}
	return uint16(a), uint16(b), nil
}

func checkNetworkMode(r *Request) error {
	m := r.HostConfig.NetworkMode
	if m.IsContainer() {
		if m.ConnectedContainer() == "" {
			return invalid("invalid network mode: %q: a container must be named", m)
		}
		return r.checkSharedNetwork()
	}
	if len(m) > maxNetworkName {
		return invalid("the name of the network is too long")
	}
	return nil // whether there is such a network is known to the engine
}

const maxNetworkName = 255

// checkSharedNetwork refuses what makes no sense when another container owns the
// network.
func (r *Request) checkSharedNetwork() error {
	c, hc := r.Config, r.HostConfig
	conflict := func(what string) error { return invalid("conflicting options: %s", what) }
	switch {
	case c.Hostname != "":
		return conflict("hostname and the network mode")
	case len(hc.DNS) > 0 || len(hc.DNSSearch) > 0 || len(hc.DNSOptions) > 0:
		return conflict("dns and the network mode")
	case len(hc.ExtraHosts) > 0:
		return conflict("custom host-to-IP mapping and the network mode")
	case len(hc.PortBindings) > 0 || hc.PublishAllPorts:
		return conflict("port publishing and the container type network mode")
	}
	return nil
}

// checkEndpoints judges the settings of each network that the container joins.
func checkEndpoints(r *Request) error {
	mode := r.HostConfig.NetworkMode
	for name, ep := range r.Networking.EndpointsConfig {
		if name == network.NetworkDefault {
			name = network.NetworkBridge
		}
		alone := mode.IsContainer() || mode == network.NetworkHost || mode.IsNone()
		switch {
		case name == string(mode):
		case alone || name == network.NetworkHost || name == network.NetworkNone:
			return invalid("conflicting options: cannot attach both %s and %s", mode, name)
		}
		private := name != network.NetworkHost && name != network.NetworkNone
		if len(ep.Aliases) > 0 && (!private || name == network.NetworkBridge) {
			return invalid("network-scoped alias is supported only for containers in user defined networks")
		}
		if len(ep.MacAddress) > 0 {
			if !private {
				return invalid("conflicting options: mac-address and the network mode")
			}
			if len(ep.MacAddress) != 6 || ep.MacAddress[0]&1 != 0 {
				return invalid("invalid MAC address: %s", ep.MacAddress)
			}
		}
		ipam := ep.IPAMConfig
		if ipam == nil {
			continue
		}
		if !private && (ipam.IPv4Address.IsValid() || ipam.IPv6Address.IsValid()) {
			return invalid("conflicting options: an IP address and the network mode %s", name)
		}
		if a := ipam.IPv4Address; a.IsValid() && !a.Unmap().Is4() {
			return invalid("invalid IPv4 address: %s", a)
		}
		if a := ipam.IPv6Address; a.IsValid() && (!a.Is6() || a.Is4In6()) {
			return invalid("invalid IPv6 address: %s", a)
		}
	}
	return nil
}

// checkLinks judges the links of the network that a container is created on.
func checkLinks(r *Request) error {
	if len(r.HostConfig.Links) == 0 {
		return nil
	}
	switch m := r.HostConfig.NetworkMode; {
	case m.IsHost():
		return invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
	case m.IsContainer():
		return invalid("conflicting options: container type network can't be used with links. This would result in undefined behavior")
	case m.IsNone():
		return unsupported("HostConfig.Links on the network none", "")
	}
	return checkLinkNames(r.HostConfig.Links)
}

// Link splits a link that was checked into the container and the name for it. It also
// understands links as they are shown, /NAME:/SELF/ALIAS.
func Link(l string) (name, alias string) {
	name, alias, ok := strings.Cut(l, ":")
	name = strings.TrimPrefix(name, "/")
	if !ok {
		return name, name
	}
	return name, alias[strings.LastIndexByte(alias, '/')+1:]
}

func checkEndpointLinks(r *Request) error {
	for name, ep := range r.Networking.EndpointsConfig {
		if len(ep.Links) > 0 && (name == network.NetworkBridge || name == network.NetworkDefault || name == network.NetworkHost || name == network.NetworkNone) {
			return unsupported("EndpointSettings.Links on the network "+name, "use a network and container names")
		}
		if err := checkLinkNames(ep.Links); err != nil {
			return err
		}
	}
	return nil
}

func checkLinkNames(links []string) error {
	for _, l := range links {
		name, alias := Link(l)
		if name == "" || alias == "" || strings.ContainsAny(alias, ":=# \t\r\n\x00") {
			return invalid("bad format for links: %s", l)
		}
	}
	return nil
}

// refuseEndpoint makes the check of an endpoint's field that is not offered.
func refuseEndpoint(name, hint string) field {
	return field{name, refused, func(r *Request) error {
		for _, ep := range r.Networking.EndpointsConfig {
			set := false
			switch name {
			case "EndpointSettings.DriverOpts":
				set = len(ep.DriverOpts) > 0
			case "EndpointIPAMConfig.LinkLocalIPs":
				set = ep.IPAMConfig != nil && len(ep.IPAMConfig.LinkLocalIPs) > 0
			}
			if set {
				return unsupported(name, hint)
			}
		}
		return nil
	}}
}

func checkDNS(r *Request) error {
	for _, list := range [][]string{r.HostConfig.DNSOptions, r.HostConfig.DNSSearch} {
		for _, s := range list {
			if s == "" || strings.ContainsAny(s, " \t\n\x00") {
				return invalid("invalid DNS option or search domain: %q", s)
			}
		}
	}
	return nil
}

// HostGateway is the word in an extra host which stands for the host itself.
const HostGateway = "host-gateway"

// checkExtraHosts wants "name:address" with an IPv4, IPv6 or bracketed IPv6
// address, or host-gateway.
func checkExtraHosts(r *Request) error {
	for _, h := range r.HostConfig.ExtraHosts {
		if _, _, err := ExtraHost(h); err != nil {
			return err
		}
	}
	return nil
}

// ExtraHost splits an extra host at its first "=" or else ":". The address is
// "host-gateway" or valid.
func ExtraHost(s string) (name, addr string, err error) {
	name, addr, ok := strings.Cut(s, "=")
	if !ok {
		name, addr, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" || strings.ContainsAny(s, " \t\n\x00#") {
		return "", "", invalid("bad format for add-host: %q", s)
	}
	if addr == HostGateway {
		return name, addr, nil
	}
	addr = strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
	if _, err := netip.ParseAddr(addr); err != nil {
		return "", "", invalid("invalid IP address in add-host: %q", addr)
	}
	return name, addr, nil
}
