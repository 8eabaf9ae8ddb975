package images

import (
	"cmp"
	"context"
	"io"

	"berth/internal/image"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LoadOptions steer a load.
type LoadOptions struct {
	Quiet     bool                // no progress
	Platforms []*ocispec.Platform // empty means all there are
}

// ImportOptions describe an image made from a plain file system archive.
type ImportOptions struct {
	Ref      string   // name for the new image; may be empty
	Message  string   // comment in its history
	Changes  []string // Dockerfile instructions applied to its config
	Platform *ocispec.Platform
}

// ImageLoad reads an archive of images. Progress and what was loaded go to out
// as docker's stream.
func (s *Service) ImageLoad(ctx context.Context, r io.Reader, o LoadOptions, out io.Writer) (err error) {
	ctx, room := s.intake.Begin(ctx, "load of images")
	defer func() { err = room.End(ctx, err) }()
	p := &progress{out: out}
	lo := image.LoadOptions{Platforms: values(o.Platforms)}
	if !o.Quiet {
		lo.Progress = p.send
	}
	loaded, err := s.stock.Images.Load(ctx, room.Reader(ctx, r), lo)
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
			s.stock.tellOf(ctx, events.ActionLoad, l.ID)
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
func (s *Service) ImageSave(ctx context.Context, refs []string, platforms []*ocispec.Platform, out io.Writer) error {
	if err := s.stock.Images.Save(ctx, refs, out, image.SaveOptions{Platforms: values(platforms)}); err != nil {
		return err
	}
	told := map[digest.Digest]bool{}
	for _, ref := range refs {
		img, err := s.stock.Images.Get(ctx, ref)
		if err != nil || told[img.ID] {
			continue // all tags of a repository, or gone meanwhile
		}
		told[img.ID] = true
		s.stock.Tell(events.ActionSave, img.ID.String(), img.ID.String(), img)
	}
	return nil
}

// ImageImport makes an image from the archive of a root file system.
func (s *Service) ImageImport(ctx context.Context, o ImportOptions, r io.Reader, out io.Writer) (err error) {
	ctx, room := s.intake.Begin(ctx, "import of "+cmp.Or(o.Ref, "an image"))
	defer func() { err = room.End(ctx, err) }()
	img, err := s.stock.Images.Import(ctx, room.Reader(ctx, r), image.ImportOptions{Ref: o.Ref, Message: o.Message, Changes: o.Changes, Platform: o.Platform})
	if err != nil {
		return err
	}
	p := &progress{out: out}
	p.status(img.ID.String())
	s.stock.Tell(events.ActionImport, img.ID.String(), img.ID.String(), img)
	if o.Ref != "" {
		s.stock.Tell(events.ActionTag, img.ID.String(), familiarTagged(o.Ref), img)
	}
	return nil
}
