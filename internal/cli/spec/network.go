package spec

import (
	"encoding/csv"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"berth/internal/client"
)

// networks fills the request's network mode and, where an address, a name or a
// second network is wanted, the settings of each network.
func (f *Flags) networks(host *client.HostConfig) (*client.NetworkingConfig, error) {
	endpoints := map[string]*client.EndpointSettings{}
	names := make([]string, 0, len(f.Network))
	plain := true
	for _, text := range f.Network {
		name, settings, err := parseNetwork(text)
		if err != nil {
			return nil, fmt.Errorf("--network %q: %w", text, err)
		}
		if _, twice := endpoints[name]; twice {
			return nil, fmt.Errorf("--network %q: the network is named twice", name)
		}
		plain = plain && settings == nil
		if settings == nil {
			settings = &client.EndpointSettings{}
		}
		endpoints[name] = settings
		names = append(names, name)
	}
	if err := checkNetworks(names); err != nil {
		return nil, err
	}
	first := "default"
	if len(names) > 0 {
		first = names[0]
		host.NetworkMode = first
	}
	host.Links = f.Link
	if !f.hasEndpointFlags() {
		if plain && len(names) < 2 {
			return nil, nil
		}
		return &client.NetworkingConfig{EndpointsConfig: endpoints}, nil
	}
	if endpoints[first] == nil {
		endpoints[first] = &client.EndpointSettings{}
	}
	if err := f.endpointFlags(endpoints[first]); err != nil {
		return nil, err
	}
	return &client.NetworkingConfig{EndpointsConfig: endpoints}, nil
}

func (f *Flags) hasEndpointFlags() bool {
	return len(f.NetworkAlias) > 0 || f.IP != "" || f.IP6 != "" || f.MAC != "" || len(f.LinkLocalIP) > 0
}

func checkNetworks(names []string) error {
	for _, name := range names {
		if len(names) > 1 && (name == "host" || name == "none" || strings.HasPrefix(name, "container:")) {
			return fmt.Errorf("--network %s cannot be combined with another network", name)
		}
	}
	return nil
}

func (f *Flags) endpointFlags(e *client.EndpointSettings) error {
	e.Aliases = append(e.Aliases, f.NetworkAlias...)
	for _, part := range []struct{ flag, value string }{{"ip", f.IP}, {"ip6", f.IP6}, {"mac-address", f.MAC}} {
		if part.value == "" {
			continue
		}
		if err := setEndpoint(e, part.flag, part.value); err != nil {
			return fmt.Errorf("--%s: %w", part.flag, err)
		}
	}
	for _, address := range f.LinkLocalIP {
		if err := setEndpoint(e, "link-local-ip", address); err != nil {
			return fmt.Errorf("--link-local-ip: %w", err)
		}
	}
	return nil
}

// parseNetwork reads NAME, or name=NAME,alias=..,ip=.. in CSV.
func parseNetwork(text string) (string, *client.EndpointSettings, error) {
	if text == "" {
		return "", nil, fmt.Errorf("the name is missing")
	}
	if !strings.Contains(text, "=") {
		return text, nil, nil
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return "", nil, fmt.Errorf("not comma-separated NAME=VALUE")
	}
	var name string
	settings := &client.EndpointSettings{}
	for _, field := range fields {
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok {
			return "", nil, fmt.Errorf("%q is not NAME=VALUE", field)
		}
		if key == "name" {
			name = value
		} else if err := setEndpoint(settings, key, value); err != nil {
			return "", nil, err
		}
	}
	if name == "" {
		return "", nil, fmt.Errorf("the field name is missing")
	}
	return name, settings, nil
}

func setEndpoint(e *client.EndpointSettings, key, value string) error {
	switch key {
	case "alias":
		e.Aliases = append(e.Aliases, value)
	case "ip", "ip6", "link-local-ip":
		return setAddress(e, key, value)
	case "mac-address":
		if _, err := net.ParseMAC(value); err != nil {
			return fmt.Errorf("%q is not a hardware address", value)
		}
		e.MacAddress = value
	case "driver-opt":
		setPair(&e.DriverOpts, value)
	case "gw-priority":
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("gw-priority %q is not a number", value)
		}
		e.GwPriority = n
	default:
		return fmt.Errorf("unknown field %q: use name, alias, ip, ip6, mac-address, driver-opt or gw-priority", key)
	}
	return nil
}

func setAddress(e *client.EndpointSettings, key, value string) error {
	address, err := netip.ParseAddr(value)
	if err != nil || key == "ip" && !address.Is4() || key == "ip6" && !address.Is6() {
		return fmt.Errorf("%q is not an address for %s", value, key)
	}
	if e.IPAMConfig == nil {
		e.IPAMConfig = &client.IPAMConfig{}
	}
	switch key {
	case "ip":
		e.IPAMConfig.IPv4Address = address.String()
	case "ip6":
		e.IPAMConfig.IPv6Address = address.String()
	default:
		e.IPAMConfig.LinkLocalIPs = append(e.IPAMConfig.LinkLocalIPs, address.String())
	}
	return nil
}

// extraHosts reads --add-host: NAME:ADDRESS or NAME=ADDRESS.
func extraHosts(args []string) ([]string, error) {
	var out []string
	for _, text := range args {
		name, address, ok := strings.Cut(text, "=")
		if !ok {
			name, address, ok = strings.Cut(text, ":")
		}
		address = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
		if !ok || name == "" {
			return nil, fmt.Errorf("--add-host %q is not NAME:ADDRESS", text)
		}
		if _, err := netip.ParseAddr(address); err != nil && address != "host-gateway" {
			return nil, fmt.Errorf("--add-host %q: %q is neither an IP address nor host-gateway", text, address)
		}
		out = append(out, name+":"+address)
	}
	return out, nil
}

func nameServers(args []string) ([]string, error) {
	for _, text := range args {
		if _, err := netip.ParseAddr(text); err != nil {
			return nil, fmt.Errorf("--dns %q is not an IP address", text)
		}
	}
	return args, nil
}
