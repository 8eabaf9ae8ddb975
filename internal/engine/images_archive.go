package engine

import (
	"context"
	"io"

	"berth/internal/image"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
)

// ImageLoad reads an archive of images. Progress and what was loaded go to out
// as docker's stream.
func (e *Engine) ImageLoad(ctx context.Context, r io.Reader, o ImageLoadOptions, out io.Writer) error {
	p := &progress{out: out}
	lo := image.LoadOptions{}
	if !o.Quiet {
		lo.Progress = p.send
	}
	loaded, err := e.images.Load(ctx, r, lo)
	if err != nil {
		return err
	}
	for _, l := range loaded {
		text := "Loaded image: " + l.Ref + "\n"
		if l.Ref == "" {
			text = "Loaded image ID: " + l.ID.String() + "\n"
		}
		p.send(jsonstream.Message{Stream: text})
		e.emitByID(ctx, events.ActionLoad, l.ID)
	}
	return nil
}

// ImageImport makes an image from the archive of a root file system.
func (e *Engine) ImageImport(ctx context.Context, o ImageImportOptions, r io.Reader, out io.Writer) error {
	img, err := e.images.Import(ctx, r, image.ImportOptions{Ref: o.Ref, Message: o.Message, Changes: o.Changes, Platform: o.Platform})
	if err != nil {
		return err
	}
	p := &progress{out: out}
	p.status(img.ID.String())
	e.emitImage(events.ActionImport, img.ID.String(), img.ID.String(), img)
	if o.Ref != "" {
		e.emitImage(events.ActionTag, img.ID.String(), familiarTagged(o.Ref), img)
	}
	return nil
}
