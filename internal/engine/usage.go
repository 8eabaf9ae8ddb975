package engine

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"berth/internal/engine/images"
	"berth/internal/fault"
	"berth/internal/volume"

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

// Owned is a part of the data directory and whom it belongs to.
type Owned struct {
	Kind  string // container, log, layer, volume, blobs, database or other
	Owner string // id or name; the path for what belongs to the engine itself
	Path  string // below the data directory
	Size  int64  // bytes on disk
}

// DiskUsageReport is docker's answer and the account by owners.
type DiskUsageReport struct {
	system.DiskUsage
	LayersSize int64
	Owners     []Owned
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
		u, err := e.buildUsage(ctx)
		if err != nil {
			return out, err
		}
		out.BuildCacheUsage = u
	}
	if !o.Owners {
		return out, nil
	}
	var err error
	out.Owners, err = e.owners(ctx)
	return out, err
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

// owners walks the whole data directory: what it returns adds up to what du says.
func (e *Engine) owners(ctx context.Context) ([]Owned, error) {
	var out []Owned
	add := func(kind, owner, path string) error {
		size, err := volume.DiskUsage(ctx, filepath.Join(e.cfg.Root, path))
		if err != nil {
			return fault.Wrap("measure", path, err)
		}
		out = append(out, Owned{kind, owner, path, size})
		return nil
	}
	top, err := os.ReadDir(e.cfg.Root)
	if err != nil {
		return nil, wrapFS("read", e.cfg.Root, err)
	}
	for _, entry := range top {
		name := entry.Name()
		var err error
		switch name {
		case "containers", "layers", "volumes":
			err = e.membersOwned(name, add)
		case "content":
			err = add("blobs", "images", name)
		case "metadata.db":
			err = add("database", name, name)
		default:
			err = add("other", name, name)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// membersOwned accounts for each entry of a directory that holds one thing each.
func (e *Engine) membersOwned(dir string, add func(kind, owner, path string) error) error {
	entries, err := os.ReadDir(filepath.Join(e.cfg.Root, dir))
	if err != nil {
		return wrapFS("read", dir, err)
	}
	kind := map[string]string{"containers": "container", "layers": "layer", "volumes": "volume"}[dir]
	for _, entry := range entries {
		owner := entry.Name()
		if c := e.containers.Get(owner); dir == "containers" && c != nil {
			owner = c.Record().Name
		}
		if err := add(kind, owner, filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}
