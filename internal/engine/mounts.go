package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/internal/container"
	"berth/internal/container/rootview"
	"berth/internal/fault"
	"berth/internal/volume"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
)

// planMounts puts together what is mounted into a container: mounts taken over
// from others, binds, mounts, tmpfs, and the volumes of the image, each winning
// over the later ones where docker lets it, and refused where not.
func (e *Engine) planMounts(ctx context.Context, rec *container.Record) ([]volume.Mount, error) {
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
		if err := e.findSource(ctx, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// findSource finds what is mounted: a volume's files, an image as it is now.
func (e *Engine) findSource(ctx context.Context, m *volume.Mount) error {
	switch {
	case m.Type == mount.TypeVolume:
		m.Source = e.volumes.Path(m.Name)
	case m.Type == mount.TypeBind && m.From == "":
		return e.guardRoot(m)
	case m.Type == mount.TypeImage && m.From == "":
		img, err := e.images.Get(ctx, m.Name)
		if fault.Is(err, fault.NotFound) {
			// Clients that are told of what is not found pull the container's own image.
			return fault.New(fault.Invalid, "", "", "mount %s: %w", m.Destination, err).WithHint("pull it first")
		}
		if err != nil {
			return err
		}
		m.Source, m.Layers = img.ID.String(), img.DiffIDs
	}
	return nil
}

// guardRoot sees to it that no container keeps what is mounted below the data
// directory from being unmounted: a bind that shows it follows the host's mounts.
func (e *Engine) guardRoot(m *volume.Mount) error {
	if !within(e.cfg.Root, m.Source) && !within(m.Source, e.cfg.Root) {
		return nil
	}
	switch m.Propagation {
	case mount.PropagationRSlave, mount.PropagationRShared:
		return nil
	case "":
		m.Propagation, m.Implied = mount.PropagationRSlave, true
		return nil
	}
	return fault.New(fault.Invalid, "", "", `invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within the daemon root, daemon root: %q, bind mount source: %q, propagation: %q`,
		e.cfg.Root, m.Source, m.Propagation)
}

// within reports whether a clean path is dir or below it.
func within(dir, path string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == '/' || dir == "/")
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

// volumesOf returns the mounts of another container: "NAME[:MODE]".
func (e *Engine) volumesOf(ref string) ([]volume.Mount, error) {
	name, readOnly, err := volume.ParseFrom(ref)
	if err != nil {
		return nil, err
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
		m.ReadOnly = m.ReadOnly || readOnly
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
		if view == nil {
			lower, err := e.layers.Lower(rec.Layers)
			if err != nil {
				return used, fresh, err
			}
			if view, err = rootview.Open(lower); err != nil {
				return used, fresh, err
			}
		}
		if err := e.fill(ctx, view, rec.ID, m); err != nil {
			return used, fresh, err
		}
	}
	return used, fresh, nil
}

// fill copies what the image has at a volume's mount point into the volume, if that
// is empty.
func (e *Engine) fill(ctx context.Context, view *rootview.View, id string, m volume.Mount) error {
	src, err := view.OpenDir(m.Destination)
	if errors.Is(err, syscall.ENOTDIR) {
		return fault.New(fault.Invalid, "", "", "cannot mount volume over existing file, file exists %s", m.Destination)
	}
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer src.Close()
	if err := e.volumes.Mount(m.Name, id); err != nil {
		return err
	}
	defer e.letGo(m.Name, id)
	dst, err := e.volumes.OpenDir(m.Name, m.Subpath)
	if fault.Is(err, fault.NotFound) {
		return nil // shows at start
	}
	if err != nil {
		return err
	}
	defer dst.Close()
	return volume.Populate(ctx, dst, src)
}

// prepareMounts makes sure that what is to be mounted is there, on behalf of user,
// the container itself or somebody who looks at it, and returns the mounts with all
// that whoever mounts them needs.
func (e *Engine) prepareMounts(rec *container.Record, user string) ([]volume.Mount, error) {
	ready := slices.Clone(rec.Mounts)
	for i := range ready {
		m := &ready[i]
		var err error
		switch m.Type {
		case mount.TypeBind:
			err = volume.PrepareSource(*m)
		case mount.TypeVolume:
			if !exists(m.Source) {
				return nil, fault.New(fault.NotFound, "", "", "the files of volume %s are gone: %s", m.Name, m.Source)
			}
			if err = e.volumes.Mount(m.Name, user); err == nil && user == rec.ID {
				e.bus.Publish(events.VolumeEventType, events.ActionMount, m.Name, map[string]string{
					"driver": m.Driver, "container": rec.ID, "destination": m.Destination,
					"read/write": strconv.FormatBool(!m.ReadOnly), "propagation": string(m.Propagation),
				})
			}
		case mount.TypeImage:
			m.Lower, err = e.layers.Lower(m.Layers)
		}
		if err != nil {
			return nil, err
		}
	}
	return ready, nil
}

// letGo ends somebody's use of a volume and reports whether there was one.
func (e *Engine) letGo(name, user string) bool {
	used, err := e.volumes.Unmount(name, user)
	if err != nil {
		e.log.Warn("unmount volume", "volume", name, "error", err)
	}
	return used
}

// letGoAll ends somebody's use of all volumes of a container.
func (e *Engine) letGoAll(rec *container.Record, user string) {
	for _, m := range rec.Mounts {
		if m.Type == mount.TypeVolume {
			e.letGo(m.Name, user)
		}
	}
}

// releaseVolumes ends a container's own use of its volumes.
func (e *Engine) releaseVolumes(rec *container.Record) {
	for _, m := range rec.Mounts {
		if m.Type == mount.TypeVolume && e.letGo(m.Name, rec.ID) {
			e.bus.Publish(events.VolumeEventType, events.ActionUnmount, m.Name, map[string]string{"driver": m.Driver, "container": rec.ID})
		}
	}
}
