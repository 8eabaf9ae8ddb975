// Package transfer moves images between registries and this machine. It exists
// so that everything that talks to a hostile network is in one room: what it
// hands on was measured, limited and verified against its digest, and what it
// is told in confidence goes to nobody else.
package transfer

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/content"
	"berth/internal/image"
	"berth/internal/layer"
)

// Config wires a Client.
type Config struct {
	Images     *image.Store
	Content    *content.Store
	Layers     *layer.Store
	Registries Registries // mirrors, certificates, headers
	Insecure   []string   // host[:port] of registries that may be spoken to without verified TLS; loopback always may
	Policy     Verifier   // which images may be pulled; nil: all
	// Local returns this engine's own registry when it serves at host, else
	// nil: what is pushed there is linked, not sent. It may be nil.
	Local func(host string) LocalRegistry
	// KeepBlobs keeps layers packed as they came or went, beside their trees: a
	// later push, save or build cache export needs not pack them again.
	KeepBlobs bool
	UserAgent string        // "" means "berth"
	Parallel  int           // layers at once over all pulls; 0 means 4
	Uploads   int           // layers at once over all pushes; 0 means as many as Parallel
	Stall     time.Duration // without a byte for so long a connection is given up and made anew, 0 means a minute
	Backoff   time.Duration // wait before the second attempt, doubled for each further one; 0 means 250 ms
}

// Client pulls and pushes images. It is safe for concurrent use; pulls share
// downloads.
type Client struct {
	c       Config
	slots   chan struct{} // downloads under way
	uploads chan struct{} // uploads under way

	leaseEvery time.Duration // a constant but for tests
	onLease    func()        // for tests: told of each lease; may be nil
	packs      atomic.Int64  // numbers what is packed

	mu         sync.Mutex // guards the maps
	plain      map[string]bool
	transports map[trust]*http.Transport
	flights    map[flightKey]*flight
}

// New returns a Client.
func New(c Config) *Client {
	if c.UserAgent == "" {
		c.UserAgent = "berth"
	}
	if c.Parallel <= 0 {
		c.Parallel = 4
	}
	if c.Uploads <= 0 {
		c.Uploads = c.Parallel
	}
	if c.Stall <= 0 {
		c.Stall = time.Minute
	}
	if c.Backoff <= 0 {
		c.Backoff = 250 * time.Millisecond
	}
	return &Client{
		c:          c,
		slots:      make(chan struct{}, c.Parallel),
		uploads:    make(chan struct{}, c.Uploads),
		leaseEvery: leaseEvery,
		plain:      map[string]bool{},
		transports: map[trust]*http.Transport{},
		flights:    map[flightKey]*flight{},
	}
}
