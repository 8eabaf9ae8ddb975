package reclaim

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"berth/internal/engine/images"
	"berth/internal/image"
	"berth/internal/metadata"

	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
)

// uses remembers when images were last used. It learns of that from the events, so
// that a start pays nothing for it.
type uses struct {
	stock *images.Stock
	db    *metadata.DB
	log   *slog.Logger

	mu    sync.Mutex // guards what follows; nothing else is locked under it
	last  map[digest.Digest]time.Time
	dirty bool // last is not on disk yet
}

// of tells when images were last used; of those of which no use was seen,
// when they came or when a container was made of them.
func (u *uses) of(all []*image.Image) map[digest.Digest]time.Time {
	u.mu.Lock()
	out := maps.Clone(u.last)
	u.mu.Unlock()
	latest := func(id digest.Digest, t time.Time) {
		if t.After(out[id]) {
			out[id] = t
		}
	}
	for _, c := range u.stock.Containers.All() {
		rec := c.Record()
		for _, id := range rec.Images() {
			latest(id, rec.Created)
			latest(id, rec.State.StartedAt)
		}
	}
	for _, img := range all {
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

// note remembers a use that an event tells of.
func (u *uses) note(ctx context.Context, m *events.Message) {
	var used []digest.Digest
	switch {
	case m.Type == events.ContainerEventType && (m.Action == events.ActionCreate || m.Action == events.ActionStart):
		if c := u.stock.Containers.Get(m.Actor.ID); c != nil {
			used = c.Record().Images()
		}
	case m.Type == events.ImageEventType:
		if img, err := u.stock.Images.Get(ctx, m.Actor.ID); err == nil {
			used = []digest.Digest{img.ID}
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, id := range used {
		u.last[id], u.dirty = time.Unix(0, m.TimeNano), true
	}
}

func (u *uses) forget(id digest.Digest) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.last, id)
	u.dirty = true
}

// imageUses is the record of when images were used. It is written once a minute
// when something has changed, and at the end: what a crash loses is a minute.
type imageUses struct{ Last map[digest.Digest]time.Time }

var (
	imageUsesBucket = metadata.NewBucket[imageUses]("budget")
	imageUsesKey    = "uses"
)

func (u *uses) read() {
	err := u.db.View(func(tx *metadata.Tx) error {
		saved, err := imageUsesBucket.Get(tx, imageUsesKey)
		if err == nil {
			maps.Copy(u.last, saved.Last)
		}
		return nil
	})
	if err != nil {
		u.log.Warn("disk budget: uses of images cannot be read", "error", err)
	}
}

func (u *uses) save(ctx context.Context) {
	u.mu.Lock()
	dirty, last := u.dirty, maps.Clone(u.last)
	u.dirty = false
	u.mu.Unlock()
	if !dirty {
		return
	}
	if all, err := u.stock.Images.List(ctx); err == nil {
		maps.DeleteFunc(last, func(id digest.Digest, _ time.Time) bool {
			return !slices.ContainsFunc(all, func(i *image.Image) bool { return i.ID == id })
		})
	}
	err := u.db.Update(func(tx *metadata.Tx) error { return imageUsesBucket.Put(tx, imageUsesKey, imageUses{last}) })
	if err != nil {
		u.log.Warn("disk budget: uses of images cannot be written", "error", err)
	}
}
