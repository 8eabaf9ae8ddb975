package engine

import (
	"context"
	"os"
	"path/filepath"

	"berth/internal/container"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// ContainerPause freezes a container's processes.
func (e *Engine) ContainerPause(ctx context.Context, ref string) error {
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	if err := c.Lock(ctx); err != nil {
		return err
	}
	defer c.Unlock()
	s := c.State()
	switch s.Status {
	case api.StatePaused:
		return fault.New(fault.Conflict, "", "", "container %s is already paused", c.ID)
	case api.StateRunning:
	case api.StateRestarting:
		return fault.New(fault.Conflict, "", "", "container %s is restarting, wait until the container is running", c.ID)
	default:
		return fault.New(fault.Conflict, "", "", "container %s is not running", c.ID)
	}
	// From here on it must be known how it ended, whoever has gone away.
	if err := e.monitor.Pause(context.WithoutCancel(ctx), c.ID); err != nil {
		return err
	}
	if s, err = s.Paused(); err != nil {
		return err
	}
	c.SetState(s)
	e.emit(c.Record(), events.ActionPause, nil)
	return nil
}

// ContainerUnpause thaws a container's processes.
func (e *Engine) ContainerUnpause(ctx context.Context, ref string) error {
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	if c.State().Status != api.StatePaused {
		return fault.New(fault.Conflict, "", "", "container %s is not paused", c.ID)
	}
	return e.unpause(ctx, c)
}

func (e *Engine) unpause(ctx context.Context, c *container.Container) error {
	if err := c.Lock(ctx); err != nil {
		return err
	}
	defer c.Unlock()
	s, err := c.State().Resumed()
	if err != nil {
		return nil // somebody else did, or it ended
	}
	if err := e.monitor.Resume(context.WithoutCancel(ctx), c.ID); err != nil {
		return err
	}
	c.SetState(s)
	e.emit(c.Record(), events.ActionUnPause, nil)
	return nil
}

// freeze pauses a container for a moment. A file in the run directory says so:
// an engine that finds it after a crash knows that nobody else wants the
// container paused.
func (e *Engine) freeze(ctx context.Context, c *container.Container) (thaw func() error, err error) {
	mark := e.freezeMark(c.ID)
	if err := os.MkdirAll(filepath.Dir(mark), 0o700); err != nil {
		return nil, fault.Wrap("pause", c.ID, err)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return nil, fault.Wrap("pause", c.ID, err)
	}
	err = e.ContainerPause(ctx, c.ID)
	if err != nil {
		_ = os.Remove(mark)
		if fault.Is(err, fault.Conflict) {
			return func() error { return nil }, nil // somebody paused it, or it has ended
		}
		return nil, err
	}
	return func() error {
		// The client may be gone; the container goes on whatever happens.
		err := e.unpause(context.WithoutCancel(ctx), c)
		if err == nil || !c.State().Alive() {
			return fault.Wrap("unpause", c.ID, ignoreMissing(os.Remove(mark)))
		}
		return err
	}, nil
}

func (e *Engine) freezeMark(id string) string { return filepath.Join(e.cfg.RunDir, "frozen", id) }

// thawForgotten lets go on what an engine froze that did not live to thaw it.
func (e *Engine) thawForgotten(ctx context.Context) {
	entries, err := os.ReadDir(filepath.Join(e.cfg.RunDir, "frozen"))
	if err != nil {
		return // nothing was ever frozen
	}
	for _, entry := range entries {
		if c := e.containers.Get(entry.Name()); c != nil && c.State().Status == api.StatePaused {
			if err := e.unpause(ctx, c); err != nil {
				e.log.Error("a container stays paused that was frozen for a commit", "container", c.ID, "error", err)
				continue
			}
		}
		if err := os.Remove(e.freezeMark(entry.Name())); err != nil {
			e.log.Warn("remove mark of a frozen container", "container", entry.Name(), "error", err)
		}
	}
}
