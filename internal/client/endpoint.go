package client

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"berth/internal/fault"
)

// DefaultHost is where an engine listens unless told otherwise.
const DefaultHost = "unix:///run/berth/berth.sock"

// Endpoint is a parsed engine address.
type Endpoint struct {
	Scheme  string // "unix", "tcp" or "ssh"
	Address string // socket path, host:port, or the ssh destination's host
	User    string // ssh only
	Port    string // ssh only
	Path    string // ssh only: the remote engine's socket, "" for its default
}

// String returns the address in the form ParseEndpoint reads.
func (e Endpoint) String() string {
	switch e.Scheme {
	case "ssh":
		host := e.Address
		if e.User != "" {
			host = e.User + "@" + host
		}
		if e.Port != "" {
			host += ":" + e.Port
		}
		return "ssh://" + host + e.Path
	}
	return e.Scheme + "://" + e.Address
}

// ParseEndpoint reads unix://PATH, tcp://HOST[:PORT], http(s)://HOST[:PORT],
// ssh://[USER@]HOST[:PORT][/SOCKET] or an absolute socket path. secure selects
// the port of a tcp address that names none: 2376 with TLS, else 2375.
func ParseEndpoint(host string, secure bool) (Endpoint, error) {
	bad := func(why string) (Endpoint, error) {
		return Endpoint{}, fault.New(fault.Invalid, "engine address", host, "%s", why).
			WithHint("use unix:///path, tcp://host:port or ssh://user@host")
	}
	if strings.HasPrefix(host, "/") {
		return Endpoint{Scheme: "unix", Address: filepath.Clean(host)}, nil
	}
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok {
		return bad("has no scheme")
	}
	switch scheme {
	case "unix":
		if !strings.HasPrefix(rest, "/") {
			return bad("needs an absolute path")
		}
		return Endpoint{Scheme: "unix", Address: filepath.Clean(rest)}, nil
	case "tcp", "http", "https":
		return parseTCP(rest, secure || scheme == "https", bad)
	case "ssh":
		return parseSSH(host, bad)
	}
	return bad("has the unknown scheme " + scheme)
}

func parseTCP(rest string, secure bool, bad func(string) (Endpoint, error)) (Endpoint, error) {
	u, err := url.Parse("tcp://" + rest)
	if err != nil || u.User != nil {
		return bad("is not host:port")
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return bad("must not have a path")
	}
	name, port := u.Hostname(), u.Port()
	if name == "" {
		name = "127.0.0.1"
	}
	if port == "" {
		port = "2375"
		if secure {
			port = "2376"
		}
	}
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	return Endpoint{Scheme: "tcp", Address: name + ":" + port}, nil
}

func parseSSH(host string, bad func(string) (Endpoint, error)) (Endpoint, error) {
	u, err := url.Parse(host)
	if err != nil || u.Hostname() == "" {
		return bad("names no host")
	}
	if _, set := u.User.Password(); set {
		return bad("must not hold a password")
	}
	if strings.HasPrefix(u.Hostname(), "-") || strings.HasPrefix(u.User.Username(), "-") {
		return bad("starts with a dash") // ssh would take it for an option
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return bad("must not have a query")
	}
	path := u.Path
	if path == "/" {
		path = ""
	}
	return Endpoint{Scheme: "ssh", Address: u.Hostname(), User: u.User.Username(), Port: u.Port(), Path: path}, nil
}

// HostFromEnvironment returns the engine address of BERTH_HOST, else of
// DOCKER_HOST, else DefaultHost.
func HostFromEnvironment() string {
	for _, name := range []string{"BERTH_HOST", "DOCKER_HOST"} {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return DefaultHost
}
