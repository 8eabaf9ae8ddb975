package engine

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"berth/internal/engine/images"
	"berth/internal/engine/measure"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	volapi "github.com/moby/moby/api/types/volume"
)

// DiskUsageOptions select what is measured.
type DiskUsageOptions struct {
	// Types limits the answer to container, image, volume, build-cache; none means all.
	Types []string
	// Owners asks whom every byte of the data directory belongs to.
	Owners bool
}

// DiskUsageReport is docker's answer and the account by owners.
type DiskUsageReport struct {
	system.DiskUsage
	LayersSize int64
	Owners     []measure.Owned
}

// DiskUsage measures what containers, images and volumes take.
func (e *Engine) DiskUsage(ctx context.Context, o DiskUsageOptions) (DiskUsageReport, error) {
	var out DiskUsageReport
	want := func(kind system.DiskUsageObject) bool {
		return len(o.Types) == 0 || slices.Contains(o.Types, string(kind))
	}
	for _, t := range o.Types {
		switch system.DiskUsageObject(t) {
		case system.ContainerObject, system.ImageObject, system.VolumeObject, system.BuildCacheObject:
		default:
			return out, fault.New(fault.Invalid, "", "", "unknown object type: %s", t)
		}
	}
	if want(system.ContainerObject) {
		if err := e.containerUsage(ctx, &out); err != nil {
			return out, err
		}
	}
	if want(system.ImageObject) {
		if err := e.imageUsage(ctx, &out); err != nil {
			return out, err
		}
	}
	if want(system.VolumeObject) {
		if err := e.volumeUsage(ctx, &out); err != nil {
			return out, err
		}
	}
	if want(system.BuildCacheObject) {
		u, err := e.BuildUsage(ctx)
		if err != nil {
			return out, err
		}
		out.BuildCacheUsage = u
	}
	if !o.Owners {
		return out, nil
	}
	names, err := e.owners(ctx)
	if err != nil {
		return out, err
	}
	out.Owners, err = measure.Owners(ctx, e.cfg.Root, names)
	return out, err
}

// owners names whom containers' directories and layers belong to: images before
// others.
func (e *Engine) owners(ctx context.Context) (measure.Names, error) {
	names := measure.Names{Containers: map[string]string{}, Layers: map[string]string{}}
	for _, d := range e.layers.List() {
		if e.builder.KeepsLayer(d) {
			names.Layers[d.Encoded()] = "build cache"
		}
	}
	for _, c := range e.containers.All() {
		rec := c.Record()
		names.Containers[c.ID] = rec.Name
		for _, d := range rec.Layers {
			names.Layers[d.Encoded()] = "container " + rec.Name
		}
	}
	for d, ids := range e.images.LayerUsers() {
		called := make([]string, 0, len(ids))
		for _, id := range ids {
			img, err := e.images.Get(ctx, id.String())
			if err != nil {
				continue // it has gone meanwhile
			}
			called = append(called, cmp.Or(strings.Join(img.RepoTags, ", "), id.Encoded()[:12]))
		}
		slices.Sort(called)
		if len(called) > 0 {
			names.Layers[d.Encoded()] = strings.Join(slices.Compact(called), ", ")
		}
	}
	return names, ctx.Err()
}

func (e *Engine) containerUsage(ctx context.Context, out *DiskUsageReport) error {
	list, err := e.ContainerList(ctx, ListOptions{All: true, Size: true})
	if err != nil {
		return err
	}
	u := &api.DiskUsage{Items: list, TotalCount: int64(len(list))}
	for _, c := range list {
		u.TotalSize += c.SizeRw
		switch c.State {
		case api.StateRunning, api.StatePaused, api.StateRestarting:
			u.ActiveCount++
		default:
			u.Reclaimable += c.SizeRw
		}
	}
	out.ContainerUsage = u
	return nil
}

func (e *Engine) imageUsage(ctx context.Context, out *DiskUsageReport) error {
	list, err := e.ImageList(ctx, images.ListOptions{SharedSize: true, ContainerCount: true})
	if err != nil {
		return err
	}
	all, err := e.images.Usage(ctx)
	if err != nil {
		return err
	}
	u := &image.DiskUsage{Items: list, TotalCount: int64(len(list)), TotalSize: all.Layers}
	used := int64(0)
	for _, i := range list {
		if i.Containers > 0 {
			u.ActiveCount++
			used += i.Size
			if i.SharedSize > 0 {
				used -= i.SharedSize
			}
		}
	}
	u.Reclaimable = max(all.Layers-used, 0)
	out.ImageUsage, out.LayersSize = u, all.Layers
	return nil
}

func (e *Engine) volumeUsage(ctx context.Context, out *DiskUsageReport) error {
	u := &volapi.DiskUsage{Items: []volapi.Volume{}}
	for _, v := range e.volumes.List() {
		if v.Elsewhere() {
			continue // takes nothing here
		}
		size, err := e.volumes.Size(ctx, v.Name)
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			size = -1 // not known
		}
		shown := e.describeVolume(v)
		shown.UsageData = &volapi.UsageData{Size: size, RefCount: int64(len(e.volumeUsers(v.Name)))}
		u.TotalCount++
		u.TotalSize += max(size, 0)
		if shown.UsageData.RefCount > 0 {
			u.ActiveCount++
		} else {
			u.Reclaimable += max(size, 0)
		}
		u.Items = append(u.Items, shown)
	}
	out.VolumeUsage = u
	return nil
}
