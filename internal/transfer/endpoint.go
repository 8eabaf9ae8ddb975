package transfer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/distribution/reference"

	"berth/internal/fault"
)

const (
	dockerHub     = "docker.io"
	dockerHubHost = "registry-1.docker.io"
)

// endpoint is a place where one session reaches its repository: the registry
// itself or one of its mirrors.
type endpoint struct {
	access   *Access
	mirror   *Mirror // nil for the registry itself
	base     string  // scheme://host[:port]
	host     string  // host[:port]
	path     string  // of the repository there
	registry string  // host part of the image's name
	client   *http.Client
	insecure bool // may be spoken to without verified TLS
	auth     authorizer

	// down is set when the place has failed and others may do better; guarded
	// by session.mu.
	down bool
}

// endpoints finds out where a repository is: mirrors first, the registry last.
func (c *Client) endpoints(ctx context.Context, name reference.Named, creds credentials, mirrors bool) ([]*endpoint, error) {
	host := reference.Domain(name)
	entry := c.c.Registries.lookup(host)
	var all []*endpoint
	for i := range entry.Mirrors {
		if !mirrors {
			break
		}
		m := &entry.Mirrors[i]
		e := &endpoint{access: &m.Access, mirror: m, base: m.base, host: m.host, registry: host,
			path: reference.Path(name), insecure: c.insecure(&m.Access, m.host)}
		if m.Prefix != "" {
			e.path = strings.ReplaceAll(m.Prefix, "{registry}", strings.ReplaceAll(host, ":", "-")) + "/" + e.path
		}
		e.auth.creds = credentials{user: m.Username, password: m.Password}
		all = append(all, e)
	}
	origin := &endpoint{access: &entry.Access, host: host, registry: host, path: reference.Path(name),
		insecure: entry.PlainHTTP || c.insecure(&entry.Access, host)}
	origin.auth.creds = creds
	if host == dockerHub {
		origin.host = dockerHubHost
	}
	origin.base = "https://" + origin.host
	if err := c.chooseScheme(ctx, origin); err != nil {
		return nil, err
	}
	all = append(all, origin)
	for _, e := range all {
		e.client = c.httpClient(e.access, e.base, e.host, e.insecure, true)
	}
	return all, nil
}

// chooseScheme finds out whether a registry has TLS where that may be missing.
func (c *Client) chooseScheme(ctx context.Context, e *endpoint) error {
	plain := e.access.PlainHTTP
	if !plain && e.insecure {
		var err error
		if plain, err = c.speaksPlain(ctx, e); err != nil {
			return err
		}
	}
	if plain {
		e.base = "http://" + e.host
	}
	return nil
}

// insecure reports whether a host may be spoken to without verified TLS. Who
// says which certificates are right wants them verified.
func (c *Client) insecure(a *Access, host string) bool {
	return a.Insecure || a.CA == "" && c.mayBeInsecure(host)
}

// mayBeInsecure reports whether a registry may be spoken to without verified
// TLS: one on this machine, or one that the configuration names.
func (c *Client) mayBeInsecure(hostport string) bool {
	host := bareHost(hostport)
	return slices.Contains(c.c.Insecure, hostport) || slices.Contains(c.c.Insecure, host) || isLoopback(host)
}

func bareHost(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return strings.Trim(hostport, "[]")
	}
	return host
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// speaksPlain finds out whether such a registry has no TLS, and remembers that.
func (c *Client) speaksPlain(ctx context.Context, e *endpoint) (bool, error) {
	c.mu.Lock()
	plain := c.plain[e.host]
	c.mu.Unlock()
	if plain {
		return true, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+e.host+"/v2/", nil)
	if err != nil {
		return false, fault.New(fault.Invalid, "find registry", e.host, "%w", err)
	}
	res, err := c.httpClient(e.access, "https://"+e.host, e.host, true, false).Do(req)
	if err == nil {
		res.Body.Close()
		return false, nil
	}
	var record tls.RecordHeaderError
	if !errors.As(err, &record) && !strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") &&
		!errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
		return false, networkError(ctx, "find registry", e.host, err)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		c.mu.Lock()
		c.plain[e.host] = true
		c.mu.Unlock()
	}
	return true, nil
}

// trust is what tells one transport from another.
type trust struct {
	roots    *x509.CertPool
	cert     *tls.Certificate // shown to whoever asks
	insecure bool             // takes any certificate
}

// transport returns the connections with that trust.
func (c *Client) transport(t trust) *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if tr := c.transports[t]; tr != nil {
		return tr
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.insecure, RootCAs: t.roots}
	if t.cert != nil {
		conf.Certificates = []tls.Certificate{*t.cert}
	}
	tr := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: c.c.Stall,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   8,
		DisableCompression:    true, // digests are of the bytes as they are stored
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       64 << 10,
	}
	c.transports[t] = tr
	return tr
}

// httpClient returns a client for one host. follow lets it follow redirects of
// requests without a body.
func (c *Client) httpClient(a *Access, base, host string, insecure, follow bool) *http.Client {
	return &http.Client{
		Transport: &homeTransport{
			base: base, headers: a.Headers,
			home:      c.transport(trust{a.roots, a.cert, insecure}),
			elsewhere: c.transport(trust{a.roots, nil, insecure}),
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if !follow || req.Method != http.MethodGet && req.Method != http.MethodHead || via[0].Method != req.Method {
				return http.ErrUseLastResponse
			}
			return checkRedirect(req, via, insecure)
		},
	}
}

// homeTransport keeps what is meant for one host from every other: whatever
// asks it to, credentials, configured headers and the client certificate stay
// at home.
type homeTransport struct {
	base            string // scheme://host[:port]
	headers         map[string]string
	home, elsewhere http.RoundTripper
}

// RoundTrip sends one request.
func (h *homeTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	if req.URL.Scheme+"://"+req.URL.Host != h.base {
		req.Header.Del("Authorization")
		return h.elsewhere.RoundTrip(req)
	}
	for k, v := range h.headers {
		if http.CanonicalHeaderKey(k) == "Authorization" && req.Header.Get(k) != "" {
			continue
		}
		req.Header.Set(k, v)
	}
	return h.home.RoundTrip(req)
}

// checkRedirect keeps credentials away from other hosts, also when one of those
// sends back to the first, and refuses to leave TLS.
func checkRedirect(req *http.Request, via []*http.Request, downgrade bool) error {
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	from := via[len(via)-1].URL
	if req.URL.Scheme != "https" && req.URL.Scheme != "http" {
		return fmt.Errorf("redirected to a %q URL", req.URL.Scheme)
	}
	if from.Scheme == "https" && req.URL.Scheme == "http" && !downgrade {
		return errors.New("redirected from https to http")
	}
	for _, r := range append(via, req) {
		if r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme {
			req.Header.Del("Authorization")
		}
	}
	return nil
}
