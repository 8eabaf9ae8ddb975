package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"berth/internal/container"
	"berth/internal/engine/images"
	"berth/internal/fault"
	"berth/internal/layer"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// ImageCommit makes an image of what a container changed and returns its id. A
// running container is frozen meanwhile if that is asked for.
func (e *Engine) ImageCommit(ctx context.Context, o images.CommitOptions) (string, error) {
	c, err := e.containers.Find(o.Container)
	if err != nil {
		return "", err
	}
	ref, err := o.Check()
	if err != nil {
		return "", err
	}
	rec := c.Record()
	if c.Gone() || rec.State.Status == api.StateRemoving || rec.State.Status == api.StateDead {
		return "", fault.New(fault.Conflict, "", "", "You cannot commit container %s which is being removed", rec.ID)
	}
	hold := e.layers.Hold()
	defer e.images.Release(hold)
	hold.Add(rec.Layers...)
	changed, err := e.commitLayer(ctx, c, hold, o.Pause)
	if err != nil {
		if c.Gone() {
			return "", fault.New(fault.NotFound, "", "", "No such container: %s", o.Container)
		}
		return "", err
	}
	img, err := e.stock.Commit(ctx, rec, hold, changed, o, ref)
	if err != nil {
		return "", err
	}
	id := img.ID.String()
	e.emit(rec, events.ActionCommit, map[string]string{"comment": o.Comment, "imageID": id, "imageRef": ref})
	if ref != "" {
		e.stock.Tell(events.ActionTag, id, ref, img)
	}
	return id, nil
}

// commitLayer makes a layer of what a container changed.
func (e *Engine) commitLayer(ctx context.Context, c *container.Container, hold *layer.Hold, pause bool) (l layer.Layer, err error) {
	if pause && c.State().Status == api.StateRunning {
		thaw, err := e.freeze(ctx, c)
		if err != nil {
			return l, err
		}
		defer func() { err = errors.Join(err, thaw()) }()
	}
	upper := filepath.Join(e.dir(c.ID), "upper")
	l, err = hold.Commit(ctx, upper, layer.DiffOptions{Parents: c.Record().Layers, Exclude: mountPointsOnly(upper)})
	return l, fault.Wrap("commit", c.ID, err)
}

// mountPointsOnly reports of paths in a writable layer whether they are only
// there because the engine mounts something over them: in docker's containers
// such files are in a layer of their own, which nobody sees.
func mountPointsOnly(upper string) func(path string) bool {
	return func(path string) bool {
		switch path {
		case "dev", "proc", "sys":
			entries, err := os.ReadDir(filepath.Join(upper, path))
			return err == nil && len(entries) == 0
		case "etc/hosts", "etc/hostname", "etc/resolv.conf":
			info, err := os.Lstat(filepath.Join(upper, path))
			return err == nil && info.Mode().IsRegular() && info.Size() == 0
		case "etc":
			return onlyMountPoints(upper)
		}
		return false
	}
}

// onlyMountPoints reports whether /etc in a writable layer holds nothing but
// files that the engine mounts over.
func onlyMountPoints(upper string) bool {
	entries, err := os.ReadDir(filepath.Join(upper, "etc"))
	if err != nil || len(entries) == 0 {
		return false
	}
	only := mountPointsOnly(upper)
	for _, entry := range entries {
		if !only("etc/" + entry.Name()) {
			return false
		}
	}
	return !changedUsers(upper)
}
