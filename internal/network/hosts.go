package network

import (
	"bytes"
	"net/netip"
	"os"
	"strings"

	"berth/internal/fault"
)

// HostsOptions describe a container's /etc/hosts.
type HostsOptions struct {
	Hostname, Domainname string
	// Addrs are the container's own; without any (network mode none) its name
	// gets no line.
	Addrs []netip.Addr
	// Extra are "NAME:IP" or "NAME=IP" entries (--add-host). The address
	// "host-gateway" means Gateways.
	Extra    []string
	Gateways []netip.Addr
	Others   []HostsEntry
	// HostPath, when set, is a file to start from instead of the built-in lines:
	// /etc/hosts for containers that share the host's network.
	HostPath string
	NoIPv6   bool // the container's namespace has no ::1
}

// HostsEntry is a line of such a file.
type HostsEntry struct {
	Addr  netip.Addr
	Names []string
}

const hostsLoopback6 = `::1	localhost ip6-localhost ip6-loopback
fe00::	ip6-localnet
ff00::	ip6-mcastprefix
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// Hosts builds the content of a container's /etc/hosts.
func Hosts(o HostsOptions) ([]byte, error) {
	var b bytes.Buffer
	if o.HostPath != "" {
		data, err := os.ReadFile(o.HostPath)
		if err != nil && !os.IsNotExist(err) {
			return nil, fault.New(fault.Internal, "read", o.HostPath, "%w", err)
		}
		b.Write(data)
		if n := len(data); n > 0 && data[n-1] != '\n' {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n")
		if !o.NoIPv6 {
			b.WriteString(hostsLoopback6)
		}
	}
	for _, e := range o.Extra {
		name, addrs, err := parseExtraHost(e, o.Gateways)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			b.WriteString(a + "\t" + name + "\n")
		}
	}
	for _, e := range o.Others {
		b.WriteString(e.Addr.String() + "\t" + strings.Join(e.Names, " ") + "\n")
	}
	if o.Hostname == "" {
		return b.Bytes(), nil
	}
	own := o.Hostname
	if o.Domainname != "" {
		own = o.Hostname + "." + o.Domainname + " " + o.Hostname
	} else if short, _, dotted := strings.Cut(o.Hostname, "."); dotted && short != "" {
		own += " " + short
	}
	if strings.ContainsAny(own, "\t\r\n\x00#") {
		return nil, fault.New(fault.Invalid, "use host name", own, "it contains characters that /etc/hosts cannot hold")
	}
	for _, a := range o.Addrs {
		if a.IsValid() {
			b.WriteString(a.String() + "\t" + own + "\n")
		}
	}
	return b.Bytes(), nil
}

// parseExtraHost splits at the first "=" or, without one, the first ":"; the
// address may stand in brackets.
func parseExtraHost(entry string, gateways []netip.Addr) (name string, addrs []string, err error) {
	const op = "add host"
	name, ip, ok := strings.Cut(entry, "=")
	if !ok {
		name, ip, ok = strings.Cut(entry, ":")
	}
	if !ok || name == "" || strings.ContainsAny(name, " \t\r\n\x00#") {
		return "", nil, fault.New(fault.Invalid, op, entry, "the form is NAME:IP")
	}
	if ip == "host-gateway" {
		for _, g := range gateways {
			if g.IsValid() {
				addrs = append(addrs, g.String())
			}
		}
		if len(addrs) == 0 {
			return "", nil, fault.New(fault.Invalid, op, entry, "this network has no gateway to the host")
		}
		return name, addrs, nil
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return "", nil, fault.New(fault.Invalid, op, entry, "%q is not an IP address", ip)
	}
	return name, []string{a.String()}, nil
}
