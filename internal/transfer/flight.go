package transfer

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// flight is one download and unpacking of a layer, whoever waits for it. It
// ends early when nobody does any more.
type flight struct {
	done   chan struct{} // closed when err is set
	err    error
	cancel context.CancelFunc

	mu      sync.Mutex // guards waiters and the reports' order; taken after Client.mu
	waiters map[*waiter]struct{}
	last    report
}

// flightKey tells downloads apart: packings of one layer differ in the blob.
type flightKey struct {
	blob   digest.Digest
	diffID digest.Digest
}

type waiter struct{ show func(report) }

// report is how far a flight is.
type report struct {
	status  string
	current int64
	total   int64 // 0: the status says it all
}

const reportEvery = 100 * time.Millisecond

// layer brings one layer here and returns when it is there. Several pulls that
// want the same share the work, whatever repositories they pull from; when one
// that another has begun fails, it is tried with what this one may and knows.
func (c *Client) layer(ctx context.Context, s *session, d ocispec.Descriptor, diffID digest.Digest, show func(report)) error {
	for {
		f, w, own := c.board(ctx, s, d, diffID, show)
		select {
		case <-f.done:
			if f.err == nil || own || ctx.Err() != nil {
				return f.err
			}
		case <-ctx.Done():
			c.leave(f, w)
			return ctx.Err()
		}
	}
}

// board joins the flight to a layer or, when there is none, begins its own.
func (c *Client) board(ctx context.Context, s *session, d ocispec.Descriptor, diffID digest.Digest, show func(report)) (f *flight, w *waiter, own bool) {
	key := flightKey{d.Digest, diffID}
	w = &waiter{show}
	c.mu.Lock()
	defer c.mu.Unlock()
	f = c.flights[key]
	if f == nil {
		own = true
		flightCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{done: make(chan struct{}), cancel: cancel, waiters: map[*waiter]struct{}{}}
		c.flights[key] = f
		go c.fly(flightCtx, key, f, s, d, diffID)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiters[w] = struct{}{}
	if f.last.status != "" {
		show(f.last)
	}
	return f, w, own
}

// leave takes a waiter off a flight and ends it when that was the last. Who
// boards it then sees it fail, and begins anew when it has let go of everything.
func (c *Client) leave(f *flight, w *waiter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiters, w)
	if len(f.waiters) == 0 {
		f.cancel()
	}
}

// fly does the work of a flight.
func (c *Client) fly(ctx context.Context, key flightKey, f *flight, s *session, d ocispec.Descriptor, diffID digest.Digest) {
	err := c.fetch(ctx, f, s, d, diffID)
	f.cancel()
	c.mu.Lock()
	delete(c.flights, key)
	c.mu.Unlock()
	f.err = err
	close(f.done)
}

// takeSlot waits until one of the slots is free, and says so when it is not.
func takeSlot(ctx context.Context, slots chan struct{}, waiting func()) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	waiting()
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// show tells all waiters.
func (f *flight) show(r report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = r
	for w := range f.waiters {
		w.show(r)
	}
}

// countingReader reports what passes, not too often.
type countingReader struct {
	r     io.Reader
	f     *flight
	n     int64
	total int64
	shown time.Time
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	if now := time.Now(); now.Sub(c.shown) >= reportEvery {
		c.shown = now
		c.f.show(report{status: "Downloading", current: c.n, total: c.total})
	}
	if err == io.EOF {
		c.f.show(report{status: "Download complete"})
	}
	return n, err
}
