package solve

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/build/graph"
	"berth/internal/build/tree"
	"berth/internal/fault"
	"berth/internal/layer"
)

// MountUsed tells when a cache mount was last used; zero when there is none.
func (s *Solver) MountUsed(id string) time.Time { return s.mounts.list()[nameOf(id, 0)].LastUsed }

// ExportMount writes the content of a cache mount as a tar. A step that uses it
// meanwhile does not disturb.
func (s *Solver) ExportMount(ctx context.Context, id string, w io.Writer) error {
	name := nameOf(id, 0)
	if _, ok := s.mounts.list()[name]; !ok {
		return fault.New(fault.NotFound, "export cache mount", id, "no such mount")
	}
	return layer.ExportTree(ctx, filepath.Join(s.mounts.dir, name, "data"), w)
}

// restored returns what fills a new directory of a cache mount: its content from
// elsewhere if the job has that and it is newer than what is here, and else what
// seed does. An older directory goes, unless somebody uses it. done is called
// when the directory is there.
func (s *Solver) restored(ctx context.Context, w *work, m *graph.Mount, seed func(string) error) (fill func(string) error, done func()) {
	if w.job.Restore == nil {
		return seed, func() {}
	}
	r, err := w.job.Restore(ctx, m.ID, s.MountUsed(m.ID))
	if err == nil && r != nil {
		_, err = s.mounts.remove(nameOf(m.ID, 0))
	}
	if err != nil {
		w.log(2, "cache mount %s is not restored: %v\n", m.ID, err)
	}
	if r == nil {
		return seed, func() {}
	}
	return func(dir string) error {
		err := unpackMount(ctx, r, dir)
		if err == nil || ctx.Err() != nil {
			return err
		}
		w.log(2, "cache mount %s is not restored: %v\n", m.ID, err)
		if err := removeAll(dir); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		return seed(dir)
	}, func() { _ = r.Close() }
}

// unpackMount unpacks an archive that somebody else has made.
func unpackMount(ctx context.Context, r io.Reader, dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	root := tree.NewRoot(fd, nil)
	defer root.Close()
	return root.Untar(ctx, r, "/", tree.CopyOptions{})
}
