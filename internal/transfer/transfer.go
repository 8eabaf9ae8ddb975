// Package transfer moves images between registries and this machine. It exists
// so that everything that talks to a hostile network is in one room: what it
// hands on was measured, limited and verified against its digest.
package transfer

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"berth/internal/content"
	"berth/internal/image"
	"berth/internal/layer"
)

// Config wires a Puller.
type Config struct {
	Images    *image.Store
	Content   *content.Store
	Layers    *layer.Store
	Insecure  []string      // host[:port] of registries that may be spoken to without verified TLS; loopback always may
	UserAgent string        // "" means "berth"
	Parallel  int           // layers at once over all pulls, 0 means 4
	Stall     time.Duration // without a byte for so long a connection is given up and made anew, 0 means a minute
	Backoff   time.Duration // wait before the second attempt, doubled for each further one; 0 means 250 ms
}

// Puller pulls images. It is safe for concurrent use; pulls share downloads.
type Puller struct {
	c        Config
	secure   *http.Client
	insecure *http.Client // accepts any certificate; only for registries where plain http is accepted too
	slots    chan struct{}

	mu      sync.Mutex // guards the maps
	plain   map[string]bool
	flights map[flightKey]*flight
}

// New returns a Puller.
func New(c Config) *Puller {
	if c.UserAgent == "" {
		c.UserAgent = "berth"
	}
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.Stall <= 0 {
		c.Stall = time.Minute
	}
	if c.Backoff <= 0 {
		c.Backoff = 250 * time.Millisecond
	}
	return &Puller{
		c:        c,
		secure:   newClient(&tls.Config{MinVersion: tls.VersionTLS12}, c.Stall, false),
		insecure: newClient(&tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}, c.Stall, true),
		slots:    make(chan struct{}, c.Parallel),
		plain:    map[string]bool{},
		flights:  map[flightKey]*flight{},
	}
}

func newClient(t *tls.Config, stall time.Duration, downgrade bool) *http.Client {
	return &http.Client{
		CheckRedirect: func(req *http.Request, via []*http.Request) error { return checkRedirect(req, via, downgrade) },
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:       t,
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: stall,
			IdleConnTimeout:       30 * time.Second,
			MaxIdleConnsPerHost:   8,
			ForceAttemptHTTP2:     true,
			DisableCompression:    true, // digests are of the bytes as they are stored
			ReadBufferSize:        64 << 10,
		},
	}
}
