package network

import (
	"log/slog"
	"sync"
	"time"

	"berth/internal/fault"
)

// pool keeps sandboxes ready. It refills in the background: at once when half
// of it is gone, else after a short pause, so that the work does not compete
// with the very start that took one. Every miss doubles the target up to max;
// a quiet time brings it back.
type pool struct {
	build   func() (*sandbox, error)
	discard func(*sandbox)
	log     *slog.Logger
	base    int // what a quiet pool holds
	max     int

	mu       sync.Mutex // guards the rest; leaf lock, not held while building
	idle     []*sandbox
	target   int
	building int
	closed   bool
	failed   bool // the last build failed: wait before the next
	timer    *time.Timer
	calm     *time.Timer
	changed  sync.Cond // signalled when idle or building changes
	misses   int
}

const (
	buildersPerPool = 2
	refillPause     = 25 * time.Millisecond
	retryPause      = time.Second
	calmPause       = 30 * time.Second
	poolGrowth      = 4 // max is base times this
)

func newPool(base int, log *slog.Logger, build func() (*sandbox, error), discard func(*sandbox)) *pool {
	p := &pool{build: build, discard: discard, log: log, base: base, max: base * poolGrowth, target: base}
	p.changed.L = &p.mu
	return p
}

// take returns a ready sandbox, or nil when there is none.
func (p *pool) take() *sandbox {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		p.grow()
		p.refill(0)
		return nil
	}
	s := p.idle[0] // the oldest
	p.idle = append(p.idle[:0], p.idle[1:]...)
	pause := refillPause
	if n-1 <= p.target/2 {
		pause = 0
	}
	p.refill(pause)
	return s
}

// takeSoon is take, but waits for builders that are at work.
func (p *pool) takeSoon() *sandbox {
	p.mu.Lock()
	for len(p.idle) == 0 && p.building > 0 {
		p.changed.Wait()
	}
	p.mu.Unlock()
	return p.take()
}

// takeMatching returns the ready sandbox that satisfies ok, if any.
func (p *pool) takeMatching(ok func(*sandbox) bool) *sandbox {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, s := range p.idle {
		if ok(s) {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			p.refill(refillPause)
			return s
		}
	}
	return nil
}

func (p *pool) grow() {
	p.misses++
	if p.base == 0 || p.target >= p.max {
		return
	}
	p.target = min(p.max, p.target*2)
	if p.calm == nil {
		p.calm = time.AfterFunc(calmPause, p.shrink)
	} else {
		p.calm.Reset(calmPause)
	}
}

// shrink brings a grown pool back to its base.
func (p *pool) shrink() {
	p.mu.Lock()
	p.target = p.base
	var spare []*sandbox
	if len(p.idle) > p.base {
		spare = append(spare, p.idle[p.base:]...)
		p.idle = p.idle[:p.base]
	}
	p.mu.Unlock()
	for _, s := range spare {
		p.discard(s)
	}
}

// refill starts builders after a pause; the caller holds mu.
func (p *pool) refill(pause time.Duration) {
	if p.closed || p.target == 0 || p.failed {
		return
	}
	if pause > 0 {
		if p.timer == nil {
			p.timer = time.AfterFunc(pause, p.refillNow)
		} else {
			p.timer.Reset(pause)
		}
		return
	}
	for p.building < buildersPerPool && len(p.idle)+p.building < p.target {
		p.building++
		go p.builder()
	}
}

func (p *pool) refillNow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refill(0)
}

// builder makes sandboxes until the pool is full.
func (p *pool) builder() {
	for {
		s, err := p.build()
		if err != nil {
			p.builderFailed(err)
			return
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			p.discard(s) // before close returns
			p.mu.Lock()
			p.building--
			p.changed.Broadcast()
			p.mu.Unlock()
			return
		}
		p.idle = append(p.idle, s)
		more := len(p.idle)+p.building-1 < p.target
		if !more {
			p.building--
		}
		p.changed.Broadcast()
		p.mu.Unlock()
		if !more {
			return
		}
	}
}

func (p *pool) builderFailed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.building--
	p.changed.Broadcast()
	if p.closed {
		return
	}
	if !p.failed && !fault.Is(err, fault.Exhausted) { // a full subnet is no news: who asks for more is told
		p.log.Warn("cannot keep network namespaces ready", "error", err)
	}
	p.failed = true
	time.AfterFunc(retryPause, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.failed = false
		p.refill(0)
	})
}

// waitFull blocks until the pool holds its target or cannot be filled.
func (p *pool) waitFull() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refill(0)
	for !p.closed && !p.failed && len(p.idle) < p.target {
		p.changed.Wait()
	}
}

// close discards everything idle and waits for builders.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.calm != nil {
		p.calm.Stop()
	}
	for p.building > 0 {
		p.changed.Wait()
	}
	spare := p.idle
	p.idle = nil
	p.changed.Broadcast()
	p.mu.Unlock()
	for _, s := range spare {
		p.discard(s)
	}
}
