package engine

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/engine/filter"
	"berth/internal/engine/reclaim"
	"berth/internal/fault"
	"berth/internal/metadata"
	"berth/internal/volume"
	"berth/internal/wire"

	apicontainer "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	api "github.com/moby/moby/api/types/volume"
)

// anonymousLabel marks volumes that nobody named, as docker does.
const anonymousLabel = "com.docker.volume.anonymous"

// VolumeList returns the volumes that match, by name.
func (e *Engine) VolumeList(_ context.Context, f filter.Set) ([]api.Volume, error) {
	if err := f.Check("name", "label", "driver", "dangling"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	out := []api.Volume{}
	for _, v := range e.volumes.List() {
		if !f.Match("name", v.Name) || !f.Exact("driver", volume.DriverLocal) || !f.Labels("label", v.Labels) {
			continue
		}
		if f.Has("dangling") && dangling == (len(e.volumeUsers(v.Name)) > 0) {
			continue
		}
		out = append(out, e.describeVolume(v))
	}
	return out, nil
}

// VolumeInspect returns one volume.
func (e *Engine) VolumeInspect(_ context.Context, name string) (api.Volume, error) {
	v, ok := e.volumes.Get(name)
	if !ok {
		return api.Volume{}, noSuchVolume(name)
	}
	return e.describeVolume(v), nil
}

// VolumeCreate makes a volume, unnamed ones under a random name. A volume that
// exists already is returned as it is, unless other options are asked for.
func (e *Engine) VolumeCreate(_ context.Context, req api.CreateRequest) (api.Volume, error) {
	none := api.Volume{}
	if req.Driver != "" && req.Driver != volume.DriverLocal {
		return none, fault.New(fault.NotFound, "", "", "create %s: volume driver %q is not offered by this engine", req.Name, req.Driver).WithHint("use local")
	}
	if req.ClusterVolumeSpec != nil {
		return none, fault.New(fault.Unavailable, "", "", "create %s: cluster volumes need a swarm, and this node is not part of one", req.Name)
	}
	if err := volume.CheckOptions(req.DriverOpts); err != nil {
		return none, fault.New(fault.Invalid, "", "", "create %s: %w", req.Name, err)
	}
	v := volume.Volume{Name: req.Name, Created: time.Now(), Labels: req.Labels, Options: req.DriverOpts}
	if v.Name == "" {
		v.Name, v.Anonymous = newID(), true
		v.Labels = maps.Clone(v.Labels)
		if v.Labels == nil {
			v.Labels = make(map[string]string, 1)
		}
		v.Labels[anonymousLabel] = ""
	} else if err := volume.CheckName(v.Name); err != nil {
		return none, fault.New(fault.Invalid, "", "", "create %s: %w", req.Name, err)
	}
	fresh, err := e.volumes.Make(v)
	if err != nil {
		return none, err
	}
	defer e.volumes.Settle(v.Name)
	// Saved by whoever comes second, too: the first one may not get to it.
	v, _ = e.volumes.Get(v.Name)
	if len(req.DriverOpts) > 0 && !maps.Equal(v.Options, req.DriverOpts) {
		return none, fault.New(fault.Conflict, "", "", "create %s: conflict: volume already exists with other options", v.Name)
	}
	err = e.db.Update(func(tx *metadata.Tx) error { return e.volumes.Put(tx, []volume.Volume{v}) })
	if err != nil {
		if fresh {
			_ = e.volumes.Drop(v.Name)
		}
		return none, fault.Wrap("create volume", v.Name, err)
	}
	if fresh {
		e.publishVolume(events.ActionCreate, v.Name)
	}
	return e.describeVolume(v), nil
}

// VolumeRemove removes a volume which no container mounts. A forced removal of
// one that does not exist is none.
func (e *Engine) VolumeRemove(_ context.Context, name string, force bool) error {
	if _, ok := e.volumes.Get(name); !ok {
		if force {
			return nil
		}
		return noSuchVolume(name)
	}
	return e.removeVolume(name)
}

func (e *Engine) removeVolume(name string) error {
	if !e.volumes.Doom(name) {
		return fault.New(fault.Conflict, "", "", "remove %s: volume is in use", name)
	}
	// Whoever wants to use the volume from now on is refused.
	if err := volumeInUse(name, e.volumeUsers(name)); err != nil {
		e.volumes.Spare(name)
		return err
	}
	err := e.db.Update(func(tx *metadata.Tx) error { return e.volumes.Delete(tx, []string{name}) })
	if err != nil {
		e.volumes.Spare(name)
		return fault.Wrap("remove volume", name, err)
	}
	if err := e.volumes.Drop(name); err != nil {
		// The record is gone: the next engine sweeps the rest.
		e.log.Error("remove files of a volume", "volume", name, "error", err)
	}
	e.publishVolume(events.ActionDestroy, name)
	return nil
}

// volumeInUse says that a volume has users, if it has any.
func volumeInUse(name string, users []*container.Container) error {
	if len(users) == 0 {
		return nil
	}
	var ids, names []string
	for _, c := range users {
		ids, names = append(ids, c.ID), append(names, c.Record().Name)
	}
	slices.Sort(ids)
	slices.Sort(names)
	return fault.New(fault.Conflict, "", "", "remove %s: volume is in use - [%s]", name, strings.Join(ids, ", ")).
		WithHint("mounted by %s", strings.Join(names, ", "))
}

// VolumePruneReport is what a prune did.
type VolumePruneReport struct {
	VolumesDeleted []string
	SpaceReclaimed uint64 // bytes
}

// volumePlan decides which volumes a prune removes, after what goes before, if anything.
func (e *Engine) volumePlan(ctx context.Context, f filter.Set, before *reclaim.Ahead) (plan reclaim.Plan, err error) {
	if err := f.Check("label", "label!", "all"); err != nil {
		return plan, err
	}
	all, err := f.Bool("all", false)
	if err != nil {
		return plan, err
	}
	for _, v := range e.volumes.List() {
		item, keep := reclaim.Item{Kind: wire.PlanVolumes, ID: v.Name}, e.keepVolume(v, f, all, before)
		if keep == "" {
			item.Size = e.volumeSize(ctx, v.Name)
		}
		plan.Decide(item, "no container mounts it", keep)
	}
	return plan, ctx.Err()
}

// VolumePrune removes volumes that no container mounts: those that nobody named,
// and all of them with the filter all.
func (e *Engine) VolumePrune(ctx context.Context, f filter.Set) (VolumePruneReport, error) {
	r := VolumePruneReport{VolumesDeleted: []string{}}
	plan, err := e.volumePlan(ctx, f, nil)
	if err != nil {
		return r, err
	}
	for _, item := range plan.Remove {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		if err := e.removeVolume(item.ID); err != nil {
			e.log.Warn("prune volume", "volume", item.ID, "error", err)
			continue
		}
		r.VolumesDeleted = append(r.VolumesDeleted, item.ID)
		r.SpaceReclaimed += uint64(item.Size)
	}
	e.publishPrune(events.VolumeEventType, r.SpaceReclaimed)
	return r, nil
}

// keepVolume says why a prune keeps a volume; "" means that it goes.
func (e *Engine) keepVolume(v volume.Volume, f filter.Set, all bool, before *reclaim.Ahead) string {
	_, anonymous := v.Labels[anonymousLabel]
	switch users := e.volumeUsersThat(v.Name, func(c *container.Container) bool { return !before.Gone(c.ID) }); {
	case len(users) > 0:
		return "mounted by container " + users[0].Record().Name
	case v.Elsewhere():
		return "its options say where its files are; prune takes only what lies in the data directory"
	case !all && !anonymous && !v.Anonymous:
		return "it has a name; the filter all=true takes such volumes, too"
	}
	return reclaim.Spared(f, time.Time{}, v.Created, v.Labels)
}

// goes reports whether a container is being removed, or is about to be since it ended.
func goes(c *container.Container) bool {
	rec := c.Record()
	return rec.State.Status == apicontainer.StateRemoving || rec.HostConfig.AutoRemove && rec.State.Status == apicontainer.StateExited
}

func (e *Engine) publishVolume(action events.Action, name string) {
	e.bus.Publish(events.VolumeEventType, action, name, map[string]string{"driver": volume.DriverLocal})
}

func (e *Engine) describeVolume(v volume.Volume) api.Volume {
	return api.Volume{
		Name: v.Name, Driver: volume.DriverLocal, Mountpoint: e.volumes.Path(v.Name), Scope: "local",
		CreatedAt: v.Created.UTC().Format(time.RFC3339), Labels: v.Labels, Options: v.Options,
	}
}

// volumeUsers returns the containers that mount a volume.
func (e *Engine) volumeUsers(name string) []*container.Container {
	return e.volumeUsersThat(name, func(*container.Container) bool { return true })
}

// volumeUsersThat returns those of them that count.
func (e *Engine) volumeUsersThat(name string, count func(*container.Container) bool) []*container.Container {
	var users []*container.Container
	for _, c := range e.containers.All() {
		for _, m := range c.Record().Mounts {
			if m.OfVolume(name) && count(c) {
				users = append(users, c)
				break
			}
		}
	}
	return users
}

// takeOwnVolumes returns the anonymous volumes of a container that nobody else mounts,
// which nobody can begin to use from now on. Of several containers that are removed at
// once and share one, exactly one takes it.
func (e *Engine) takeOwnVolumes(rec *container.Record) []string {
	others := func(c *container.Container) bool { return c.ID != rec.ID && !goes(c) }
	var names []string
	for _, m := range rec.Mounts {
		if m.Type == mount.TypeVolume && m.Anonymous && m.Name != "" && len(e.volumeUsersThat(m.Name, others)) == 0 && e.volumes.Doom(m.Name) {
			names = append(names, m.Name)
		}
	}
	return names
}

// spareVolumes gives back what a removal that failed had taken.
func (e *Engine) spareVolumes(names []string) {
	for _, name := range names {
		e.volumes.Spare(name)
	}
}

// adoptVolumes notes which containers that run use which volumes, and ends what an
// earlier engine left mounted for those that do not.
func (e *Engine) adoptVolumes(live map[string]bool) {
	for _, c := range e.containers.All() {
		if !live[c.ID] {
			continue
		}
		for _, m := range c.Record().Mounts {
			if m.Type != mount.TypeVolume {
				continue
			}
			if err := e.volumes.Mount(m.Name, c.ID); err != nil {
				e.log.Error("mount volume of a container that runs", "volume", m.Name, "container", c.ID, "error", err)
			}
		}
	}
	for _, v := range e.volumes.List() {
		e.letGo(v.Name, "")
	}
}

func noSuchVolume(name string) error {
	return fault.New(fault.NotFound, "", "", "get %s: no such volume", name)
}
