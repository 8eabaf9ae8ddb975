package engine

import (
	"context"
	"time"

	"berth/internal/container"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// ContainerKill sends a signal to a container's process; SIGKILL ends all of it
// and is waited for.
func (e *Engine) ContainerKill(ctx context.Context, ref, name string) error {
	if name == "" {
		name = "SIGKILL"
	}
	signal, err := container.ParseSignal(name)
	if err != nil {
		return err
	}
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	if !c.State().Alive() {
		return fault.New(fault.Conflict, "", "", "cannot kill container: %s: container %s is not running", ref, c.ID)
	}
	if signal == int(unix.SIGKILL) {
		err = e.killAndWait(ctx, c)
	} else {
		if isStopSignal(c.Record(), signal) {
			// Whoever sends the stop signal wants it stopped.
			if err := e.leaveStopped(ctx, c); err != nil {
				return err
			}
		}
		c.Change(func(s *container.State) {
			s.Asked = &container.Asked{By: container.ByHand, At: time.Now(), Signal: signal}
		})
		err = e.signal(ctx, c, signal)
	}
	return err
}

func isStopSignal(rec *container.Record, signal int) bool {
	name := rec.Config.StopSignal
	if name == "" {
		name = "SIGTERM"
	}
	stop, err := container.ParseSignal(name)
	return err == nil && stop == signal
}

// ContainerRestart stops a container, if it runs, and starts it.
func (e *Engine) ContainerRestart(ctx context.Context, ref string, o StopOptions) error {
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	if c.State().Up() {
		if c.Record().HostConfig.AutoRemove {
			return fault.New(fault.Conflict, "", "", "container %s is removed when it ends, so it cannot be restarted", c.ID)
		}
		if err := e.stop(ctx, c, o); err != nil {
			return err
		}
	}
	err = e.ContainerStart(ctx, c.ID, "")
	if err != nil && !fault.Is(err, fault.NotModified) {
		return err
	}
	e.emit(c.Record(), events.ActionRestart, nil)
	return nil
}

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
	if err := e.monitor.Pause(ctx, c.ID); err != nil {
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
	if err := e.monitor.Resume(ctx, c.ID); err != nil {
		return err
	}
	c.SetState(s)
	e.emit(c.Record(), events.ActionUnPause, nil)
	return nil
}

// ContainerRename gives a container another name.
func (e *Engine) ContainerRename(ctx context.Context, ref, name string) error {
	if name != "" && name[0] == '/' {
		name = name[1:]
	}
	if ref == "" || name == "" {
		return fault.New(fault.Invalid, "", "", "Neither old nor new names may be empty")
	}
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	if err := container.CheckName(name); err != nil {
		return err
	}
	if err := c.Lock(ctx); err != nil {
		return err
	}
	defer c.Unlock()
	old := c.Record()
	if c.Gone() {
		return fault.New(fault.NotFound, "", "", "No such container: %s", ref)
	}
	if old.Name == name {
		return fault.New(fault.Invalid, "", "", "Renaming a container with the same name as its current name")
	}
	if err := e.containers.Reserve(name, c.ID); err != nil {
		return err
	}
	rec := old.Clone()
	rec.Name = name
	if err := e.save(rec); err != nil {
		e.containers.Release(name, c.ID)
		return err
	}
	rec = c.Edit(func(r *container.Record) { r.Name = name })
	e.containers.Release(old.Name, c.ID)
	e.renamed(rec)
	e.emit(rec, events.ActionRename, map[string]string{"oldName": "/" + old.Name})
	return nil
}
