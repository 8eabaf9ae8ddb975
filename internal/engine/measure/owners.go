package measure

import (
	"cmp"
	"context"
	"os"
	"path/filepath"

	"berth/internal/fault"
	"berth/internal/volume"
)

// Owned is a part of the data directory and whom it belongs to.
type Owned struct {
	Kind  string // container, log, layer, volume, blobs, database or other
	Owner string // id or name; the path for what belongs to the engine itself
	Path  string // below the data directory
	Size  int64  // bytes on disk
}

// Owners walks the whole data directory below root: what it returns adds up to what du
// says. names are those of containers, by id.
func Owners(ctx context.Context, root string, names map[string]string) ([]Owned, error) {
	var out []Owned
	add := func(kind, owner, path string) error {
		size, err := volume.DiskUsage(ctx, filepath.Join(root, path))
		if err != nil {
			return fault.Wrap("measure", path, err)
		}
		out = append(out, Owned{kind, owner, path, size})
		return nil
	}
	top, err := os.ReadDir(root)
	if err != nil {
		return nil, fault.Wrap("read", root, err)
	}
	for _, entry := range top {
		name := entry.Name()
		var err error
		switch name {
		case "containers", "layers", "volumes":
			err = membersOwned(root, name, names, add)
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
func membersOwned(root, dir string, names map[string]string, add func(kind, owner, path string) error) error {
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		return fault.Wrap("read", dir, err)
	}
	kind := map[string]string{"containers": "container", "layers": "layer", "volumes": "volume"}[dir]
	for _, entry := range entries {
		owner := entry.Name()
		if dir == "containers" {
			owner = cmp.Or(names[owner], owner)
		}
		if err := add(kind, owner, filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}
