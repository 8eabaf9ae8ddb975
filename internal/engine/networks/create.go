package networks

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/network"
)

var networkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// newRecord turns a request into a record, and refuses by name what there is not.
func newRecord(req network.CreateRequest) (*record, error) {
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
	r := &record{Created: time.Now(), Labels: req.Labels, Options: req.Options, Attachable: req.Attachable}
	r.Name, r.Internal = req.Name, req.Internal
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

func (r *record) readIPAM(in *network.IPAM) error {
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
func (r *record) readOptions(opts map[string]string) error {
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
