package reclaim

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"berth/internal/engine/filter"
	"berth/internal/engine/images"
	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/wire"

	"github.com/moby/moby/api/types/events"
	api "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// ImageReport is what a prune did.
type ImageReport struct {
	ImagesDeleted  []api.DeleteResponse
	SpaceReclaimed uint64 // bytes
}

// Others keep blobs and layers beside images and containers: the engine's own
// registry, the cache of builds.
type Others interface {
	Keeps(ctx context.Context, blob digest.Digest) bool
	KeepsLayer(d digest.Digest) bool
}

// Images removes images that nobody uses.
type Images struct {
	stock  *images.Stock
	others Others
	log    *slog.Logger
	busy   atomic.Bool // a prune is at it
}

// NewImages returns what removes images of a stock.
func NewImages(stock *images.Stock, others Others, log *slog.Logger) *Images {
	return &Images{stock: stock, others: others, log: log}
}

// imagePlan is what a prune of images does: made once, printed by a dry run,
// carried out by a real one.
type imagePlan struct {
	remove []*image.Image
	untag  []*image.Image         // lose their names and stay, since kept ones were made from them
	keep   []keptImage            // those, too
	goes   map[digest.Digest]bool // ids of remove
}

type keptImage struct {
	img *image.Image
	why string
}

// pruneFilter is what a prune is narrowed by.
type pruneFilter struct {
	danglingOnly bool
	until        time.Time
	filters      filter.Set
}

func readPruneFilter(f filter.Set) (*pruneFilter, error) {
	if err := f.Check("dangling", "label", "label!", "until"); err != nil {
		return nil, err
	}
	out := &pruneFilter{filters: f}
	var err error
	if out.danglingOnly, err = f.Bool("dangling", true); err != nil {
		return nil, err
	}
	out.until, err = f.Until()
	return out, err
}

// Prune removes images that no container uses: those without a tag or, with
// the filter dangling=false, all. The other filters are until, label and label!.
func (p *Images) Prune(ctx context.Context, set filter.Set) (ImageReport, error) {
	f, err := readPruneFilter(set)
	if err != nil {
		return ImageReport{}, err
	}
	// Two plans of the same images would count them twice.
	if !p.busy.CompareAndSwap(false, true) {
		return ImageReport{}, fault.New(fault.Conflict, "", "", "a prune operation is already running")
	}
	defer p.busy.Store(false)
	all, err := p.stock.Images.List(ctx)
	if err != nil {
		return ImageReport{}, err
	}
	report, err := p.carryOut(ctx, p.plan(all, f, nil), p.accountOf(ctx, all))
	p.stock.Bus.Publish(events.ImageEventType, events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)})
	return report, err
}

// PlanPrune adds to a plan what a prune of images would do.
func (p *Images) PlanPrune(ctx context.Context, set filter.Set, a *Ahead) error {
	f, err := readPruneFilter(set)
	if err != nil {
		return err
	}
	all, err := p.stock.Images.List(ctx)
	if err != nil {
		return err
	}
	if err := a.openAccount(ctx); err != nil {
		return err
	}
	plan := p.plan(all, f, a)
	for _, img := range plan.remove {
		why := "no tag names it and no container uses it"
		if !img.Dangling() {
			why = "no container uses it"
		}
		a.goImage(img.ID, Item{Kind: wire.PlanImages, ID: img.ID.String(), Names: img.RepoTags, Reason: why})
	}
	for _, img := range plan.untag {
		a.goName(img.ID, slices.Concat(img.RepoTags, img.RepoDigests), "no container uses it")
	}
	for _, k := range plan.keep {
		a.Keep = append(a.Keep, Item{Kind: wire.PlanImages, ID: k.img.ID.String(), Names: k.img.RepoTags, Size: a.account.alone(k.img.ID), Reason: k.why})
	}
	return nil
}

