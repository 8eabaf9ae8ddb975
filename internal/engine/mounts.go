package engine

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"berth/internal/container"
	"berth/internal/container/rootview"
	"berth/internal/fault"
	"berth/internal/volume"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

// planMounts puts together what is mounted into a container: mounts taken over
// from others, binds, mounts, tmpfs, and the volumes of the image, each winning
// over the later ones where docker lets it, and refused where not.
func (e *Engine) planMounts(rec *container.Record) ([]volume.Mount, error) {
	hc := rec.HostConfig
	byDst := make(map[string]volume.Mount)
	for _, ref := range hc.VolumesFrom {
		taken, err := e.volumesOf(ref)
		if err != nil {
			return nil, err
		}
		for _, m := range taken {
			byDst[m.Destination] = m
		}
	}
	own, err := ownMounts(hc)
	if err != nil {
		return nil, err
	}
	maps.Copy(byDst, own)
	for dst := range rec.Config.Volumes {
		m, err := volume.ParseBind(dst)
		if err != nil {
			return nil, err
		}
		if _, mounted := byDst[m.Destination]; !mounted {
			byDst[m.Destination] = m
		}
	}
	out := slices.SortedFunc(maps.Values(byDst), func(a, b volume.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	for i := range out {
		if out[i].Anonymous && out[i].Name == "" {
			out[i].Name = newID()
		}
		if out[i].Type == mount.TypeVolume {
			out[i].Source = e.volumes.Path(out[i].Name)
		}
	}
	return out, nil
}

// ownMounts are the mounts that a request names itself, by where they are mounted.
func ownMounts(hc *api.HostConfig) (map[string]volume.Mount, error) {
	own := make(map[string]volume.Mount)
	add := func(m volume.Mount) error {
		if _, twice := own[m.Destination]; twice {
			return fault.New(fault.Invalid, "", "", "Duplicate mount point: %s", m.Destination)
		}
		own[m.Destination] = m
		return nil
	}
	for _, spec := range hc.Binds {
		m, err := volume.ParseBind(spec)
		if err != nil {
			return nil, err
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for _, in := range hc.Mounts {
		m, err := volume.ParseMount(in)
		if err != nil {
			return nil, err
		}
		if m.Type == mount.TypeBind && !m.CreateSource {
			if err := volume.PrepareSource(m); err != nil {
				return nil, err
			}
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for dst, opts := range hc.Tmpfs {
		m, err := volume.ParseTmpfs(dst, opts)
		if err != nil {
			return nil, err
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	return own, nil
}

// volumesOf returns the mounts of another container: "NAME[:ro|rw]".
func (e *Engine) volumesOf(ref string) ([]volume.Mount, error) {
	name, mode, hasMode := strings.Cut(ref, ":")
	if hasMode && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
		return nil, fault.New(fault.Invalid, "", "", "invalid mode for volumes-from: %s", mode)
	}
	c, err := e.findForCreate(name)
	if err != nil {
		return nil, err
	}
	var out []volume.Mount
	for _, m := range c.Record().Mounts {
		if m.Type == mount.TypeTmpfs {
			continue
		}
		m.From = c.ID // what nobody named stays so: it goes with the last who has it
		m.ReadOnly = m.ReadOnly || mode == "ro"
		out = append(out, m)
	}
	return out, nil
}

// makeVolumes makes the volumes that a container needs and does not find, and
// fills empty ones from the image. It returns the volumes used, whose records are
// still to be saved, and those among them which are new. A volume that another
// create has just made is saved here as well: that one may not get to it.
func (e *Engine) makeVolumes(ctx context.Context, rec *container.Record) (used, fresh []volume.Volume, err error) {
	var view *rootview.View
	defer func() {
		if view != nil {
			view.Close()
		}
	}()
	for _, m := range rec.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		v := volume.Volume{Name: m.Name, Created: time.Now(), Labels: m.Labels, Anonymous: m.Anonymous, Options: m.DriverOptions}
		if m.Anonymous {
			v.Labels = map[string]string{anonymousLabel: ""}
		}
		isNew, err := e.volumes.Make(v)
		if err != nil {
			return used, fresh, err
		}
		if isNew {
			fresh = append(fresh, v)
		}
		v, _ = e.volumes.Get(m.Name)
		used = append(used, v)
		if m.NoCopy || m.From != "" {
			continue
		}
		if len(v.Options) > 0 {
			if err := e.volumes.Mount(m.Name); err != nil {
				return used, fresh, err
			}
			defer e.unmountIdle(m.Name)
		}
		if !isNew || len(v.Options) > 0 {
			if empty, err := e.volumes.Empty(m.Name); err != nil || !empty {
				continue // filled already; unreadable shows at start
			}
		}
		if view == nil {
			lower, err := e.layers.Lower(rec.Layers)
			if err != nil {
				return used, fresh, err
			}
			if view, err = rootview.Open(lower); err != nil {
				return used, fresh, err
			}
		}
		if err := e.fill(ctx, view, m); err != nil {
			return used, fresh, err
		}
	}
	return used, fresh, nil
}

// fill copies what the image has at a volume's mount point.
func (e *Engine) fill(ctx context.Context, view *rootview.View, m volume.Mount) error {
	src, err := view.OpenDir(m.Destination)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer src.Close()
	return e.volumes.Populate(ctx, m.Name, src)
}
