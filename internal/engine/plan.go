package engine

import (
	"context"

	"berth/internal/container"
	"berth/internal/engine/builds"
	"berth/internal/engine/filter"
	"berth/internal/engine/reclaim"
	"berth/internal/fault"
	"berth/internal/wire"

	"github.com/moby/moby/api/types/mount"
)

// Plan tells what removals would do, each as if those before it had been made, and
// removes nothing. It decides as they do.
func (e *Engine) Plan(ctx context.Context, req wire.PlanRequest) (*reclaim.Ahead, error) {
	ahead := e.unused.Ahead()
	for _, p := range req.Prunes {
		if err := e.planPrune(ctx, p, ahead); err != nil {
			return nil, err
		}
	}
	if req.Remove == nil {
		return ahead, nil
	}
	return ahead, e.planRemoval(ctx, req.Remove, ahead)
}

func (e *Engine) planPrune(ctx context.Context, p wire.PlanPrune, ahead *reclaim.Ahead) error {
	f := filter.Set(p.Filters)
	switch p.Kind {
	case wire.PlanContainers:
		return e.planContainerPrune(ctx, f, ahead)
	case wire.PlanNetworks:
		return e.PlanNetworkPrune(f, ahead)
	case wire.PlanVolumes:
		plan, err := e.volumePlan(ctx, f, ahead)
		ahead.Add(plan)
		return err
	case wire.PlanImages:
		return e.unused.PlanPrune(ctx, f, ahead)
	case wire.PlanCache:
		return e.PlanBuildPrune(ctx, builds.PruneOptions{All: p.All, MaxUsed: p.MaxUsed, MinFree: p.MinFree, Reserved: p.Reserved, Filters: f}, ahead)
	}
	return unknownKind(p.Kind)
}

func (e *Engine) planRemoval(ctx context.Context, r *wire.PlanRemoval, ahead *reclaim.Ahead) error {
	switch r.Kind {
	case wire.PlanContainers:
		return e.planContainers(ctx, r, ahead)
	case wire.PlanImages:
		return e.unused.PlanRemoval(ctx, r.Refs, r.Force, !r.NoPrune, ahead)
	case wire.PlanVolumes:
		return e.planVolumes(ctx, r, ahead)
	case wire.PlanNetworks:
		e.PlanNetworkRemoval(r.Refs, ahead)
		return nil
	}
	return unknownKind(r.Kind)
}

func unknownKind(kind string) error {
	return fault.New(fault.Invalid, "plan a removal", kind, "no such kind of things").WithHint("use container, network, volume, image or build-cache")
}

func (e *Engine) planContainerPrune(ctx context.Context, f filter.Set, ahead *reclaim.Ahead) error {
	plan, chosen, err := e.containerPlan(f)
	if err != nil {
		return err
	}
	ahead.Keep = append(ahead.Keep, plan.Keep...)
	for i, c := range chosen {
		item := plan.Remove[i]
		item.Size = e.writableSize(c.ID)
		if err := ahead.GoContainer(ctx, c.Record(), item); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// planContainers plans the removal of containers by name. What one of them would keep
// from going (a volume) goes with the last.
func (e *Engine) planContainers(ctx context.Context, r *wire.PlanRemoval, ahead *reclaim.Ahead) error {
	var going []*container.Record
	with := map[string]bool{} // of going: anonymous volumes go, too
	for _, ref := range r.Refs {
		c, err := e.containers.Find(ref)
		if err != nil {
			ahead.Refuse(ref, reclaim.Item{}, err)
			continue
		}
		rec := c.Record()
		item := reclaim.Item{Kind: wire.PlanContainers, ID: rec.ID, Names: []string{rec.Name}, Size: e.writableSize(c.ID), Reason: "it was named, and does not run"}
		if ahead.Gone(rec.ID) {
			continue // named twice
		}
		if rec.State.Up() {
			if !r.Force {
				ahead.Refuse(ref, item, runningRefused(c))
				continue
			}
			item.Reason = "it was named; it runs and would be killed"
		}
		if err := ahead.GoContainer(ctx, rec, item); err != nil {
			return err
		}
		going = append(going, rec)
		with[rec.ID] = r.Volumes || rec.HostConfig.AutoRemove && rec.State.Up()
	}
	for _, rec := range going {
		e.planOwnVolumes(ctx, rec, with, ahead)
	}
	return ctx.Err()
}

// planOwnVolumes notes which of its volumes go with a container, given those that go
// with theirs.
func (e *Engine) planOwnVolumes(ctx context.Context, rec *container.Record, with map[string]bool, ahead *reclaim.Ahead) {
	stays := func(c *container.Container) bool { return !ahead.Gone(c.ID) }
	for _, m := range rec.Mounts {
		if m.Type != mount.TypeVolume || m.Name == "" || ahead.GoneVolume(m.Name) {
			continue
		}
		item := reclaim.Item{Kind: wire.PlanVolumes, ID: m.Name, Size: e.volumeSize(ctx, m.Name), Reason: "only containers that go mount it, and nobody named it"}
		keep := "it has a name"
		switch users := e.volumeUsersThat(m.Name, stays); {
		case len(users) > 0:
			keep = "mounted by container " + users[0].Record().Name
		case !m.Anonymous:
		case !with[rec.ID]:
			keep = "nobody asked for volumes to go"
		case len(e.volumeUsersThat(m.Name, func(c *container.Container) bool { return !with[c.ID] })) > 0:
			keep = "it goes only if its --rm container is the last to end"
		default:
			keep = ""
		}
		if keep == "" {
			ahead.Go(item)
		} else {
			ahead.Decide(item, "", keep)
		}
	}
}

func (e *Engine) planVolumes(ctx context.Context, r *wire.PlanRemoval, ahead *reclaim.Ahead) error {
	for _, name := range r.Refs {
		if ahead.GoneVolume(name) {
			continue // named twice
		}
		if _, ok := e.volumes.Get(name); !ok {
			if !r.Force {
				ahead.Refuse(name, reclaim.Item{}, noSuchVolume(name))
			}
			continue
		}
		item := reclaim.Item{Kind: wire.PlanVolumes, ID: name, Size: e.volumeSize(ctx, name), Reason: "it was named, and no container mounts it"}
		if err := volumeInUse(name, e.volumeUsersThat(name, func(c *container.Container) bool { return !ahead.Gone(c.ID) })); err != nil {
			ahead.Refuse(name, item, err)
			continue
		}
		ahead.Go(item)
	}
	return ctx.Err()
}

// writableSize is what a container's writable layer takes, in bytes.
func (e *Engine) writableSize(id string) int64 {
	size, err := e.layers.WritableSize(id)
	if err != nil {
		e.log.Debug("measure a writable layer", "container", id, "error", err)
	}
	return max(size, 0)
}

// volumeSize is what a volume takes, in bytes.
func (e *Engine) volumeSize(ctx context.Context, name string) int64 {
	size, err := e.volumes.Size(ctx, name)
	if err != nil && ctx.Err() == nil {
		e.log.Warn("measure volume", "volume", name, "error", err)
	}
	return max(size, 0)
}
