package reclaim

import (
	"context"

	"berth/internal/container"
	"berth/internal/wire"

	"github.com/opencontainers/go-digest"
)

// Ahead is a plan of several steps in the making: each is decided as if those before it
// had been carried out.
type Ahead struct {
	Plan
	Refused []Refusal
	Freed   int64 // bytes that come back

	images  *Images
	gone    map[digest.Digest]bool // what goes, by id; volumes with volumeKey
	account *account               // nil until it is needed
}

// Refusal is something that was named and cannot be removed.
type Refusal struct {
	Ref string
	Err error
}

// Ahead begins a plan.
func (p *Images) Ahead() *Ahead {
	return &Ahead{images: p, gone: map[digest.Digest]bool{}}
}

// Gone reports whether a container, an image or a network goes. Nothing does without a
// plan.
func (a *Ahead) Gone(id string) bool { return a != nil && a.gone[digest.Digest(id)] }

// GoneVolume reports whether a volume goes.
func (a *Ahead) GoneVolume(name string) bool { return a.Gone(volumeKey + name) }

// volumeKey is before the names of volumes, which may look like ids.
const volumeKey = "volume "

// Add adds a plan that is about other things than those so far.
func (a *Ahead) Add(p Plan) {
	for _, item := range p.Remove {
		a.Go(item)
	}
	a.Keep = append(a.Keep, p.Keep...)
}

// Refuse notes that something that was named stays for a reason. The item is zero when
// there is no such thing.
func (a *Ahead) Refuse(ref string, item Item, err error) {
	a.Refused = append(a.Refused, Refusal{ref, err})
	if item.Kind != "" {
		a.Decide(item, "", err.Error())
	}
}

// Go notes that something goes.
func (a *Ahead) Go(item Item) {
	a.Remove = append(a.Remove, item)
	a.Freed += max(item.Size, 0)
	key := item.ID
	if item.Kind == wire.PlanVolumes {
		key = volumeKey + key
	}
	a.gone[digest.Digest(key)] = true
}

// GoContainer notes that a container goes, with what its writable layer takes; with it go
// layers that no image has any more.
func (a *Ahead) GoContainer(ctx context.Context, rec *container.Record, item Item) error {
	if _, err := a.images.stock.Images.Get(ctx, rec.ImageID.String()); err != nil || a.Gone(rec.ImageID.String()) {
		if err := a.openAccount(ctx); err != nil {
			return err
		}
		item.Size += a.take(digest.Digest(rec.ID))
	}
	a.Go(item)
	return nil
}

// goImage notes that an image goes, and fills in how much comes back.
func (a *Ahead) goImage(id digest.Digest, item Item) {
	item.Size = a.take(id)
	a.Go(item)
}

// goName notes that an image loses names for a reason, and stays.
func (a *Ahead) goName(id digest.Digest, names []string, reason string) {
	a.Remove = append(a.Remove, Item{Kind: wire.PlanImages, ID: id.String(), Names: names, Reason: reason + "; the image stays without the name"})
}

func (a *Ahead) openAccount(ctx context.Context) error {
	if a.account != nil {
		return nil
	}
	all, err := a.images.stock.Images.List(ctx)
	if err != nil {
		return err
	}
	a.account = a.images.accountOf(ctx, all)
	return nil
}

// take is how much comes back when one more image or container goes, in bytes.
func (a *Ahead) take(id digest.Digest) (freed int64) {
	for _, t := range a.account.of[id] {
		last := true
		for user := range a.account.uses[t] {
			last = last && (user == id || a.gone[user])
		}
		if last {
			freed += a.account.size[t]
		}
	}
	return freed
}