// plan decides about each image, those first that were made from others:
// what a kept one was made from is kept, without a name. What goes before, if anything,
// uses nothing.
func (p *Images) plan(all []*image.Image, f *pruneFilter, before *Ahead) *imagePlan {
	plan := &imagePlan{goes: map[digest.Digest]bool{}}
	var reasons map[digest.Digest]string
	for more := true; more; {
		more = false
		reasons = map[digest.Digest]string{}
		parents := images.ParentsOf(slices.DeleteFunc(slices.Clone(all), func(i *image.Image) bool { return plan.goes[i.ID] }))
		for _, img := range all {
			if plan.goes[img.ID] {
				continue
			}
			if why := p.keepReason(img, f, parents[img.ID], before); why != "" {
				reasons[img.ID] = why
				continue
			}
			plan.remove = append(plan.remove, img)
			plan.goes[img.ID], more = true, true
		}
	}
	for _, img := range all {
		why := reasons[img.ID]
		if why == "" {
			continue
		}
		plan.keep = append(plan.keep, keptImage{img, why})
		if why == madeFrom && !img.Dangling() {
			plan.untag = append(plan.untag, img)
		}
	}
	return plan
}

// madeFrom is why an image stays that has no other use.
const madeFrom = "another image was made from it"

// keepReason says why an image is kept; "" means that it goes.
func (p *Images) keepReason(img *image.Image, f *pruneFilter, isParent bool, before *Ahead) string {
	if users := p.users(img.ID, before); len(users) > 0 {
		more := ""
		if len(users) > 1 {
			more = fmt.Sprintf(" and %d more", len(users)-1)
		}
		return fmt.Sprintf("used by container %s%s", users[0].ID[:min(12, len(users[0].ID))], more)
	}
	labels := img.Config.Config.Labels
	switch {
	case f.danglingOnly && !img.Dangling():
		return "it has a tag; dangling=false takes such images, too"
	case !f.until.IsZero() && img.Created.After(f.until):
		return "it is newer than the filter until says"
	case !f.filters.Labels("label", labels):
		return "it has not the labels that the filter wants"
	case f.filters.Has("label!") && f.filters.Labels("label!", labels):
		return "it has the labels that the filter spares"
	case isParent:
		return madeFrom
	}
	return ""
}

// users returns the containers made from an image that stay.
func (p *Images) users(id digest.Digest, before *Ahead) []image.User {
	return slices.DeleteFunc(p.stock.Users(id), func(u image.User) bool { return before.Gone(u.ID) })
}

// carryOut carries out a plan and tells what went.
func (p *Images) carryOut(ctx context.Context, plan *imagePlan, a *account) (ImageReport, error) {
	var r ImageReport
	gone := map[digest.Digest]bool{}
	var err error
	for _, img := range slices.Concat(plan.remove, plan.untag) {
		if err = ctx.Err(); err != nil {
			break
		}
		deleted := p.remove(ctx, img)
		r.ImagesDeleted = append(r.ImagesDeleted, deleted...)
		gone[img.ID] = slices.ContainsFunc(deleted, func(d api.DeleteResponse) bool { return d.Deleted == img.ID.String() })
	}
	r.SpaceReclaimed = uint64(p.freed(a, gone))
	return r, err
}

// remove removes an image name by name, so that one which somebody has begun
// to use since the plan was made stays.
func (p *Images) remove(ctx context.Context, img *image.Image) []api.DeleteResponse {
	names := slices.Concat(img.RepoTags, img.RepoDigests)
	if len(names) == 0 {
		names = []string{img.ID.String()}
	}
	var all []api.DeleteResponse
	for _, name := range names {
		deleted, err := p.stock.Remove(ctx, name, image.RemoveOptions{}, img)
		if err != nil {
			if !fault.Is(err, fault.NotFound) { // the removal of another name has taken it along
				p.log.Info("image not pruned", "image", name, "error", err)
			}
			continue
		}
		all = append(all, deleted...)
	}
	return all
}

// Sweep deletes layers and blobs that nobody needs. It runs when whoever
// keeps any has said so, and beside everything else.
func (p *Images) Sweep() {
	var freed int64
	for _, collect := range []func() (int64, error){p.stock.Layers.CollectAll, p.stock.Content.CollectAll} {
		n, err := collect()
		if err != nil {
			p.log.Error("layers and blobs without an owner cannot be deleted", "error", err)
		}
		freed += n
	}
	if freed > 0 {
		p.log.Info("deleted layers and blobs without an owner", "bytes", freed)
	}
}
