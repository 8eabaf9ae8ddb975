package engine

import (
	"context"
	"strconv"
	"sync"

	"berth/internal/container"
	"berth/internal/engine/filter"
	"berth/internal/engine/reclaim"
	"berth/internal/wire"

	"github.com/moby/moby/api/types/events"
)

// ContainerPruneReport is what a prune did.
type ContainerPruneReport struct {
	ContainersDeleted []string
	SpaceReclaimed    uint64 // bytes
}

// ImagePrune removes images that no container uses: those without a tag or, with the
// filter dangling=false, all.
func (e *Engine) ImagePrune(ctx context.Context, f filter.Set) (reclaim.ImageReport, error) {
	return e.unused.Prune(ctx, f)
}

// budgeted is the data directory with its budget.
func (e *Engine) budgeted() reclaim.Directory {
	return reclaim.Directory{Root: e.cfg.Root, Fresh: e.cfg.DiskBudgetFresh, Engine: e.id,
		Intake: e.intake, Images: e.unused, Cache: e.builder, DB: e.db, Log: e.log}
}

// pruneAtOnce is how many containers are removed side by side: their commits are
// shared and their files are deleted in parallel.
const pruneAtOnce = 16

// containerPlan decides which containers a prune removes.
func (e *Engine) containerPlan(f filter.Set) (plan reclaim.Plan, chosen []*container.Container, err error) {
	if err := f.Check("label", "label!", "until"); err != nil {
		return plan, nil, err
	}
	until, err := f.Until()
	if err != nil {
		return plan, nil, err
	}
	for _, c := range e.containers.All() {
		rec := c.Record()
		keep := "it runs"
		if !rec.State.Up() {
			keep = reclaim.Spared(f, until, rec.Created, rec.Config.Labels)
		}
		if plan.Decide(reclaim.Item{Kind: wire.PlanContainers, ID: rec.ID, Names: []string{rec.Name}}, "it does not run", keep) {
			chosen = append(chosen, c)
		}
	}
	return plan, chosen, nil
}

// ContainerPrune removes the containers that do not run.
func (e *Engine) ContainerPrune(ctx context.Context, f filter.Set) (ContainerPruneReport, error) {
	out := ContainerPruneReport{ContainersDeleted: []string{}}
	_, chosen, err := e.containerPlan(f)
	if err != nil {
		return out, err
	}
	var mu sync.Mutex // guards out and chosen
	var work sync.WaitGroup
	for range min(pruneAtOnce, len(chosen)) {
		work.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				if len(chosen) == 0 {
					mu.Unlock()
					return
				}
				c := chosen[0]
				chosen = chosen[1:]
				mu.Unlock()
				if size, gone := e.pruneContainer(ctx, c); gone {
					mu.Lock()
					out.ContainersDeleted = append(out.ContainersDeleted, c.ID)
					out.SpaceReclaimed += uint64(size)
					mu.Unlock()
				}
			}
		})
	}
	work.Wait()
	if err := ctx.Err(); err != nil {
		return out, err
	}
	e.publishPrune(events.ContainerEventType, out.SpaceReclaimed)
	return out, nil
}

// pruneContainer removes one container unless it has been started meanwhile.
func (e *Engine) pruneContainer(ctx context.Context, c *container.Container) (size int64, gone bool) {
	size = e.writableSize(c.ID)
	if c.Lock(ctx) != nil {
		return 0, false
	}
	defer c.Unlock()
	if c.Gone() || c.State().Up() {
		return 0, false
	}
	layers, err := e.destroy(context.WithoutCancel(ctx), c, false)
	if err != nil {
		e.log.Warn("prune container", "container", c.ID, "error", err)
		return 0, false
	}
	return size + layers, true
}

// publishPrune tells that a prune has taken place, and what came of it.
func (e *Engine) publishPrune(typ events.Type, bytes uint64) {
	e.bus.Publish(typ, events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatUint(bytes, 10)})
}
