package intake

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"berth/internal/fault"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
)

// packedFactor is how much a pull takes at least, packed and unpacked, by the bytes of
// a packed layer.
const packedFactor = 2

// Entry is something under way: a pull, a build, a load. A ledger without a limit has
// nil ones, which do nothing.
type Entry struct {
	ledger *Ledger
	what   string
	began  time.Time
	cancel context.CancelCauseFunc

	mu     sync.Mutex       // guards what follows
	layers map[string]int64 // bytes to come of each, packed
	read   int64            // bytes taken since the last look
}

// overBudget is the error of what could not fit into the disk budget.
type overBudget struct {
	What          string // as in "pull of alpine"
	Limit, Needed int64  // bytes; Needed is 0 when that is not known
	Kept          int64  // bytes that could not be removed
}

// Error names the budget, and what stands in the way.
func (o *overBudget) Error() string {
	text := o.What + " does not fit into the disk budget of " + units.BytesSize(float64(o.Limit))
	if o.Needed > 0 {
		text += ": it needs " + units.BytesSize(float64(o.Needed)) + " and more"
	}
	return text + "; " + units.BytesSize(float64(o.Kept)) + " are in use, or too fresh to be removed"
}

// What is what Begin was told.
func (e *Entry) What() string { return e.what }

// Break ends it for want of room: kept bytes are in the directory and cannot go.
func (e *Entry) Break(kept int64) {
	e.cancel(&overBudget{What: e.what, Limit: e.ledger.limit, Needed: e.Ahead(), Kept: kept})
}

// End is called with the outcome, which it returns, or with the budget's reason if
// that broke it off.
func (e *Entry) End(ctx context.Context, err error) error {
	if e == nil {
		return err
	}
	e.ledger.mu.Lock()
	delete(e.ledger.entries, e)
	e.ledger.mu.Unlock()
	var over *overBudget
	if errors.As(context.Cause(ctx), &over) && err != nil {
		err = fault.New(fault.Exhausted, "", "", "%w", over).
			WithHint("berth system df -v shows what takes how much; --disk-budget sets the limit")
	}
	e.cancel(nil)
	e.ledger.settle(context.WithoutCancel(ctx))
	return err
}

// took notes that so much was read or fetched. Now and then it waits for a look at
// the directory, so that what is written does not run ahead of that.
func (e *Entry) took(ctx context.Context, n int64) error {
	e.ledger.taken.Add(n)
	e.mu.Lock()
	e.read += n
	look := e.read >= e.ledger.Margin()/2
	if look {
		e.read = 0
	}
	e.mu.Unlock()
	if look {
		e.ledger.settle(ctx)
	}
	return context.Cause(ctx)
}

// Reader is r, counted.
func (e *Entry) Reader(ctx context.Context, r io.Reader) io.Reader {
	if e == nil {
		return r
	}
	return &reader{ctx, e, r}
}

type reader struct {
	ctx   context.Context
	entry *Entry
	r     io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if e := r.entry.took(r.ctx, int64(n)); e != nil {
		return n, e
	}
	return n, err
}

// Watch passes progress on and reads in it how much is about to come.
func (e *Entry) Watch(ctx context.Context, send func(jsonstream.Message)) func(jsonstream.Message) {
	if e == nil {
		return send
	}
	return func(m jsonstream.Message) {
		if m.Progress != nil && m.Status == "Downloading" && m.Progress.Total > 0 {
			e.mu.Lock()
			before, known := e.layers[m.ID]
			left := max(m.Progress.Total-m.Progress.Current, 0)
			e.layers[m.ID] = left
			e.mu.Unlock()
			if !known {
				e.ledger.settle(ctx)
			} else if left < before {
				_ = e.took(ctx, before-left)
			}
		}
		send(m)
	}
}

// Ahead is how much is still to come at least, in bytes.
func (e *Entry) Ahead() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	total := int64(0)
	for _, n := range e.layers {
		total += n
	}
	return total * packedFactor
}
