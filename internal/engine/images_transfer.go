package engine

import (
	"context"
	"io"

	"berth/internal/image"
	"berth/internal/transfer"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
)

// ImagePull fetches an image, or all of a repository's, from a registry.
// Progress goes to out as docker's stream.
func (e *Engine) ImagePull(ctx context.Context, ref string, o ImagePullOptions, out io.Writer) (err error) {
	named, err := image.ParseName(ref)
	if err != nil {
		return err
	}
	ctx, room := e.budget.begin(ctx, "pull of "+familiar(named))
	defer func() { err = room.end(ctx, err) }()
	p := &progress{out: out}
	if o.AllTags {
		ref = reference.FamiliarName(named)
	}
	_, _, err = e.transfers().Pull(ctx, ref, transfer.Options{
		Platform: o.Platform, AllPlatforms: o.AllPlatforms, AllTags: o.AllTags, Auth: o.Auth, Progress: room.watch(ctx, p.send),
		Pulled: func(named reference.Named, img *image.Image) {
			e.emitImage(events.ActionPull, familiar(named), reference.FamiliarName(named), img)
		},
	})
	return err
}

// ImagePush sends an image, or all of a repository's, to its registry.
func (e *Engine) ImagePush(ctx context.Context, ref string, o ImagePushOptions, out io.Writer) error {
	p := &progress{out: out}
	_, err := e.transfers().Push(ctx, ref, transfer.PushOptions{
		Platform: o.Platform, AllTags: o.AllTags, Auth: o.Auth, Progress: p.send,
		Pushed: func(named reference.Named, _ digest.Digest) {
			img, err := e.images.Get(ctx, named.String())
			if err != nil {
				img = nil // it went while it was sent
			}
			e.emitImage(events.ActionPush, familiar(named), reference.FamiliarName(named), img)
		},
	})
	return err
}

// familiar writes a name the way users do.
func familiar(named reference.Named) string { return reference.FamiliarString(named) }
