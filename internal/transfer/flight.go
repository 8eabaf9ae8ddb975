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

	mu      sync.Mutex // guards waiters and the reports' order; taken after Puller.mu
	waiters map[*waiter]struct{}
	last    report
}

// flightKey tells downloads apart. Packings of one layer differ in the blob; a
// repository's blob may be readable to those who may read the repository only.
type flightKey struct {
	repository string
	blob       digest.Digest
	diffID     digest.Digest
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
// want the same share the work.
func (p *Puller) layer(ctx context.Context, s *session, d ocispec.Descriptor, diffID digest.Digest, show func(report)) error {
	key := flightKey{s.name.Name(), d.Digest, diffID}
	w := &waiter{show}
	p.mu.Lock()
	f := p.flights[key]
	if f == nil {
		flightCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{done: make(chan struct{}), cancel: cancel, waiters: map[*waiter]struct{}{}}
		p.flights[key] = f
		go p.fly(flightCtx, key, f, s, d, diffID)
	}
	f.mu.Lock()
	f.waiters[w] = struct{}{}
	if f.last.status != "" {
		show(f.last)
	}
	f.mu.Unlock()
	p.mu.Unlock()

	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		p.leave(key, f, w)
		return ctx.Err()
	}
}

// leave takes a waiter off a flight and ends it when that was the last.
func (p *Puller) leave(key flightKey, f *flight, w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiters, w)
	if len(f.waiters) == 0 {
		f.cancel()
		if p.flights[key] == f {
			delete(p.flights, key) // whoever comes now begins anew
		}
	}
}

// fly does the work of a flight.
func (p *Puller) fly(ctx context.Context, key flightKey, f *flight, s *session, d ocispec.Descriptor, diffID digest.Digest) {
	err := p.fetch(ctx, f, s, d, diffID)
	f.cancel()
	p.mu.Lock()
	if p.flights[key] == f {
		delete(p.flights, key)
	}
	p.mu.Unlock()
	f.err = err
	close(f.done)
}

// fetch streams a layer from the registry through the digest and the
// decompressor into its tree.
func (p *Puller) fetch(ctx context.Context, f *flight, s *session, d ocispec.Descriptor, diffID digest.Digest) error {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		f.show(report{status: "Waiting"})
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	blob := s.blob(ctx, d)
	defer blob.Close()
	counted := &countingReader{r: blob, f: f, total: d.Size}
	if _, err := p.c.Layers.Apply(ctx, diffID, counted); err != nil {
		return err
	}
	f.show(report{status: "Extracting", current: d.Size, total: d.Size})
	return nil
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
