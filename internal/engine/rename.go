package engine

import (
	"context"

	"berth/internal/container"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/events"
)

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
	e.nets.Renamed(rec)
	e.emit(rec, events.ActionRename, map[string]string{"oldName": "/" + old.Name})
	return nil
}
