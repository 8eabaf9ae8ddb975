package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"berth/internal/fault"
)

// Size returns the bytes that a volume's files take on disk; files with several
// names count once, and what is mounted in the volume's place counts nothing.
func (s *Store) Size(ctx context.Context, name string) (int64, error) {
	if s.Mounted(name) {
		return 0, nil
	}
	n, err := DiskUsage(ctx, s.Path(name))
	return n, fault.Wrap("measure volume", name, err)
}

// DiskUsage returns the bytes on disk below a directory, on its file system. What
// vanishes meanwhile is no error.
func DiskUsage(ctx context.Context, dir string) (int64, error) {
	type inode struct{ dev, ino uint64 }
	seen := make(map[inode]struct{})
	var total int64
	var device uint64
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err == nil {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				st := info.Sys().(*syscall.Stat_t)
				if path == dir {
					device = st.Dev
				} else if st.Dev != device {
					return skip(entry)
				}
				id := inode{st.Dev, st.Ino}
				if _, counted := seen[id]; counted {
					return nil
				}
				if st.Nlink > 1 && !entry.IsDir() {
					seen[id] = struct{}{}
				}
				total += st.Blocks * 512
				return nil
			}
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	return total, err
}

func skip(entry fs.DirEntry) error {
	if entry.IsDir() {
		return filepath.SkipDir
	}
	return nil
}
