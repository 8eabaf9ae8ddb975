package api

import (
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"sync"

	"berth/internal/fault"
)

// blobs are what builds have asked their clients for, by names that nobody
// guesses.
type blobs struct {
	mu sync.Mutex // guards by
	by map[string]wanted
}

// wanted is one that a build waits for, as long as ctx lasts.
type wanted struct {
	ctx  context.Context
	came chan<- *supply
}

// supply is a blob that a client sends. It is read in the request that it came
// with, which lasts until it is closed.
type supply struct {
	io.Reader
	done chan struct{}
	once sync.Once
}

// Close ends the request.
func (s *supply) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

// ask has the client told which blob is wanted, and waits until it comes.
func (b *blobs) ask(ctx context.Context, tell func(id string) error) (io.ReadCloser, error) {
	const op = "ask the client for a blob"
	id, came := rand.Text(), make(chan *supply)
	b.mu.Lock()
	if b.by == nil {
		b.by = map[string]wanted{}
	}
	b.by[id] = wanted{ctx, came}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.by, id)
		b.mu.Unlock()
	}()
	if err := tell(id); err != nil {
		return nil, fault.New(fault.Unavailable, op, "", "%w", err)
	}
	select {
	case s := <-came:
		if s == nil {
			return nil, fault.New(fault.NotFound, op, "", "it does not have it")
		}
		return s, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// supplyBlob is POST /berth/build/blob: the body is the blob that a BuildWanted
// event names, or with missing=1 there is none.
func supplyBlob(x *exchange) error {
	b := &x.api.blobs
	id := x.query("id")
	b.mu.Lock()
	w, ok := b.by[id]
	delete(b.by, id) // each is sent once
	b.mu.Unlock()
	if !ok {
		return fault.New(fault.NotFound, "find build", "", "no build waits for this blob")
	}
	s := &supply{Reader: x.r.Body, done: make(chan struct{})}
	if x.flag("missing") {
		s = nil
	}
	select {
	case w.came <- s:
	case <-w.ctx.Done():
		return fault.New(fault.Canceled, "read blob", "", "the build is over")
	}
	if s != nil {
		select {
		case <-s.done:
		case <-w.ctx.Done(): // reading fails from now on
		}
	}
	return x.done(http.StatusOK)
}
