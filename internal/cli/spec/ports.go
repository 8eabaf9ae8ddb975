package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"berth/internal/client"
)

// maxPorts bounds how many ports one range may name; more is a typing error.
const maxPorts = 65535

// portRange is an inclusive range of port numbers; first is 0 when the range is
// absent.
type portRange struct{ first, last uint16 }

func (r portRange) length() int { return int(r.last) - int(r.first) + 1 }

func (r portRange) String() string {
	if r.first == r.last {
		return strconv.Itoa(int(r.first))
	}
	return fmt.Sprintf("%d-%d", r.first, r.last)
}

func parsePortRange(text string) (portRange, error) {
	first, last, isRange := strings.Cut(text, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return portRange{}, fmt.Errorf("%q is not a port", first)
	}
	b := a
	if isRange {
		if b, err = strconv.ParseUint(last, 10, 16); err != nil {
			return portRange{}, fmt.Errorf("%q is not a port", last)
		}
	}
	if b < a {
		return portRange{}, fmt.Errorf("the range %q runs backwards", text)
	}
	return portRange{uint16(a), uint16(b)}, nil
}

func cutProtocol(text string) (ports, protocol string, err error) {
	ports, protocol, given := strings.Cut(text, "/")
	if !given {
		return ports, "tcp", nil
	}
	protocol = strings.ToLower(protocol)
	switch protocol {
	case "tcp", "udp", "sctp":
		return ports, protocol, nil
	}
	return "", "", fmt.Errorf("unknown protocol %q: use tcp, udp or sctp", protocol)
}

// publishing is the ports part of a request under construction.
type publishing struct {
	exposed  map[string]struct{}
	bindings map[string][]client.PortBinding
}

// publish adds one --publish argument: [[IP:][HOST[-END]]:]PORT[-END][/PROTO],
// an IPv6 address in brackets, or published=..,target=.. in CSV.
func (p *publishing) publish(text string) error {
	short := text
	if strings.Contains(text, "=") {
		var err error
		if short, err = shortForm(text); err != nil {
			return fmt.Errorf("--publish %q: %w", text, err)
		}
	}
	if err := p.add(short); err != nil {
		return fmt.Errorf("--publish %q: %w", text, err)
	}
	return nil
}

func (p *publishing) add(text string) error {
	rest, protocol, err := cutProtocol(text)
	if err != nil {
		return err
	}
	host, hostPorts, containerPorts, err := splitPublish(rest)
	if err != nil {
		return err
	}
	inside, err := parsePortRange(containerPorts)
	if err != nil {
		return err
	}
	if inside.first == 0 {
		return errors.New("port 0 cannot be published")
	}
	var outside portRange
	if hostPorts != "" {
		if outside, err = parsePortRange(hostPorts); err != nil {
			return err
		}
		if outside.first == 0 && outside.last != 0 {
			return fmt.Errorf("the range %q begins at port 0", hostPorts)
		}
	}
	oneOf := outside.first != 0 && inside.length() == 1 && outside.length() > 1
	if outside.first != 0 && !oneOf && outside.length() != inside.length() {
		return fmt.Errorf("the ranges %s and %s differ in length", outside, inside)
	}
	for i := range inside.length() {
		binding := client.PortBinding{HostIP: host}
		switch {
		case oneOf:
			binding.HostPort = outside.String()
		case outside.first != 0:
			binding.HostPort = strconv.Itoa(int(outside.first) + i)
		}
		name := strconv.Itoa(int(inside.first)+i) + "/" + protocol
		p.expose(name)
		p.bindings[name] = append(p.bindings[name], binding)
	}
	return nil
}

func (p *publishing) expose(name string) {
	if p.exposed == nil {
		p.exposed = map[string]struct{}{}
	}
	if p.bindings == nil {
		p.bindings = map[string][]client.PortBinding{}
	}
	p.exposed[name] = struct{}{}
}

// splitPublish splits at the colons outside of brackets.
func splitPublish(text string) (host, hostPorts, containerPorts string, err error) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		address, rest, closed := strings.Cut(inner, "]")
		ports, colon := strings.CutPrefix(rest, ":")
		if !closed || !colon {
			return "", "", "", errors.New("an IPv6 address needs [ADDRESS]:HOST:PORT")
		}
		host, text = address, ports
		if !strings.Contains(text, ":") {
			return "", "", "", errors.New("an address needs a host port, if only an empty one: ADDRESS::PORT")
		}
	}
	parts := strings.Split(text, ":")
	containerPorts = parts[len(parts)-1]
	if containerPorts == "" {
		return "", "", "", errors.New("the container's port is missing")
	}
	switch {
	case len(parts) == 2:
		hostPorts = parts[0]
	case len(parts) == 3 && host == "":
		host, hostPorts = parts[0], parts[1]
	case len(parts) > 1 || host != "":
		return "", "", "", errors.New("too many colons; put an IPv6 address in brackets")
	}
	if host != "" {
		address, err := netip.ParseAddr(host)
		if err != nil {
			return "", "", "", fmt.Errorf("%q is not an IP address", host)
		}
		host = address.String()
	}
	return host, hostPorts, containerPorts, nil
}

// shortForm turns published=8080,target=80,protocol=udp into 8080:80/udp.
func shortForm(text string) (string, error) {
	var published, target, protocol string
	for field := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		switch name {
		case "published":
			published = value
		case "target":
			target = value
		case "protocol":
			protocol = "/" + value
		case "mode", "app_protocol", "name":
		default:
			return "", fmt.Errorf("unknown field %q: use published, target and protocol", name)
		}
	}
	if target == "" {
		return "", errors.New("the field target is missing")
	}
	if published == "" {
		return target + protocol, nil
	}
	return published + ":" + target + protocol, nil
}

// exposeFlag adds one --expose argument: PORT[-END][/PROTO].
func (p *publishing) exposeFlag(text string) error {
	ports, protocol, err := cutProtocol(text)
	if err == nil && strings.Contains(ports, ":") {
		err = errors.New("it takes a container's port only; --publish takes both")
	}
	var r portRange
	if err == nil {
		r, err = parsePortRange(ports)
	}
	if err == nil && (r.first == 0 || r.length() > maxPorts) {
		err = errors.New("port 0 cannot be exposed")
	}
	if err != nil {
		return fmt.Errorf("--expose %q: %w", text, err)
	}
	for i := range r.length() {
		p.expose(strconv.Itoa(int(r.first)+i) + "/" + protocol)
	}
	return nil
}
