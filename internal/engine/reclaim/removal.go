package reclaim

import (
	"context"
	"slices"

	"berth/internal/image"
	"berth/internal/wire"

	"github.com/opencontainers/go-digest"
)

// PlanRemoval adds to a plan what the removal of images by name would do, one after the
// other.
func (p *Images) PlanRemoval(ctx context.Context, refs []string, force, prune bool, a *Ahead) error {
	if err := a.openAccount(ctx); err != nil {
		return err
	}
	o := image.RemoveOptions{Force: force, Prune: prune, InUse: func(id digest.Digest) []image.User { return p.users(id, a) }}
	return p.stock.Images.Rehearse(func(r *image.Rehearsal) error {
		for _, ref := range refs {
			if err := ctx.Err(); err != nil {
				return err
			}
			done, err := r.Remove(ref, o)
			if err != nil {
				a.Refuse(ref, p.named(done.Named, ref), err)
				continue
			}
			p.planRemoved(a, ref, done)
		}
		return nil
	})
}

// named is the item of an image that was named; zero when there is none.
func (p *Images) named(id digest.Digest, ref string) Item {
	if id == "" {
		return Item{}
	}
	return Item{Kind: wire.PlanImages, ID: id.String(), Names: []string{ref}}
}

// planRemoved notes what the removal of one name does.
func (p *Images) planRemoved(a *Ahead, ref string, done image.Rehearsed) {
	var names []string
	for _, d := range done.Answer {
		if d.Untagged != "" {
			names = append(names, d.Untagged)
		}
	}
	if len(names) > 0 && !slices.Contains(done.Deleted, done.Named) {
		a.goName(done.Named, names, "it was named")
		item := p.named(done.Named, ref)
		item.Names, item.Size = nil, a.account.alone(done.Named)
		a.Decide(item, "", done.Stays)
	}
	for i, id := range done.Deleted {
		item := Item{Kind: wire.PlanImages, ID: id.String(), Reason: "it was named"}
		switch {
		case id == done.Named || i == 0 && !slices.Contains(done.Deleted, done.Named):
			item.Names = names
		default:
			item.Reason = "it was there only for what goes"
		}
		a.goImage(id, item)
	}
}
