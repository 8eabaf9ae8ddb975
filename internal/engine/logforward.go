package engine

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"berth/internal/container"
	"berth/internal/engine/vocabulary"
	"berth/internal/logs/syslog"
)

// lastWords is how long the removal of a container waits for its last lines to
// reach the syslog server.
const lastWords = 5 * time.Second

// forwards are the forwarders of containers whose log goes to a syslog server.
// Each lives until its container has ended and all its lines are sent.
type forwards struct {
	mu  sync.Mutex
	all map[string]*forward
}

type forward struct {
	again bool // the container was started meanwhile
	stop  context.CancelFunc
	ended chan struct{}
}

// start makes sure that what a container logs is being sent.
func (f *forwards) start(e *Engine, c *container.Container) {
	rec := c.Record()
	if rec.Log.Driver != vocabulary.LogSyslog {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if w := f.all[c.ID]; w != nil {
		w.again = true
		return
	}
	ctx, stop := context.WithCancel(e.life)
	w := &forward{stop: stop, ended: make(chan struct{})}
	if f.all == nil {
		f.all = make(map[string]*forward)
	}
	f.all[c.ID] = w
	e.work.Go(func() {
		defer close(w.ended)
		defer stop()
		for {
			e.forwardLog(ctx, c)
			if f.over(ctx, c.ID, w) {
				return
			}
		}
	})
}

// over removes a forwarder that has nothing more to do.
func (f *forwards) over(ctx context.Context, id string, w *forward) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.again && ctx.Err() == nil {
		w.again = false
		return false
	}
	if f.all[id] == w {
		delete(f.all, id)
	}
	return true
}

// startAll goes on where an engine before this one stopped; also for containers
// that have ended meanwhile.
func (f *forwards) startAll(e *Engine) {
	for _, c := range e.containers.All() {
		if !c.Record().State.StartedAt.IsZero() {
			f.start(e, c)
		}
	}
}

// end gives a container that is being removed a moment to send its last lines.
func (f *forwards) end(e *Engine, c *container.Container) {
	if rec := c.Record(); rec.Log.Driver != vocabulary.LogSyslog || !exists(e.logPath(rec)) {
		return
	}
	f.mu.Lock()
	w := f.all[c.ID]
	f.mu.Unlock()
	if w == nil {
		return
	}
	t := time.NewTimer(lastWords)
	defer t.Stop()
	select {
	case <-w.ended:
		return
	case <-t.C:
		e.log.Warn("a container is removed before its last lines could be sent to syslog", "container", c.ID)
	}
	w.stop()
	<-w.ended
}

// forwardLog sends what a container logs until it ends.
func (e *Engine) forwardLog(ctx context.Context, c *container.Container) {
	rec := c.Record()
	d, err := vocabulary.FindLogDriver(rec.HostConfig.LogConfig)
	if err != nil || d.Syslog == nil {
		return
	}
	tag, err := vocabulary.LogTag(d.Tag, rec)
	if err != nil {
		e.log.Warn("log tag", "container", c.ID, "error", err)
	}
	done, forget := followUntilEnd(c)
	defer forget()
	log := e.log.With("container", c.ID)
	w := syslog.Forwarder{
		Options: *d.Syslog, Tag: tag, Log: e.logPath(rec), Progress: filepath.Join(e.dir(c.ID), "syslog.sent"),
		Warn: log.Warn,
	}
	if err := w.Run(ctx, done); err != nil && ctx.Err() == nil {
		log.Warn("syslog", "error", err)
	}
}
