// Package intake keeps account of what is coming into the data directory: pulls,
// builds, loads, and how much of each is still to come. It stands between those who
// bring something, who know nothing of the disk budget, and whoever keeps the budget,
// who makes room before it is needed or breaks off what cannot fit.
package intake

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	patience    = 10 * time.Second // that whoever brings something waits for a look at most
	marginLeast = 1 << 20          // bytes kept free below the budget
	marginMost  = 256 << 20        //
)

// Ledger is what is coming in. Without a limit it notes nothing.
type Ledger struct {
	limit int64           // bytes; 0: none
	over  <-chan struct{} // closed when nobody looks any more
	wake  chan struct{}
	taken atomic.Int64 // bytes that came in and that no measurement has seen

	mu      sync.Mutex // guards what follows; nothing else is locked under it
	entries map[*Entry]struct{}
	waits   []chan struct{} // of those who wait for the next look
}

// Open returns the ledger of a data directory that may have limit bytes, 0 for any
// number. Nobody waits for a look at it any more once over is closed.
func Open(limit int64, over <-chan struct{}) *Ledger {
	return &Ledger{limit: max(limit, 0), over: over, wake: make(chan struct{}, 1), entries: map[*Entry]struct{}{}}
}

// Begin notes that something, such as "pull of alpine", is about to take room. The
// caller goes on with the returned context, which ends when there is none left, and
// calls End.
func (l *Ledger) Begin(ctx context.Context, what string) (context.Context, *Entry) {
	if l.limit == 0 {
		return ctx, nil
	}
	e := &Entry{ledger: l, what: what, began: time.Now(), layers: map[string]int64{}}
	ctx, e.cancel = context.WithCancelCause(ctx)
	l.mu.Lock()
	l.entries[e] = struct{}{}
	l.mu.Unlock()
	l.Wake()
	return ctx, e
}

// Limit is how many bytes the data directory may have; 0 means any number.
func (l *Ledger) Limit() int64 { return l.limit }

// Margin is how many bytes below the limit are kept free.
func (l *Ledger) Margin() int64 {
	return min(max(l.limit/50, min(marginLeast, l.limit/10)), marginMost)
}

// Wake asks for a look at the data directory.
func (l *Ledger) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Woken tells the keeper that a look is asked for.
func (l *Ledger) Woken() <-chan struct{} { return l.wake }

// settle waits, for a bounded time, until the directory has been looked at.
func (l *Ledger) settle(ctx context.Context) {
	done := make(chan struct{})
	l.mu.Lock()
	l.waits = append(l.waits, done)
	l.mu.Unlock()
	l.Wake()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-done:
	case <-ctx.Done():
	case <-l.over:
	case <-late.C:
	}
}

// Waiting returns who waits for the look that is about to begin; each channel is to
// be closed after it.
func (l *Ledger) Waiting() []chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.waits
	l.waits = nil
	return list
}

// Taken is how many bytes have come in that no measurement has seen.
func (l *Ledger) Taken() int64 { return l.taken.Load() }

// Measured says that so many of the bytes taken are in a measurement now.
func (l *Ledger) Measured(n int64) { l.taken.Add(-n) }

// UnderWay returns what takes room now, the youngest last, and how many bytes more it
// will need at least.
func (l *Ledger) UnderWay() (list []*Entry, ahead int64) {
	l.mu.Lock()
	for e := range l.entries {
		list = append(list, e)
	}
	l.mu.Unlock()
	slices.SortFunc(list, func(x, y *Entry) int { return x.began.Compare(y.began) })
	for _, e := range list {
		ahead += e.Ahead()
	}
	return list, ahead
}
