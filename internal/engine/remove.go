package engine

import (
	"context"
	"errors"
	"time"

	"berth/internal/container"
	"berth/internal/fault"
	"berth/internal/metadata"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// killPatience is how long a killed container may take to be gone.
const killPatience = 30 * time.Second

// ContainerRemove removes a container, killing it first if that is asked for.
func (e *Engine) ContainerRemove(ctx context.Context, ref string, o RemoveOptions) error {
	if o.Link {
		return e.nets.Unlink(ctx, ref)
	}
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	ctx, end := e.finishing(ctx)
	defer end()
	for {
		if c.State().Up() {
			if !o.Force {
				return runningRefused(c)
			}
			if err := e.killAndWait(ctx, c); err != nil {
				return err
			}
		}
		if err := c.Lock(ctx); err != nil {
			return err
		}
		if c.Gone() {
			c.Unlock()
			return nil // it removed itself, or somebody else did
		}
		if !c.State().Up() {
			break
		}
		c.Unlock() // started again in between
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	defer c.Unlock()
	_, err = e.destroy(context.WithoutCancel(ctx), c, o.Volumes)
	return err
}

// runningRefused says no in docker's words.
func runningRefused(c *container.Container) error {
	rec := c.Record()
	what, do := "running", "stop the container before removing or force remove"
	switch rec.State.Status {
	case api.StatePaused:
		what, do = "paused", "unpause and then stop the container before removing or force remove"
	case api.StateRestarting:
		what = "restarting"
	}
	return fault.New(fault.Conflict, "", "", "cannot remove container %q: container is %s: %s", "/"+rec.Name, what, do)
}

// destroy removes a container which does not run. The caller holds the operation
// lock. The intent is not written first: the one commit that deletes the record
// is the removal, and what is left of the container then is swept by the next
// engine if this one does not get to it. Layers that only the container still had go,
// too: so many bytes of them.
func (e *Engine) destroy(ctx context.Context, c *container.Container, withVolumes bool) (layers int64, err error) {
	e.restarts.forget(c.ID)
	e.laggards.drop(c.ID)
	before := c.State()
	if s, err := before.Removing(); err == nil {
		c.SetState(s)
	}
	rec := c.Record()
	e.release(ctx, c)
	var gone []string
	if withVolumes {
		gone = e.takeOwnVolumes(rec)
	}
	err = e.db.Update(func(tx *metadata.Tx) error { return e.deleteRecord(tx, rec.ID, gone) })
	if err != nil {
		c.SetState(before)
		e.spareVolumes(gone)
		return 0, fault.Wrap("remove container", rec.Name, err)
	}
	return e.clear(ctx, c, gone)
}

func (e *Engine) deleteRecord(tx *metadata.Tx, id string, volumes []string) error {
	if err := e.records.Delete(tx, id); err != nil {
		return err
	}
	return e.volumes.Delete(tx, volumes)
}

// clear removes everything of a container whose record is gone already, with layers that
// only it still had: so many bytes of them.
func (e *Engine) clear(ctx context.Context, c *container.Container, volumes []string) (layers int64, err error) {
	rec := c.Record()
	e.laggards.drop(c.ID)
	e.forwards.end(e, c)
	e.release(ctx, c)
	e.execs.Drop(c.ID)
	err = errors.Join(e.layers.RemoveWritable(c.ID), e.volumes.Drop(volumes...))
	if err != nil {
		// The record is gone, so the name is free and the next engine sweeps.
		e.log.Error("remove files of a container", "container", c.ID, "error", err)
	}
	e.containers.Remove(c.ID, rec.Name)
	for _, v := range volumes {
		e.publishVolume(events.ActionDestroy, v)
	}
	e.emit(rec, events.ActionDestroy, nil)
	layers = e.collectOrphans(ctx, rec)
	c.AnswerRemoved(container.Result{ExitCode: rec.State.ExitCode, Err: err})
	return layers, nil
}

// collectOrphans deletes the layers of a container that has gone when its image went
// before it, and returns how many bytes they took.
func (e *Engine) collectOrphans(ctx context.Context, rec *container.Record) int64 {
	if _, err := e.images.Get(ctx, rec.ImageID.String()); !fault.Is(err, fault.NotFound) {
		return 0
	}
	freed, err := e.layers.Collect(rec.Layers...)
	if err != nil {
		e.log.Warn("delete layers without an owner", "container", rec.ID, "error", err)
	}
	return freed
}
