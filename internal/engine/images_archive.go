package engine

import (
	"context"
	"io"

	"berth/internal/image"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageLoad reads an archive of images. Progress and what was loaded go to out
// as docker's stream.
func (e *Engine) ImageLoad(ctx context.Context, r io.Reader, o ImageLoadOptions, out io.Writer) (err error) {
	ctx, room := e.budget.begin(ctx, "load of images")
	defer func() { err = room.end(ctx, err) }()
	p := &progress{out: out}
	lo := image.LoadOptions{Platforms: values(o.Platforms)}
	if !o.Quiet {
		lo.Progress = p.send
	}
	loaded, err := e.images.Load(ctx, room.reader(ctx, r), lo)
	if err != nil {
		return err
	}
	told := map[digest.Digest]bool{}
	for _, l := range loaded {
		text := "Loaded image: " + l.Ref + "\n"
		if l.Ref == "" {
			text = "Loaded image ID: " + l.ID.String() + "\n"
		}
		p.send(jsonstream.Message{Stream: text})
		if !told[l.ID] {
			told[l.ID] = true
			e.emitByID(ctx, events.ActionLoad, l.ID)
		}
	}
	return nil
}

// values drops one level of pointers.
func values(list []*ocispec.Platform) []ocispec.Platform {
	out := make([]ocispec.Platform, 0, len(list))
	for _, p := range list {
		out = append(out, *p)
	}
	return out
}

// ImageSave writes an archive of images.
func (e *Engine) ImageSave(ctx context.Context, refs []string, platforms []*ocispec.Platform, out io.Writer) error {
	if err := e.images.Save(ctx, refs, out, image.SaveOptions{Platforms: values(platforms)}); err != nil {
		return err
	}
	told := map[digest.Digest]bool{}
	for _, ref := range refs {
		img, err := e.images.Get(ctx, ref)
		if err != nil || told[img.ID] {
			continue // all tags of a repository, or gone meanwhile
		}
		told[img.ID] = true
		e.emitImage(events.ActionSave, img.ID.String(), img.ID.String(), img)
	}
	return nil
}

// ImageImport makes an image from the archive of a root file system.
func (e *Engine) ImageImport(ctx context.Context, o ImageImportOptions, r io.Reader, out io.Writer) (err error) {
	ctx, room := e.budget.begin(ctx, "import of "+orElse(o.Ref, "an image"))
	defer func() { err = room.end(ctx, err) }()
	img, err := e.images.Import(ctx, room.reader(ctx, r), image.ImportOptions{Ref: o.Ref, Message: o.Message, Changes: o.Changes, Platform: o.Platform})
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
