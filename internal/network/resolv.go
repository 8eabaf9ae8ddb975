package network

import (
	"bytes"
	"net/netip"
	"os"
	"strings"

	"berth/internal/fault"
)

// Where the host keeps its resolver settings. With systemd-resolved the first
// names only a local stub, and the second the servers behind it.
const (
	hostResolvConf    = "/etc/resolv.conf"
	systemdResolvConf = "/run/systemd/resolve/resolv.conf"
)

// defaultServers serve when the host names none that a container can reach, as
// other engines do.
var defaultServers = []string{"8.8.8.8", "8.8.4.4"}
var defaultServers6 = []string{"2001:4860:4860::8888", "2001:4860:4860::8844"}

// ResolvOptions are what a container wants of its resolver. Empty fields take
// the host's settings.
type ResolvOptions struct {
	HostPath string   // the host's file; empty means /etc/resolv.conf, or systemd-resolved's when that is a stub
	Servers  []string // --dns
	Search   []string // --dns-search; a single "." means none
	Options  []string // --dns-option
	IPv6     bool     // the container reaches IPv6 servers
	HostNet  bool     // the container shares the host's network: loopback servers work
}

// ResolvConf builds the content of a container's /etc/resolv.conf. Name servers
// on the host's loopback, or reachable through one of its links only, are left
// out, since they are others inside the container.
func ResolvConf(o ResolvOptions) ([]byte, error) {
	host, err := hostResolver(o)
	if err != nil {
		return nil, err
	}
	c := parseResolvConf(host)
	if len(o.Servers) > 0 {
		c.servers = nil
		for _, s := range o.Servers {
			if _, err := netip.ParseAddr(s); err != nil {
				return nil, fault.New(fault.Invalid, "use name server", s, "not an IP address")
			}
			c.servers = append(c.servers, s)
		}
	} else if !o.HostNet {
		c.servers = reachableServers(c.servers, o.IPv6)
		if len(c.servers) == 0 {
			c.servers = append(c.servers, defaultServers...)
			if o.IPv6 {
				c.servers = append(c.servers, defaultServers6...)
			}
		}
	}
	if len(o.Search) > 0 {
		if c.search = o.Search; len(o.Search) == 1 && o.Search[0] == "." {
			c.search = nil
		}
	}
	if len(o.Options) > 0 {
		c.options = o.Options
	}
	return c.format()
}

// Upstream returns the name servers that answer what a network's own name service
// does not know: those a container asks for, or the host's. They are asked from
// the host, so that one on its loopback will do.
func Upstream(servers []string) ([]string, error) {
	if len(servers) > 0 {
		for _, s := range servers {
			if _, err := netip.ParseAddr(s); err != nil {
				return nil, fault.New(fault.Invalid, "use name server", s, "not an IP address")
			}
		}
		return servers, nil
	}
	host, err := hostResolver(ResolvOptions{HostNet: true})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range parseResolvConf(host).servers {
		if _, err := netip.ParseAddr(s); err == nil {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		out = defaultServers
	}
	return out, nil
}

// hostResolver reads the host's settings; no file means no settings.
func hostResolver(o ResolvOptions) ([]byte, error) {
	path := o.HostPath
	if path == "" {
		path = hostResolvConf
	}
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return nil, fault.New(fault.Internal, "read", path, "%w", err)
	}
	if o.HostPath != "" || o.HostNet {
		return data, nil
	}
	if s := parseResolvConf(data).servers; len(s) == 1 && s[0] == "127.0.0.53" {
		if behind, err := os.ReadFile(systemdResolvConf); err == nil {
			return behind, nil
		}
	}
	return data, nil
}

// resolver is the meaning of a resolv.conf. Lines that are none of the three
// are kept as they are.
type resolver struct {
	servers, search, options []string
	other                    []string
}

func parseResolvConf(data []byte) resolver {
	var r resolver
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		fields := strings.Fields(line)
		switch fields[0] {
		case "nameserver":
			if len(fields) > 1 {
				r.servers = append(r.servers, fields[1])
			}
		case "search", "domain": // the last one counts
			r.search = fields[1:]
		case "options":
			r.options = append(r.options, fields[1:]...)
		default:
			r.other = append(r.other, line)
		}
	}
	return r
}

func reachableServers(list []string, ipv6 bool) []string {
	var out []string
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsLoopback() || a.IsUnspecified() || a.Zone() != "" || a.IsLinkLocalUnicast() && a.Is6() || a.Is6() && !ipv6 {
			continue
		}
		out = append(out, s)
	}
	return out
}

func (r resolver) format() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# Made by Berth for this container. Changes last until it is started anew.\n")
	for _, s := range r.servers {
		b.WriteString("nameserver " + s + "\n")
	}
	for _, line := range []struct {
		word string
		list []string
	}{{"search", r.search}, {"options", r.options}} {
		if len(line.list) == 0 {
			continue
		}
		for _, v := range line.list {
			if v == "" || strings.ContainsAny(v, " \t\r\n\x00") {
				return nil, fault.New(fault.Invalid, "use resolver "+line.word, v, "it contains blanks or is empty")
			}
		}
		b.WriteString(line.word + " " + strings.Join(line.list, " ") + "\n")
	}
	for _, o := range r.other {
		b.WriteString(o + "\n")
	}
	return b.Bytes(), nil
}
