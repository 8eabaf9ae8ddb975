package images

import (
	"context"
	"io"

	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/transfer"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// PullOptions steer a pull.
type PullOptions struct {
	Platform     *ocispec.Platform // nil means the host's
	AllPlatforms bool              // every platform of an index
	Join         bool              // what is here for other platforms keeps the name
	AllTags      bool              // every tag of the repository
	Auth         registry.AuthConfig
}

// PushOptions steer a push.
type PushOptions struct {
	Platform *ocispec.Platform // nil means all there are
	AllTags  bool              // every tag of the repository that is here
	Auth     registry.AuthConfig
}

// ImagePull fetches an image, or all of a repository's, from a registry.
// Progress goes to out as docker's stream.
func (s *Service) ImagePull(ctx context.Context, ref string, o PullOptions, out io.Writer) (err error) {
	named, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	if reference.FamiliarName(named) == "scratch" {
		return fault.New(fault.Forbidden, "", "", "'scratch' is a reserved name")
	}
	ctx, room := s.intake.Begin(ctx, "pull of "+reference.FamiliarString(named))
	defer func() { err = room.End(ctx, err) }()
	p := &progress{out: out}
	if o.AllTags {
		ref = reference.FamiliarName(named)
	}
	_, _, err = s.remote.Transfers().Pull(ctx, ref, transfer.Options{
		Platform: o.Platform, AllPlatforms: o.AllPlatforms, Join: o.Join, AllTags: o.AllTags, Auth: o.Auth, Progress: room.Watch(ctx, p.send),
		Pulled: func(named reference.Named, img *image.Image) {
			s.stock.Tell(events.ActionPull, reference.FamiliarString(named), reference.FamiliarName(named), img)
		},
	})
	return err
}

// ImagePush sends an image, or all of a repository's, to its registry.
func (s *Service) ImagePush(ctx context.Context, ref string, o PushOptions, out io.Writer) error {
	p := &progress{out: out}
	_, err := s.remote.Transfers().Push(ctx, ref, transfer.PushOptions{
		Platform: o.Platform, AllTags: o.AllTags, Auth: o.Auth, Progress: p.send,
		Pushed: func(named reference.Named, _ digest.Digest) {
			img, err := s.stock.Images.Get(ctx, named.String())
			if err != nil {
				img = nil // it went while it was sent
			}
			s.stock.Tell(events.ActionPush, reference.FamiliarString(named), reference.FamiliarName(named), img)
		},
	})
	return err
}
