package networks

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
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
	case "ipvlan", "macvlan", "overlay":
		return nil, refused("network driver " + strconv.Quote(req.Driver))
	default:
		return nil, fault.New(fault.NotFound, "", "", "plugin %q not found", req.Driver)
	}
	switch {
	case req.Scope == "swarm" || req.Ingress:
		return nil, fault.New(fault.Unavailable, "", "", "This node is not a swarm manager: networks have the scope local")
	case req.Scope != "" && req.Scope != "local":
		return nil, wrong("invalid scope %q: networks have the scope local", req.Scope)
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

// readIPAM reads which addresses a network has: one subnet of each family, as docker's
// bridges have. What is wrong is told all at once, in docker's words.
func (r *record) readIPAM(in *network.IPAM) error {
	switch in.Driver {
	case "", "default":
	case "null":
		return fault.New(fault.Unsupported, "", "", "IPAM driver %q: not offered by this engine", in.Driver)
	default:
		return fault.New(fault.NotFound, "", "", "plugin %q not found", in.Driver)
	}
	for k := range in.Options {
		return fault.New(fault.Unsupported, "", "", "IPAM option %q: not offered by this engine", k)
	}
	var wrong []string
	for _, c := range in.Config {
		if !c.Subnet.IsValid() {
			if c.Gateway.IsValid() || c.IPRange.IsValid() || len(c.AuxAddress) > 0 {
				wrong = append(wrong, "invalid subnet : a gateway, range or auxiliary address needs one")
			}
			continue
		}
		wrong = append(wrong, checkIPAM(c)...)
		family, subnet, part, gateway := 0, &r.Subnet4, &r.Range4, &r.Gateway4
		if c.Subnet.Addr().Is6() {
			family, subnet, part, gateway = 1, &r.Subnet6, &r.Range6, &r.Gateway6
		}
		if subnet.IsValid() {
			return fault.New(fault.Forbidden, "", "", "bridge driver doesn't support multiple subnets")
		}
		*subnet, *part, *gateway = c.Subnet, c.IPRange, c.Gateway
		for name, a := range c.AuxAddress {
			if r.Aux[family] == nil {
				r.Aux[family] = make(map[string]string)
			}
			r.Aux[family][name] = a.String()
			r.Reserved = append(r.Reserved, a)
		}
	}
	if len(wrong) > 0 {
		return fault.New(fault.Invalid, "", "", "invalid network config:\n%s", strings.Join(wrong, "\n"))
	}
	return nil
}

// checkIPAM says what is wrong with the addresses of one subnet.
func checkIPAM(c network.IPAMConfig) (wrong []string) {
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	family := map[bool]string{false: "IPv4", true: "IPv6"}[c.Subnet.Addr().Is6()]
	if c.Subnet != c.Subnet.Masked() {
		add("invalid subnet %s: it should be %s", c.Subnet, c.Subnet.Masked())
	}
	address := func(what string, a netip.Addr) {
		switch {
		case a.Is6() != c.Subnet.Addr().Is6():
			add("invalid %s: parent subnet is an %s block", what, family)
		case !c.Subnet.Contains(a):
			add("invalid %s: parent subnet %s doesn't contain this address", what, c.Subnet)
		}
	}
	if r := c.IPRange; r.IsValid() {
		switch {
		case r.Addr().Is6() != c.Subnet.Addr().Is6():
			add("invalid ip-range %s: parent subnet is an %s block", r, family)
		case r.Bits() < c.Subnet.Bits():
			add("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", r, c.Subnet)
		case r != r.Masked():
			add("invalid ip-range %s: it should be %s", r, r.Masked())
		case !c.Subnet.Overlaps(r):
			add("invalid ip-range %s: parent subnet %s doesn't contain ip-range", r, c.Subnet)
		}
	}
	taken := map[netip.Addr]bool{}
	if c.Gateway.IsValid() {
		address("gateway "+c.Gateway.String(), c.Gateway)
		taken[c.Gateway] = true
	}
	for _, name := range slices.Sorted(maps.Keys(c.AuxAddress)) {
		a := c.AuxAddress[name]
		address("auxiliary address "+name, a)
		if taken[a] {
			add("invalid auxiliary address %s: %s is in use already", name, a)
		}
		taken[a] = true
	}
	return wrong
}

// readOptions reads docker's options of bridge networks.
func (r *record) readOptions(opts map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		value := opts[key]
		var err error
		switch key {
		case "com.docker.network.bridge.name":
			r.Bridge = value
		case "com.docker.network.bridge.enable_icc":
			r.Isolated, err = disabled(value)
		case "com.docker.network.bridge.enable_ip_masquerade":
			r.NoMasq, err = disabled(value)
		case "com.docker.network.bridge.host_binding_ipv4":
			r.HostIP, err = netip.ParseAddr(value)
		case "com.docker.network.container_iface_prefix":
			r.Inside = value
		case "com.docker.network.driver.mtu", "mtu":
			r.MTU, err = strconv.Atoi(value)
			if r.MTU < 68 || r.MTU > 65535 {
				err = strconv.ErrRange
			}
		case "com.docker.network.enable_ipv6":
			var off bool
			off, err = disabled(value)
			r.IPv6 = r.IPv6 || !off
		default:
			return fault.New(fault.Unsupported, "", "", "network option %s: not offered by this engine", key)
		}
		if err != nil {
			return fault.New(fault.Invalid, "", "", "failed to parse %s value: %s", key, value)
		}
	}
	return nil
}

// disabled reads a switch and tells whether it is off.
func disabled(value string) (bool, error) {
	on, err := strconv.ParseBool(value)
	return !on, err
}
