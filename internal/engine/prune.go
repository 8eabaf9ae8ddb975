package engine

import (
	"context"
	"strconv"
	"sync"

	"berth/internal/container"
	"berth/internal/engine/filter"
	"berth/internal/engine/reclaim"

	"github.com/moby/moby/api/types/events"
)

// ContainerPruneReport is what a prune did or, after a dry run, what it would do.
type ContainerPruneReport struct {
	ContainersDeleted []string
	SpaceReclaimed    uint64 // bytes
	reclaim.Plan
}

// ImagePrune removes images that no container uses: those without a tag or, with the
// filter dangling=false, all.
func (e *Engine) ImagePrune(ctx context.Context, o reclaim.ImageOptions) (reclaim.ImageReport, error) {
	return e.unused.Prune(ctx, o)
}

// budgeted is the data directory with its budget.
func (e *Engine) budgeted() reclaim.Directory {
	return reclaim.Directory{Root: e.cfg.Root, Fresh: e.cfg.DiskBudgetFresh, Engine: e.id,
		Intake: e.intake, Images: e.unused, Cache: e.builder, DB: e.db, Log: e.log}
}

// pruneAtOnce is how many containers are removed side by side: their commits are
// shared and their files are deleted in parallel.
const pruneAtOnce = 16

// ContainerPrune removes the containers that do not run.
func (e *Engine) ContainerPrune(ctx context.Context, f filter.Set, dryRun bool) (ContainerPruneReport, error) {
	out := ContainerPruneReport{ContainersDeleted: []string{}}
	if err := f.Check("label", "label!", "until"); err != nil {
		return out, err
	}
	until, err := f.Until()
	if err != nil {
		return out, err
	}
	var chosen []*container.Container
	for _, c := range e.containers.All() {
		rec := c.Record()
		keep := "it runs"
		if !rec.State.Up() {
			keep = reclaim.Spared(f, until, rec.Created, rec.Config.Labels)
		}
		if out.Decide(reclaim.Item{Kind: "container", ID: rec.ID, Names: []string{rec.Name}}, "it does not run", keep) {
			chosen = append(chosen, c)
		}
	}
	var mu sync.Mutex // guards out and next
	var work sync.WaitGroup
	next := 0
	for range min(pruneAtOnce, len(chosen)) {
		work.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(chosen) {
					return
				}
				size, gone := e.pruneContainer(ctx, chosen[i], dryRun)
				mu.Lock()
				out.Remove[i].Size = size
				if gone {
					out.ContainersDeleted = append(out.ContainersDeleted, chosen[i].ID)
					out.SpaceReclaimed += uint64(size)
				}
				mu.Unlock()
			}
		})
	}
	work.Wait()
	if err := ctx.Err(); err != nil {
		return out, err
	}
	if !dryRun {
		e.publishPrune(events.ContainerEventType, out.SpaceReclaimed)
	}
	return out, nil
}

// pruneContainer removes one container unless it has been started meanwhile.
func (e *Engine) pruneContainer(ctx context.Context, c *container.Container, dryRun bool) (size int64, gone bool) {
	size, err := e.layers.WritableSize(c.ID)
	if err != nil {
		e.log.Debug("measure a writable layer", "container", c.ID, "error", err)
	}
	if dryRun {
		return max(size, 0), true
	}
	if c.Lock(ctx) != nil {
		return 0, false
	}
	defer c.Unlock()
	if c.Gone() || c.State().Up() {
		return 0, false
	}
	if err := e.destroy(context.WithoutCancel(ctx), c, false); err != nil {
		e.log.Warn("prune container", "container", c.ID, "error", err)
		return 0, false
	}
	return max(size, 0), true
}

// publishPrune tells that a prune has taken place, and what came of it.
func (e *Engine) publishPrune(typ events.Type, bytes uint64) {
	e.bus.Publish(typ, events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatUint(bytes, 10)})
}
