package reclaim

import (
	"context"
	"slices"
	"strings"
	"time"

	"berth/internal/build/solve"
	"berth/internal/image"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
)

// candidate is something that may go: an image, or a part of the build cache.
type candidate struct {
	img   *image.Image // nil: of the build cache
	cache string       // id in the cache
	last  time.Time    // of its use
}

// makeRoom removes what nobody uses, the least recently used first, until so many
// bytes have come back, and returns how many have.
func (b *budget) makeRoom(ctx context.Context, need int64) (freed int64) {
	if n, err := b.stock.Content.DropPartials(stalePartial); err == nil && n > 0 {
		b.Log.Info("disk budget: removed broken-off downloads", "bytes", n)
		freed += n
	}
	// What an image shared with the cache is the cache's alone once it is gone.
	for range 3 {
		n := b.makeRoomOnce(ctx, need-freed)
		freed += n
		if n == 0 || freed >= need {
			break
		}
	}
	return freed
}

func (b *budget) makeRoomOnce(ctx context.Context, need int64) (freed int64) {
	all, err := b.stock.Images.List(ctx)
	if err != nil {
		return 0
	}
	if !b.Images.busy.CompareAndSwap(false, true) {
		return 0 // a prune is at it already
	}
	defer b.Images.busy.Store(false)
	plan := b.Images.plan(all, &pruneFilter{}, nil)
	account := b.Images.accountOf(ctx, all)
	cache, err := b.Cache.Usage(ctx)
	if err != nil {
		b.Log.Warn("disk budget: the build cache cannot be listed", "error", err)
	}
	gone := map[digest.Digest]bool{}
	for _, c := range b.candidates(plan, cache, b.since()) {
		if freed >= need || ctx.Err() != nil {
			break
		}
		if c.img == nil {
			freed += b.removeCache(ctx, c)
		} else {
			freed += b.removeImage(ctx, c, account, gone)
		}
	}
	return freed
}

// candidates lists what may go, in the order in which it does: of what a prune of
// all images would take and of the cache, what was not used since a time.
func (b *budget) candidates(plan *imagePlan, cache []solve.Item, before time.Time) []candidate {
	var list []candidate
	last := b.uses.of(plan.remove)
	for _, img := range plan.remove {
		if last[img.ID].Before(before) {
			list = append(list, candidate{img: img, last: last[img.ID]})
		}
	}
	for _, it := range cache {
		if !it.InUse && !it.Shared && it.LastUsed.Before(before) {
			list = append(list, candidate{cache: it.ID, last: it.LastUsed})
		}
	}
	// The plan names images before those that they were made from.
	slices.SortStableFunc(list, func(a, b candidate) int { return a.last.Compare(b.last) })
	return list
}

// removeCache removes one thing from the cache of builds and says so.
func (b *budget) removeCache(ctx context.Context, c candidate) int64 {
	went, err := b.Cache.Prune(ctx, solve.PruneOptions{Filter: func(i solve.Item) bool { return i.ID == c.cache }})
	if err != nil || len(went.Items) == 0 {
		return 0
	}
	b.stock.Bus.Publish(events.BuilderEventType, events.ActionPrune, c.cache, b.reason(c, went.Freed))
	b.Log.Info("disk budget: removed from the build cache", "id", c.cache, "bytes", went.Freed, "lastUsed", c.last)
	return went.Freed
}

// removeImage removes an image and says so. It notes in gone what has gone so far.
func (b *budget) removeImage(ctx context.Context, c candidate, a *account, gone map[digest.Digest]bool) int64 {
	before := b.Images.freed(a, gone)
	if deleted := b.Images.remove(ctx, c.img); len(deleted) == 0 {
		return 0
	}
	gone[c.img.ID] = true
	freed := b.Images.freed(a, gone) - before
	b.uses.forget(c.img.ID)
	why := b.reason(c, freed)
	why["name"] = strings.Join(c.img.RepoTags, ",")
	b.stock.Bus.Publish(events.ImageEventType, events.ActionPrune, c.img.ID.String(), why)
	b.Log.Info("disk budget: removed an image", "image", c.img.ID.String(), "names", c.img.RepoTags, "bytes", freed, "lastUsed", c.last)
	return freed
}

// reason is what an event tells of a removal.
func (b *budget) reason(c candidate, freed int64) map[string]string {
	return map[string]string{"reason": "disk budget", "budget": decimal(b.Intake.Limit()), "lastUsed": c.last.UTC().Format(time.RFC3339), "reclaimed": decimal(freed)}
}
