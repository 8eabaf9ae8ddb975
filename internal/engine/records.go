package engine

import (
	"sync"
	"time"

	"berth/internal/container"
	"berth/internal/fault"
	"berth/internal/metadata"

	"github.com/moby/moby/api/types/events"
)

// save commits a record.
func (e *Engine) save(rec *container.Record) error {
	err := e.db.Update(func(tx *metadata.Tx) error { return e.records.Put(tx, rec.ID, *rec) })
	return fault.Wrap("save container", rec.ID, err)
}

// laggards are the containers whose start, or health, is not on disk yet. It is worth
// no commit of its own, because the monitor knows what runs; but after a power
// cut only the disk tells that a container had been started at all, so those that
// live longer than a moment are saved together.
type laggards struct {
	mu   sync.Mutex // guards the fields; nothing else is locked under it
	list map[string]*container.Container
	wake chan struct{}
}

// laggardDelay is how long a container must run before its start is saved.
const laggardDelay = 2 * time.Second

func (l *laggards) add(c *container.Container) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list == nil {
		l.list = make(map[string]*container.Container)
	}
	l.list[c.ID] = c
	l.signal()
}

// signal wakes the saver; the caller holds the lock.
func (l *laggards) signal() {
	if l.wake == nil {
		l.wake = make(chan struct{}, 1)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *laggards) woken() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake == nil {
		l.wake = make(chan struct{}, 1)
	}
	return l.wake
}

// drop forgets a container whose record was just saved or removed.
func (l *laggards) drop(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.list, id)
}

func (l *laggards) take() []*container.Container {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*container.Container, 0, len(l.list))
	for _, c := range l.list {
		all = append(all, c)
	}
	l.list = nil
	return all
}

// saveLaggards runs until the engine ends.
func (e *Engine) saveLaggards() {
	for {
		select {
		case <-e.laggards.woken():
		case <-e.life.Done():
			return
		}
		select {
		case <-time.After(laggardDelay):
		case <-e.life.Done():
			return
		}
		e.saveAllLaggards()
	}
}

// saveAllLaggards commits the starts of those that still run. Each is looked at
// under its operation lock, so an end that is being committed is not overwritten.
func (e *Engine) saveAllLaggards() {
	if e.db == nil {
		return
	}
	var locked []*container.Container
	for _, c := range e.laggards.take() {
		if c.Lock(e.life) != nil {
			break
		}
		if !c.State().Alive() || c.Gone() {
			c.Unlock()
			continue
		}
		locked = append(locked, c)
	}
	if len(locked) == 0 {
		return
	}
	err := e.db.Update(func(tx *metadata.Tx) error {
		for _, c := range locked {
			if err := e.records.Put(tx, c.ID, *c.Record()); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range locked {
		c.Unlock()
	}
	if err != nil {
		e.log.Error("save started containers", "error", err)
	}
}

// emit publishes an event of a container with the attributes that docker gives
// it: its labels, image and name, and those of the occasion.
func (e *Engine) emit(rec *container.Record, action events.Action, more map[string]string) {
	attrs := make(map[string]string, len(rec.Config.Labels)+len(more)+2)
	for k, v := range rec.Config.Labels {
		attrs[k] = v
	}
	attrs["image"], attrs["name"] = rec.ImageRef, rec.Name
	for k, v := range more {
		attrs[k] = v
	}
	e.bus.Publish(events.ContainerEventType, action, rec.ID, attrs)
}
