package engine

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/build/solve"
	"berth/internal/engine/filter"
	"berth/internal/image"
	"berth/internal/metadata"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
)

func itoa64(n int64) string { return strconv.FormatInt(n, 10) }

// budgetItem is something that may go: an image, or a part of the build cache.
type budgetItem struct {
	img   *image.Image // nil: of the build cache
	cache string       // id in the cache
	last  time.Time    // of its use
	size  int64        // bytes that come back with it alone
}

// makeRoom removes what nobody uses, the least recently used first, until so many
// bytes have come back, and returns how many have.
func (e *Engine) makeRoom(need int64) (freed int64) {
	if n, err := e.content.DropPartials(budgetPartial); err == nil && n > 0 {
		e.log.Info("disk budget: removed broken-off downloads", "bytes", n)
		freed += n
	}
	// What an image shared with the cache is the cache's alone once it is gone.
	for range 3 {
		n := e.makeRoomOnce(need - freed)
		freed += n
		if n == 0 || freed >= need {
			break
		}
	}
	return freed
}

func (e *Engine) makeRoomOnce(need int64) (freed int64) {
	ctx := e.life
	images, err := e.images.List(ctx)
	if err != nil {
		return 0
	}
	if !e.pruningImages.CompareAndSwap(false, true) {
		return freed // a prune is at it already
	}
	defer e.pruningImages.Store(false)
	plan := e.planPrune(images, &pruneFilter{filters: filter.Set{}})
	account := e.accountOf(ctx, images)
	cache, err := e.builder.Usage(ctx)
	if err != nil {
		e.log.Warn("disk budget: the build cache cannot be listed", "error", err)
	}
	gone := map[digest.Digest]bool{}
	for _, it := range e.budgetPlan(plan, account, cache, time.Now().Add(-e.budgetFresh())) {
		if freed >= need || ctx.Err() != nil {
			break
		}
		freed += e.spendItem(ctx, it, account, gone)
	}
	return freed
}

// budgetPlan lists what may go, in the order in which it does: of what a prune of
// all images would take and of the cache, what was not used since a time.
func (e *Engine) budgetPlan(plan *imagePlan, account *account, cache []solve.Item, before time.Time) []budgetItem {
	var list []budgetItem
	last := e.lastUses(plan.remove)
	for _, img := range plan.remove {
		if last[img.ID].Before(before) {
			list = append(list, budgetItem{img: img, last: last[img.ID], size: account.alone(img.ID, nil)})
		}
	}
	for _, it := range cache {
		if !it.InUse && !it.Shared && it.LastUsed.Before(before) {
			list = append(list, budgetItem{cache: it.ID, last: it.LastUsed, size: it.Size})
		}
	}
	// The plan names images before those that they were made from.
	slices.SortStableFunc(list, func(a, b budgetItem) int { return a.last.Compare(b.last) })
	return list
}

// spendItem removes one thing and says so.
func (e *Engine) spendItem(ctx context.Context, it budgetItem, a *account, gone map[digest.Digest]bool) int64 {
	why := map[string]string{"reason": "disk budget", "budget": itoa64(e.intake.Limit()), "lastUsed": it.last.UTC().Format(time.RFC3339)}
	if it.img == nil {
		went, err := e.builder.Prune(ctx, solve.PruneOptions{Filter: func(i solve.Item) bool { return i.ID == it.cache }})
		if err != nil || len(went.Items) == 0 {
			return 0
		}
		why["reclaimed"] = itoa64(went.Freed)
		e.bus.Publish(events.BuilderEventType, events.ActionPrune, it.cache, why)
		e.log.Info("disk budget: removed from the build cache", "id", it.cache, "bytes", went.Freed, "lastUsed", it.last)
		return went.Freed
	}
	before := e.freed(a, gone)
	deleted := e.pruneOne(ctx, it.img)
	if len(deleted) == 0 {
		return 0
	}
	gone[it.img.ID] = true
	freed := e.freed(a, gone) - before
	e.forgetUse(it.img.ID)
	why["reclaimed"], why["name"] = itoa64(freed), strings.Join(it.img.RepoTags, ",")
	e.bus.Publish(events.ImageEventType, events.ActionPrune, it.img.ID.String(), why)
	e.log.Info("disk budget: removed an image", "image", it.img.ID.String(), "names", it.img.RepoTags, "bytes", freed, "lastUsed", it.last)
	return freed
}

