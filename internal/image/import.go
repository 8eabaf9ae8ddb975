package image

import (
	"context"
	"encoding/json"
	"io"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// ImportOptions describes the image that Import makes.
type ImportOptions struct {
	Ref      string   // name to give, may be ""
	Message  string   // history comment; "" means "Imported from -"
	Changes  []string // Dockerfile instructions: CMD, ENTRYPOINT, ENV, EXPOSE, ...
	Platform *ocispec.Platform
	Progress Progress
}

// Import makes a one-layer image from the tar of a root file system, plain or
// compressed.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	const op = "import image"
	var reg Registration
	if o.Ref != "" {
		tagged, err := tagToGive(op, o.Ref)
		if err != nil {
			return nil, err
		}
		reg.Tags = append(reg.Tags, tagged)
	}
	config, err := ApplyChanges(v1.DockerOCIImageConfig{}, o.Changes)
	if err != nil {
		return nil, err
	}
	platform := HostPlatform()
	if o.Platform != nil {
		platform = *o.Platform
	}
	if platform.OS == "" {
		platform.OS = "linux"
	}
	if platform.Architecture == "" {
		platform.Architecture = HostPlatform().Architecture
	}

	hold := s.layers.Hold()
	defer s.Release(hold)
	l, err := hold.Apply(ctx, "", r)
	if err != nil {
		return nil, fault.Wrap(op, o.Ref, err)
	}
	// An archive of no files is one all the same: images for static programs begin so.
	if l.DiffID == digest.FromBytes(nil) {
		return nil, fault.New(fault.Invalid, op, o.Ref, "the archive is empty")
	}
	message := o.Message
	if message == "" {
		message = "Imported from -"
	}
	now := created()
	image := v1.DockerOCIImage{Config: config}
	image.Created = now
	image.Platform = platform
	image.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{l.DiffID}}
	image.History = []ocispec.History{{Created: now, Comment: message}}
	if reg.Config, err = json.Marshal(image); err != nil {
		return nil, fault.Wrap(op, o.Ref, err)
	}
	images, err := s.Register(ctx, hold, []Registration{reg}, o.Progress)
	if err != nil {
		return nil, fault.Wrap(op, o.Ref, err)
	}
	return images[0], nil
}
