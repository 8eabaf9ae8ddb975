package solve

import (
	"context"
	"sync"
)

// flight is a step that runs, for one build or for several that need it at the
// same time.
type flight struct {
	done   chan struct{}
	cancel context.CancelFunc
	record *Record // set before done is closed
	err    error   // set before done is closed

	mu      sync.Mutex // guards what follows
	waiters int
	events  []Event // so far, for who comes later
	size    int     // bytes in events
	readers map[int]func(Event)
	next    int
}

// maxReplay bounds what a build gets of the output before it joined.
const maxReplay = 1 << 20

// emit hands an event to everybody who waits.
func (f *flight) emit(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size+len(e.Data) <= maxReplay {
		f.events = append(f.events, e)
		f.size += len(e.Data) + 64
	}
	for _, fn := range f.readers {
		fn(e)
	}
}

// join adds a waiter; leave ends that.
func (f *flight) join(fn func(Event)) (leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		fn(e)
	}
	id := f.next
	f.next++
	f.waiters++
	f.readers[id] = fn
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if _, ok := f.readers[id]; !ok {
			return
		}
		delete(f.readers, id)
		if f.waiters--; f.waiters == 0 {
			f.cancel()
		}
	}
}

// fly runs work for key, or waits for the one that runs already. shared tells
// that it was another's. With own, work runs under ctx alone and ends with it;
// otherwise it goes on as long as any build waits.
func (s *Solver) fly(ctx context.Context, key string, own bool, progress func(Event), work func(context.Context, func(Event)) (*Record, error)) (r *Record, shared bool, err error) {
	for try := 0; ; try++ {
		s.mu.Lock()
		f := s.flights[key]
		lead := f == nil
		if lead {
			fctx := ctx
			if !own {
				fctx = context.WithoutCancel(ctx)
			}
			f = &flight{done: make(chan struct{}), readers: map[int]func(Event){}}
			fctx, f.cancel = context.WithCancel(fctx)
			s.flights[key] = f
			go func() {
				f.record, f.err = work(fctx, f.emit)
				s.mu.Lock()
				delete(s.flights, key)
				s.mu.Unlock()
				f.cancel()
				close(f.done)
			}()
		}
		s.mu.Unlock()
		leave := f.join(progress)
		select {
		case <-f.done:
			leave()
		case <-ctx.Done():
			leave()
			if own && lead {
				<-f.done // it uses what belongs to this build
			} else if f.alone() {
				<-f.done
			}
			return nil, !lead, context.Cause(ctx)
		}
		if f.err != nil && ctx.Err() == nil && isCanceled(f.err) && try < 100 {
			continue // whom it belonged to gave up, or all others did
		}
		return f.record, !lead, f.err
	}
}

// alone reports whether nobody waits any more.
func (f *flight) alone() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiters == 0
}