// lastUses tells when images were last used; of those of which no use was seen,
// when they came or when a container was made of them.
func (e *Engine) lastUses(images []*image.Image) map[digest.Digest]time.Time {
	e.budget.mu.Lock()
	out := maps.Clone(e.budget.used)
	e.budget.mu.Unlock()
	if out == nil {
		out = map[digest.Digest]time.Time{}
	}
	latest := func(id digest.Digest, t time.Time) {
		if t.After(out[id]) {
			out[id] = t
		}
	}
	for _, c := range e.containers.All() {
		rec := c.Record()
		latest(rec.ImageID, rec.Created)
		latest(rec.ImageID, rec.State.StartedAt)
	}
	for _, img := range images {
		latest(img.ID, img.LastTagged)
	}
	return out
}

// concernsUse picks the events that tell of a use of an image.
func concernsUse(m *events.Message) bool {
	switch m.Type {
	case events.ContainerEventType:
		return m.Action == events.ActionCreate || m.Action == events.ActionStart || m.Action == events.ActionDie || m.Action == events.ActionDestroy
	case events.ImageEventType:
		switch m.Action {
		case events.ActionPull, events.ActionLoad, events.ActionImport, events.ActionTag, events.ActionPush, events.ActionSave:
			return true
		}
	}
	return false
}

// noteUse remembers a use that an event tells of.
func (e *Engine) noteUse(m *events.Message) {
	var id digest.Digest
	switch {
	case m.Type == events.ContainerEventType && (m.Action == events.ActionCreate || m.Action == events.ActionStart):
		if c := e.containers.Get(m.Actor.ID); c != nil {
			id = c.Record().ImageID
		}
	case m.Type == events.ImageEventType:
		if img, err := e.images.Get(e.life, m.Actor.ID); err == nil {
			id = img.ID
		}
	}
	if id == "" {
		return
	}
	b := &e.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used[id], b.dirty = time.Unix(0, m.TimeNano), true
}

func (e *Engine) forgetUse(id digest.Digest) {
	b := &e.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.used, id)
	b.dirty = true
}

// imageUses is the record of when images were used. It is written once a minute
// when something has changed, and at the end: what a crash loses is a minute.
type imageUses struct{ Last map[digest.Digest]time.Time }

var (
	imageUsesBucket = metadata.NewBucket[imageUses]("budget")
	imageUsesKey    = "uses"
)

func (e *Engine) readUses() {
	err := e.db.View(func(tx *metadata.Tx) error {
		u, err := imageUsesBucket.Get(tx, imageUsesKey)
		if err == nil {
			maps.Copy(e.budget.used, u.Last)
		}
		return nil
	})
	if err != nil {
		e.log.Warn("disk budget: uses of images cannot be read", "error", err)
	}
}

func (e *Engine) saveUses() {
	b := &e.budget
	b.mu.Lock()
	dirty, used := b.dirty, maps.Clone(b.used)
	b.dirty = false
	b.mu.Unlock()
	if !dirty {
		return
	}
	ctx := context.WithoutCancel(e.life)
	if images, err := e.images.List(ctx); err == nil {
		maps.DeleteFunc(used, func(id digest.Digest, _ time.Time) bool {
			return !slices.ContainsFunc(images, func(i *image.Image) bool { return i.ID == id })
		})
	}
	err := e.db.Update(func(tx *metadata.Tx) error { return imageUsesBucket.Put(tx, imageUsesKey, imageUses{used}) })
	if err != nil {
		e.log.Warn("disk budget: uses of images cannot be written", "error", err)
	}
}
