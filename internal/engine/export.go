package engine

import (
	"context"
	"io"

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
