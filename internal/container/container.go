package container

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/moby/moby/api/types/container"
)

// Result is what a wait is answered with.
type Result struct {
	ExitCode int
	Err      error
}

// Container is the handle of one container in memory.
type Container struct {
	ID string

	op   chan struct{} // the operation lock; see the package comment
	held atomic.Bool   // something outside of the data directory may be held for it

	mu        sync.Mutex // guards everything below
	rec       *Record
	onExit    []chan<- Result // not-running and next-exit
	onRemoved []chan<- Result
	gone      bool
}

// New returns the handle of a record.
func New(rec *Record) *Container {
	return &Container{ID: rec.ID, rec: rec, op: make(chan struct{}, 1)}
}

// Hold notes that something outside of the data directory (in the monitor, in the
// network) is, or may be, held for the container.
func (c *Container) Hold() { c.held.Store(true) }

// Unhold reports whether anything may be held, and takes the note back: the
// caller gives it all back.
func (c *Container) Unhold() bool { return c.held.Swap(false) }

// Held reports whether anything may be held.
func (c *Container) Held() bool { return c.held.Load() }

// Lock takes the operation lock, or gives up with the context.
func (c *Container) Lock(ctx context.Context) error {
	select {
	case c.op <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Unlock releases the operation lock.
func (c *Container) Unlock() { <-c.op }

// Record returns the current record. It must not be changed.
func (c *Container) Record() *Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

// State returns the current state.
func (c *Container) State() State { return c.Record().State }

// Set publishes a new record.
func (c *Container) Set(rec *Record) {
	c.mu.Lock()
	c.rec = rec
	c.mu.Unlock()
}

// SetState publishes a copy of the record with another state.
func (c *Container) SetState(s State) *Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.rec.Clone()
	r.State = s
	c.rec = r
	return r
}

// Change publishes the record with a state changed by fn, atomically with
// respect to other changes of state. fn must not block.
func (c *Container) Change(fn func(*State)) *Record {
	return c.Edit(func(r *Record) { fn(&r.State) })
}

// Edit publishes a copy of the record changed by fn, atomically with respect to
// other changes. fn must not block, nor change what the copy shares.
func (c *Container) Edit(fn func(*Record)) *Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.rec.Clone()
	fn(r)
	c.rec = r
	return r
}

// Gone reports whether the container was removed.
func (c *Container) Gone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// Wait registers for a condition and returns the channel on which its one result
// arrives. The registration holds when Wait returns. A condition which holds
// already is answered at once.
func (c *Container) Wait(cond container.WaitCondition) (<-chan Result, func()) {
	ch := make(chan Result, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		ch <- Result{ExitCode: c.rec.State.ExitCode}
	case cond == container.WaitConditionRemoved:
		c.onRemoved = append(c.onRemoved, ch)
	case cond == container.WaitConditionNextExit || c.rec.State.Up():
		c.onExit = append(c.onExit, ch)
	default:
		ch <- Result{ExitCode: c.rec.State.ExitCode}
	}
	return ch, func() { c.unwait(ch) }
}

// unwait forgets a registration, so that clients which went away cost nothing.
func (c *Container) unwait(ch chan Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onExit = without(c.onExit, ch)
	c.onRemoved = without(c.onRemoved, ch)
}

func without(list []chan<- Result, ch chan Result) []chan<- Result {
	for i, w := range list {
		if w == (chan<- Result)(ch) {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}

// AnswerExit answers everyone who waits for the end of the process.
func (c *Container) AnswerExit(r Result) {
	c.mu.Lock()
	list := c.onExit
	c.onExit = nil
	c.mu.Unlock()
	answer(list, r)
}

// AnswerRemoved marks the container as gone and answers everyone who still waits.
func (c *Container) AnswerRemoved(r Result) {
	c.mu.Lock()
	list := append(c.onExit, c.onRemoved...)
	c.onExit, c.onRemoved, c.gone = nil, nil, true
	c.mu.Unlock()
	answer(list, r)
}

// FailRemoval tells everyone who waits for the removal that it failed.
func (c *Container) FailRemoval(r Result) {
	c.mu.Lock()
	list := c.onRemoved
	c.onRemoved = nil
	c.mu.Unlock()
	answer(list, r)
}

// answer never blocks: each channel has room for its one result.
func answer(list []chan<- Result, r Result) {
	for _, ch := range list {
		ch <- r
	}
}
