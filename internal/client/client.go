// Package client speaks the Docker Engine HTTP API to berthd or to any engine
// compatible with it. It exists beside the field's own client library because a
// command line is judged by what happens before its first request: that library
// (and net/http, and the API's own type packages, which compile regular
// expressions while they load) touches more memory at start than a whole
// container needs. Here are a small HTTP/1.1 writer and reader and plain
// structures for what goes over the wire; a test holds the structures against
// the published API types field by field.
package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"berth/internal/fault"
	"berth/internal/version"
)

// dialTimeout bounds the connection to an engine on another machine.
const dialTimeout = 30 * time.Second

// Options says where the engine is and how to reach it.
type Options struct {
	Host string      // "" means HostFromEnvironment
	TLS  *TLSOptions // nil means plain
	// Starter is run when a unix socket has no listener; nil means never.
	Starter func(ctx context.Context, socket string) error
}

// Client talks to one engine. It is safe for concurrent use.
type Client struct {
	endpoint Endpoint
	tls      *tls.Config
	starter  func(ctx context.Context, socket string) error

	mu   sync.Mutex // guards idle
	idle []*conn    // connections between two requests, newest last
}

// New returns a client; it does not connect yet.
func New(o Options) (*Client, error) {
	if o.Host == "" {
		o.Host = HostFromEnvironment()
	}
	endpoint, err := ParseEndpoint(o.Host, o.TLS != nil)
	if err != nil {
		return nil, err
	}
	c := &Client{endpoint: endpoint, starter: o.Starter}
	if o.TLS != nil && endpoint.Scheme == "tcp" {
		if c.tls, err = o.TLS.config(endpoint.Address); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Endpoint returns the engine's address.
func (c *Client) Endpoint() Endpoint { return c.endpoint }

// Close drops the connections that are not in use.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.idle {
		_ = conn.Close()
	}
	c.idle = nil
}

// Dial opens a raw connection to the engine, starting one if the client may.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	switch c.endpoint.Scheme {
	case "unix":
		return c.dialUnix(ctx)
	case "ssh":
		return dialSSH(c.endpoint)
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	raw, err := dialer.DialContext(ctx, "tcp", c.endpoint.Address)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if c.tls == nil {
		return raw, nil
	}
	secure := tls.Client(raw, c.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, c.unreachable(err)
	}
	return secure, nil
}

func (c *Client) dialUnix(ctx context.Context) (net.Conn, error) {
	address := &net.UnixAddr{Name: c.endpoint.Address, Net: "unix"}
	raw, err := net.DialUnix("unix", nil, address)
	if err == nil {
		return raw, nil
	}
	if c.starter == nil || !nobodyListens(err) {
		return nil, c.unreachable(err)
	}
	if err := c.starter(ctx, c.endpoint.Address); err != nil {
		return nil, err
	}
	if raw, err = net.DialUnix("unix", nil, address); err != nil {
		return nil, c.unreachable(err)
	}
	return raw, nil
}

// nobodyListens reports whether a dial failed because there is no listener, as
// opposed to one that may not be spoken to.
func nobodyListens(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED)
}

func (c *Client) unreachable(err error) error {
	var opErr *net.OpError
	if errors.As(err, &opErr) {
		err = opErr.Err // the address is said already
		var sysErr *os.SyscallError
		if errors.As(err, &sysErr) {
			err = sysErr.Err
		}
	}
	f := fault.New(fault.Unavailable, "cannot reach the engine at", c.endpoint.String(), "%w", err)
	switch {
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return f.WithHint("join the group that owns the socket, or become root")
	case nobodyListens(err) && c.endpoint.Scheme == "unix":
		return f.WithHint("no engine runs there: start berthd, or leave out --no-start")
	}
	return f
}

func userAgent() string { return "Berth-Client/" + version.String() + " (linux)" }
