package engine

import (
	"context"
	"time"

	"berth/internal/container"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
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

// killAndWait ends a container by force.
func (e *Engine) killAndWait(ctx context.Context, c *container.Container) error {
	if err := e.leaveStopped(ctx, c); err != nil {
		return err
	}
	ended, forget := c.Wait(api.WaitConditionNotRunning)
	defer forget()
	if !c.State().Alive() {
		return nil
	}
	return e.finishOff(ctx, c, ended)
}
