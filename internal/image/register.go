package image

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/layer"
)

// Registration is one image that is about to be recorded. Its layers are
// unpacked and held already.
type Registration struct {
	Config    []byte // the document whose digest is the image's id
	Tags      []reference.NamedTagged
	Digests   []reference.Canonical
	Manifests [][]byte             // documents to keep, such as the manifest it came with
	Packed    []ocispec.Descriptor // the layers as they came, base first; may be nil
	Parent    digest.Digest

	id     digest.Digest
	config *v1.DockerOCIImage
}

// Register records images and their names in one step: after a crash there are
// all of them or none. It returns once everything is on disk. hold must hold
// the layers; the caller releases it afterwards through Release.
func (s *Store) Register(ctx context.Context, hold *layer.Hold, images []Registration, progress Progress) ([]*Image, error) {
	const op = "record image"
	for i := range images {
		r := &images[i]
		var err error
		if r.config, err = ParseConfig(r.Config); err != nil {
			return nil, err
		}
		r.id = digest.FromBytes(r.Config)
		hold.Add(r.config.RootFS.DiffIDs...)
	}
	release, err := s.store(ctx, images)
	defer release()
	if err != nil {
		return nil, fault.Wrap(op, "", err)
	}
	if err := s.content.Sync(); err != nil {
		return nil, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.change()
	for i := range images {
		if err := s.add(c, &images[i]); err != nil {
			return nil, fault.Wrap(op, images[i].id.String(), err)
		}
	}
	if err := c.commit(); err != nil {
		return nil, fault.Wrap(op, "", err)
	}
	for _, m := range c.moved {
		if progress != nil {
			progress.Stream(fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string\n",
				familiarString(m.tag), m.from))
		}
	}
	var out []*Image
	for i := range images {
		img, err := s.load(s.images[images[i].id])
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	return out, nil
}

// store puts the documents into the content store and keeps them there until
// release, when those that no image names go again.
func (s *Store) store(ctx context.Context, images []Registration) (release func(), err error) {
	var held []digest.Digest
	put := func(data []byte) error {
		d := digest.FromBytes(data)
		s.mu.Lock()
		s.held[d]++
		s.mu.Unlock()
		held = append(held, d)
		if _, err := s.content.Read(d, int64(len(data))); err == nil {
			return nil // there and whole; a damaged one is replaced
		}
		_, err := s.content.Ingest(ctx, bytes.NewReader(data), d, int64(len(data)))
		return err
	}
	release = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, d := range held {
			if s.held[d]--; s.held[d] == 0 {
				delete(s.held, d)
			}
			if err := s.dropBlob(d); err != nil {
				s.log.Warn("blob cannot be deleted", "digest", d, "error", err)
			}
		}
	}
	for i := range images {
		for _, data := range append([][]byte{images[i].Config}, images[i].Manifests...) {
			if err := put(data); err != nil {
				return release, err
			}
		}
	}
	return release, nil
}

// add puts one registration into a change. The caller holds mu.
func (s *Store) add(c *change, r *Registration) error {
	size := int64(0)
	for _, d := range r.config.RootFS.DiffIDs {
		l, err := s.layers.Stat(d)
		if err != nil {
			return err
		}
		size += l.Size
	}
	rec := c.edit(r.id)
	if rec == nil {
		rec = &record{
			ID: r.id, DiffIDs: r.config.RootFS.DiffIDs, OS: r.config.OS, Arch: r.config.Architecture,
			Variant: r.config.Variant, Parent: r.Parent,
		}
		if r.config.Created != nil {
			rec.Created = *r.config.Created
		}
		c.records[r.id] = rec
	}
	rec.Size = size
	if r.Packed != nil {
		rec.Packed = r.Packed
	}
	for _, m := range r.Manifests {
		if d := digest.FromBytes(m); !slices.Contains(rec.Manifests, d) {
			rec.Manifests = append(rec.Manifests, d)
		}
	}
	for _, t := range r.Tags {
		c.tag(r.id, t.String())
	}
	for _, d := range r.Digests {
		c.digested(r.id, d.String())
	}
	return nil
}

// Release lets go of a hold and deletes the layers of it that no image names.
func (s *Store) Release(hold *layer.Hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := hold.Release()
	slices.Sort(ids)
	for _, d := range slices.Compact(ids) {
		if _, err := s.dropLayer(d); err != nil {
			s.log.Warn("layer cannot be deleted", "layer", d, "error", err)
		}
	}
}

// created is the time for documents made here, as precise as docker's.
func created() *time.Time {
	t := time.Now().UTC()
	return &t
}
