package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"berth/internal/container"
	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/layer"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
)

// ImageCommit makes an image of what a container changed and returns its id. A
// running container is frozen meanwhile if that is asked for.
func (e *Engine) ImageCommit(ctx context.Context, o CommitOptions) (string, error) {
	c, err := e.containers.Find(o.Container)
	if err != nil {
		return "", err
	}
	ref, err := commitName(o)
	if err != nil {
		return "", err
	}
	// Now, not after gigabytes were read.
	if _, err := image.ApplyChanges(dockerspec.DockerOCIImageConfig{}, o.Changes); err != nil {
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
	img, err := e.images.Commit(ctx, e.commitOptions(ctx, rec, hold, changed, o, ref))
	if err != nil {
		return "", err
	}
	id := img.ID.String()
	e.emit(rec, events.ActionCommit, map[string]string{"comment": o.Comment, "imageID": id, "imageRef": ref})
	if ref != "" {
		e.emitImage(events.ActionTag, id, ref, img)
	}
	return id, nil
}

// commitName is what the new image will be called, "" for nothing.
func commitName(o CommitOptions) (string, error) {
	if o.Repo == "" {
		return "", nil
	}
	ref := o.Repo
	if o.Tag != "" {
		ref += ":" + o.Tag
	}
	named, err := image.ParseName(ref)
	if err != nil {
		return "", err
	}
	return familiar(named), nil
}

func (e *Engine) commitOptions(ctx context.Context, rec *container.Record, hold *layer.Hold, changed layer.Layer, o CommitOptions, ref string) image.CommitOptions {
	out := image.CommitOptions{
		Hold: hold, Layer: changed, Container: imageConfig(rec.Config), Changes: o.Changes,
		Author: o.Author, Comment: o.Comment, Platform: &rec.Platform, Ref: ref,
	}
	if o.Config != nil {
		config := imageConfig(o.Config)
		out.Config = &config
	}
	out.Container.Cmd = append([]string{rec.Path}, rec.Args...)[len(rec.Config.Entrypoint):]
	if img, err := e.images.Get(ctx, rec.ImageID.String()); err == nil && img.ID == rec.ImageID {
		out.Parent = digest.Digest(rec.ImageID)
	}
	return out
}

// imageConfig is the part of a container's configuration that images have.
func imageConfig(c *api.Config) dockerspec.DockerOCIImageConfig {
	out := dockerspec.DockerOCIImageConfig{}
	out.User, out.Env, out.Entrypoint, out.Cmd = c.User, c.Env, c.Entrypoint, c.Cmd
	out.Volumes, out.WorkingDir, out.Labels, out.StopSignal = c.Volumes, c.WorkingDir, c.Labels, c.StopSignal
	out.ArgsEscaped = c.ArgsEscaped //nolint:staticcheck // Windows images still carry it
	out.Healthcheck, out.OnBuild, out.Shell = c.Healthcheck, c.OnBuild, c.Shell
	if len(c.ExposedPorts) > 0 {
		out.ExposedPorts = make(map[string]struct{}, len(c.ExposedPorts))
		for p := range c.ExposedPorts {
			out.ExposedPorts[p.String()] = struct{}{}
		}
	}
	return out
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

// freeze pauses a container for a moment. A file in the run directory says so:
// an engine that finds it after a crash knows that nobody else wants the
// container paused.
func (e *Engine) freeze(ctx context.Context, c *container.Container) (thaw func() error, err error) {
	mark := e.freezeMark(c.ID)
	if err := os.MkdirAll(filepath.Dir(mark), 0o700); err != nil {
		return nil, wrapFS("pause", c.ID, err)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return nil, wrapFS("pause", c.ID, err)
	}
	err = e.ContainerPause(ctx, c.ID)
	if err != nil {
		_ = os.Remove(mark)
		if fault.Is(err, fault.Conflict) {
			return func() error { return nil }, nil // somebody paused it, or it has ended
		}
		return nil, err
	}
	return func() error {
		// The client may be gone; the container goes on whatever happens.
		err := e.unpause(context.WithoutCancel(ctx), c)
		if err == nil || !c.State().Alive() {
			return wrapFS("unpause", c.ID, ignoreMissing(os.Remove(mark)))
		}
		return err
	}, nil
}

func (e *Engine) freezeMark(id string) string { return filepath.Join(e.cfg.RunDir, "frozen", id) }

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// thawForgotten lets go on what an engine froze that did not live to thaw it.
func (e *Engine) thawForgotten(ctx context.Context) {
	entries, err := os.ReadDir(filepath.Join(e.cfg.RunDir, "frozen"))
	if err != nil {
		return // nothing was ever frozen
	}
	for _, entry := range entries {
		if c := e.containers.Get(entry.Name()); c != nil && c.State().Status == api.StatePaused {
			if err := e.unpause(ctx, c); err != nil {
				e.log.Error("a container stays paused that was frozen for a commit", "container", c.ID, "error", err)
				continue
			}
		}
		if err := os.Remove(e.freezeMark(entry.Name())); err != nil {
			e.log.Warn("remove mark of a frozen container", "container", entry.Name(), "error", err)
		}
	}
}
