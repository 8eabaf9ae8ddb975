package engine

import (
	"context"
	"io"

	"berth/internal/layer"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// ContainerExport opens the root of a container, without its volumes, and returns
// a function that writes it as a tar archive. closeRoot must be called in any case.
func (e *Engine) ContainerExport(ctx context.Context, ref string) (write func(io.Writer) error, closeRoot func(), err error) {
	c, root, err := e.openRoot(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	bare, err := root.Bare()
	if err != nil {
		return nil, nil, err
	}
	write = func(w io.Writer) error {
		if err := bare.Export(ctx, w); err != nil {
			return err
		}
		e.emit(c.Record(), events.ActionExport, nil)
		return nil
	}
	return write, bare.Close, nil
}

// ContainerChanges lists what a container has changed of its image's files.
func (e *Engine) ContainerChanges(ctx context.Context, ref string) ([]api.FilesystemChange, error) {
	c, err := e.containers.Find(ref)
	if err != nil {
		return nil, err
	}
	rec := c.Record()
	lower, err := e.layers.Lower(rec.Layers)
	if err != nil {
		return nil, err
	}
	upper, _, err := e.layers.Writable(rec.ID, rec.Layers, rec.MountedLayers()...)
	if err != nil {
		return nil, err
	}
	changes, err := layer.Changes(ctx, upper, lower, mountPointsOnly(upper))
	if err != nil {
		return nil, err
	}
	out := make([]api.FilesystemChange, 0, len(changes))
	for _, ch := range changes {
		out = append(out, api.FilesystemChange{Kind: kindOf(ch.Kind), Path: ch.Path})
	}
	return out, nil
}

func kindOf(k layer.Kind) api.ChangeType {
	switch k {
	case layer.Added:
		return api.ChangeAdd
	case layer.Deleted:
		return api.ChangeDelete
	}
	return api.ChangeModify
}
