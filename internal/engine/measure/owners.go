package measure

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"berth/internal/fault"
	"berth/internal/volume"
)

// Owned is a part of the data directory and whom it belongs to.
type Owned struct {
	Kind  string // container, layer, volume, blobs, build, database, other, or removed: on its way out
	Owner string // name or id; "nobody" for what the next collection takes, "engine" for its own
	Path  string // below the data directory
	Size  int64  // bytes on disk
}

// Names are what those are called to whom parts of the data directory belong.
type Names struct {
	Containers map[string]string // by id
	Layers     map[string]string // by hexadecimal digits of the digest: the images that have it, or who else
}

// Owners walks the whole data directory below root: what it returns adds up to what du
// says.
func Owners(ctx context.Context, root string, names Names) ([]Owned, error) {
	w := &walk{ctx: ctx, root: root, names: names}
	if err := w.each("", w.top); err != nil {
		return nil, err
	}
	return w.out, nil
}

type walk struct {
	ctx   context.Context
	root  string
	names Names
	out   []Owned
}

// each gives the entries of a directory to fn, and the directory itself to the engine.
func (w *walk) each(dir string, fn func(path, name string) error) error {
	info, err := os.Lstat(filepath.Join(w.root, dir))
	if err != nil {
		return fault.Wrap("measure", dir, err)
	}
	w.out = append(w.out, Owned{"other", "engine", cmp.Or(dir, "."), info.Sys().(*syscall.Stat_t).Blocks * 512})
	entries, err := os.ReadDir(filepath.Join(w.root, dir))
	if err != nil {
		return fault.Wrap("read", dir, err)
	}
	for _, e := range entries {
		if err := fn(filepath.Join(dir, e.Name()), e.Name()); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) add(kind, owner, path string) error {
	size, err := volume.DiskUsage(w.ctx, filepath.Join(w.root, path))
	if err != nil {
		return fault.Wrap("measure", path, err)
	}
	w.out = append(w.out, Owned{kind, owner, path, size})
	return nil
}

func (w *walk) top(path, name string) error {
	switch name {
	case "containers":
		return w.each(path, w.container)
	case "layers":
		return w.each(path, w.layer)
	case "volumes":
		return w.each(path, func(path, name string) error { return w.add("volume", name, path) })
	case "content":
		return w.add("blobs", "images", path)
	case "build":
		return w.add("build", "build cache", path)
	case "metadata.db":
		return w.add("database", "engine", path)
	}
	return w.add("other", "engine", path)
}

// container is also the root of a step that is being built.
func (w *walk) container(path, name string) error {
	switch owner := w.names.Containers[name]; {
	case owner != "":
		return w.add("container", owner, path)
	case strings.HasPrefix(name, "build-"):
		return w.add("build", "step", path)
	}
	return w.add("container", "nobody", path)
}

func (w *walk) layer(path, name string) error {
	switch name {
	case ".trash":
		return w.add("removed", "nobody", path)
	case ".tmp", ".empty":
		return w.add("other", "engine", path)
	}
	return w.add("layer", cmp.Or(w.names.Layers[name], "nobody"), path)
}
