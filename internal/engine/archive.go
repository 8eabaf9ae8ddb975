package engine

import (
	"context"
	"errors"
	"io"

	"berth/internal/container"
	"berth/internal/container/archive"
	"berth/internal/fault"
	"berth/internal/layer"
	"berth/internal/quota"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// ContainerStatPath describes a file of a container, running or not.
func (e *Engine) ContainerStatPath(ctx context.Context, ref, path string) (api.PathStat, error) {
	c, root, err := e.openRoot(ctx, ref)
	if err != nil {
		return api.PathStat{}, err
	}
	defer root.Close()
	st, err := root.Stat(path)
	return st, inContainer(err, c)
}

// inContainer says whose file it is that was not found.
func inContainer(err error, c *container.Container) error {
	var f *fault.Error
	if errors.As(err, &f) && f.Kind == fault.NotFound && f.Op == "" && f.Subject == "" {
		return fault.New(fault.NotFound, "", "", "%w in container %s", f.Err, c.Record().Name)
	}
	return err
}

// ContainerArchive describes a file or directory of a container and returns a
// function that writes it as a tar archive. close must be called in any case.
func (e *Engine) ContainerArchive(ctx context.Context, ref, path string) (st api.PathStat, write func(io.Writer) error, closeRoot func(), err error) {
	c, root, err := e.openRoot(ctx, ref)
	if err != nil {
		return st, nil, nil, err
	}
	if st, err = root.Stat(path); err != nil {
		root.Close()
		return st, nil, nil, inContainer(err, c)
	}
	write = func(w io.Writer) error {
		if err := root.Pack(ctx, path, w); err != nil {
			return inContainer(err, c)
		}
		e.emit(c.Record(), events.ActionArchivePath, nil)
		return nil
	}
	return st, write, root.Close, nil
}

// openRoot opens the files of a container for reading.
func (e *Engine) openRoot(ctx context.Context, ref string) (*container.Container, *archive.Root, error) {
	c, err := e.containers.Find(ref)
	if err != nil {
		return nil, nil, err
	}
	if s := c.State(); s.Alive() {
		root, err := archive.Running(s.Pid, c.ID)
		if !fault.Is(err, fault.Conflict) {
			return c, root, err
		}
		// It is ending just now: what is left of it is looked at instead.
	}
	if err := c.Lock(ctx); err != nil {
		return nil, nil, err
	}
	defer c.Unlock()
	root, err := e.openLocked(c, false)
	return c, root, err
}

// openLocked opens the files of a container whose operation lock the caller holds.
// For writing, the lock must be held until the root is closed when the container
// does not run: its writable layer belongs to one at a time.
func (e *Engine) openLocked(c *container.Container, write bool) (*archive.Root, error) {
	if c.Gone() {
		return nil, fault.New(fault.NotFound, "", "", "No such container: %s", c.ID)
	}
	rec := c.Record()
	switch s := rec.State; {
	case s.Alive():
		return archive.Running(s.Pid, c.ID)
	case s.Status == api.StateRemoving || s.Status == api.StateDead:
		return nil, fault.New(fault.Conflict, "", "", "container is marked for removal: %s", c.ID)
	}
	lower, err := e.layers.Lower(rec.Layers)
	if err != nil {
		return nil, err
	}
	upper, work, err := e.layers.Writable(rec.ID, rec.Layers, rec.MountedLayers()...)
	if err != nil {
		return nil, err
	}
	user := newID()
	defer e.letGoAll(rec, user) // the root has a copy of the mounts by then
	mounts, err := e.prepareMounts(rec, user)
	if err != nil {
		return nil, err
	}
	writable := archive.Layers{Lower: lower, Upper: upper, Work: work, Mounts: mounts, ReadOnly: rec.HostConfig.ReadonlyRootfs}
	if write {
		mounted, err := e.loosen(rec)
		if err != nil {
			return nil, err
		}
		defer mounted()
		return archive.Stopped(writable)
	}
	// Shows the writable layer and what is below it without claiming it.
	reading := archive.Layers{Lower: append([]string{upper}, lower...), Mounts: mounts}
	root, err := archive.Stopped(reading)
	if !errors.Is(err, archive.ErrNoMountPoint) {
		return root, err
	}
	// The mount points are made as the first start would make them.
	if root, err = archive.Stopped(writable); err != nil {
		return nil, err
	}
	root.Close()
	return archive.Stopped(reading)
}

// ExtractOptions say how an archive is put into a container.
type ExtractOptions struct {
	KeepKind bool // a directory is not replaced by a file, nor a file by a directory
	CopyUser bool // everything belongs to the container's user, if it has one
}

// ContainerExtract puts the files of an archive, which may be compressed, into a
// directory of a container.
func (e *Engine) ContainerExtract(ctx context.Context, ref, path string, o ExtractOptions, in io.Reader) error {
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	if err := c.Lock(ctx); err != nil {
		return err
	}
	root, err := e.openLocked(c, true)
	// A running container's files are its own: it must be able to end meanwhile.
	held := err == nil && !c.State().Alive()
	if !held {
		c.Unlock()
	}
	if err != nil {
		return err
	}
	defer func() {
		root.Close()
		if held {
			c.Unlock()
		}
	}()
	how := archive.UnpackOptions{KeepKind: o.KeepKind}
	if rec := c.Record(); o.CopyUser && rec.Config.User != "" {
		who, err := e.identity(rec, rec.Config.User, nil)
		if err != nil {
			return err
		}
		how.Owner = &archive.Owner{UID: int(who.UID), GID: int(who.GID)}
	}
	// Decompressed here and by this program alone, whatever the container has.
	plain, err := layer.NewReader(ctx, in, layer.Limits{MaxBytes: 1 << 62})
	if err != nil {
		return err
	}
	defer plain.Close()
	// A volume with a size may be mounted where the files go.
	if err := quota.Obey(func() error { return root.Unpack(ctx, path, plain, how) }); err != nil {
		return inContainer(err, c)
	}
	e.emit(c.Record(), events.ActionExtractToDir, nil)
	return nil
}
