package engine

import (
	"context"
	"sync"
	"time"

	"berth/internal/container"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

const (
	restartFirst = 100 * time.Millisecond // before the first restart; doubles with each
	restartLast  = time.Minute
	restartReset = 10 * time.Second // a container up for so long starts from the first delay again
)

// ContainerRestart stops a container, if it runs, and starts it.
func (e *Engine) ContainerRestart(ctx context.Context, ref string, o StopOptions) error {
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	ctx, end := e.finishing(ctx)
	defer end()
	if c.State().Up() {
		if c.Record().HostConfig.AutoRemove {
			return fault.New(fault.Conflict, "", "", "container %s is removed when it ends, so it cannot be restarted", c.ID)
		}
		if err := e.stop(ctx, c, o); err != nil {
			return err
		}
		e.emit(c.Record(), events.ActionStop, noteAttr(c.State().Note))
	}
	err = e.ContainerStart(ctx, c.ID, "")
	if err != nil && !fault.Is(err, fault.NotModified) {
		return err
	}
	e.emit(c.Record(), events.ActionRestart, nil)
	return nil
}

// restarts keeps the back-off of containers that their policy restarts.
type restarts struct {
	mu     sync.Mutex // guards the maps; nothing else is locked under it
	delays map[string]time.Duration
	timers map[string]*time.Timer
	ended  bool
}

func (r *restarts) init() {
	r.delays = make(map[string]time.Duration)
	r.timers = make(map[string]*time.Timer)
}

// next decides whether a container that ended is started again, and after what
// delay.
func (r *restarts) next(rec *container.Record, x container.Exit) (time.Duration, bool) {
	p := rec.HostConfig.RestartPolicy
	s := rec.State
	if s.StoppedByHand || !policyWants(p, x.Code, s.Restarts) {
		r.forget(rec.ID)
		return 0, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.delays[rec.ID]
	if d == 0 || x.Ran >= restartReset {
		d = restartFirst
	} else {
		d = min(2*d, restartLast)
	}
	r.delays[rec.ID] = d
	return d, true
}

// policyWants applies a policy to an exit code and the restarts so far.
func policyWants(p api.RestartPolicy, code, restarts int) bool {
	switch {
	case p.IsAlways(), p.IsUnlessStopped():
		return true
	case p.IsOnFailure():
		return code != 0 && (p.MaximumRetryCount == 0 || restarts < p.MaximumRetryCount)
	}
	return false
}

// schedule starts a container after a delay, unless somebody stops it first.
func (r *restarts) schedule(e *Engine, c *container.Container, after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.timers[c.ID] = time.AfterFunc(after, func() {
		if r.begin(&e.work) {
			defer e.work.Done()
			e.restartNow(c)
		}
	})
}

// begin counts a restart among the engine's work, unless the engine ends.
func (r *restarts) begin(work *sync.WaitGroup) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		work.Add(1)
	}
	return !r.ended
}

// forget cancels a restart that is due.
func (r *restarts) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := r.timers[id]; t != nil {
		t.Stop()
	}
	delete(r.timers, id)
	delete(r.delays, id)
}

// stop cancels all restarts for good.
func (r *restarts) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	for _, t := range r.timers {
		t.Stop()
	}
}

// restartNow starts a container whose delay is over.
func (e *Engine) restartNow(c *container.Container) {
	if c.Lock(e.life) != nil {
		return
	}
	defer c.Unlock()
	if c.Gone() || c.State().Status != api.StateRestarting {
		return
	}
	if err := e.start(context.WithoutCancel(e.life), c); err != nil {
		e.tryAgain(c, err)
	}
}

// tryAgain lets the restart policy decide what follows from a start of the engine's
// own that failed. The caller holds the operation lock.
func (e *Engine) tryAgain(c *container.Container, cause error) {
	e.log.Warn("start container", "container", c.ID, "error", cause)
	rec := c.Record()
	delay, again := e.restarts.next(rec, container.Exit{Code: rec.State.ExitCode}) // it was not up at all
	if !again || rec.State.Alive() || c.Gone() {
		return
	}
	rec = c.Change(func(s *container.State) {
		s.Status, s.FinishedAt = api.StateRestarting, time.Now()
		s.Restarts++
	})
	if err := e.save(rec); err != nil {
		e.log.Error("record a failed restart", "container", c.ID, "error", err)
	}
	e.restarts.schedule(e, c, delay)
}
