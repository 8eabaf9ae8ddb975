package tree

import (
	"context"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

const opaque = "trusted.overlay.opaque"

// Contributing finds which of a stack's trees (top first) hold the real path p of
// the stack: the directories that make it up together, or the one file that it is.
// No links are followed, so what is returned is the trees' own.
func Contributing(trees []string, p string) (dirs []string, file string, err error) {
	p = rel(p)
	for _, tree := range trees {
		found, kind, ends, err := look(tree, p)
		if err != nil {
			return nil, "", classify("find", p, err)
		}
		if found {
			if kind != unix.S_IFDIR {
				if len(dirs) == 0 {
					return nil, filepath.Join(tree, p), nil
				}
				break
			}
			dirs = append(dirs, filepath.Join(tree, p))
		}
		if ends {
			break
		}
	}
	if len(dirs) == 0 {
		return nil, "", fault.New(fault.NotFound, "find", quote("/"+p), "not found")
	}
	return dirs, "", nil
}

// look finds p in one tree. ends tells that trees below have nothing more to
// say about it.
func look(tree, p string) (found bool, kind uint32, ends bool, err error) {
	root, err := unix.Open(tree, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, 0, false, err
	}
	defer unix.Close(root)
	if p == "." {
		return true, unix.S_IFDIR, isOpaque(root, "."), nil
	}
	parts := strings.Split(p, "/")
	for i := range parts {
		at := path.Join(parts[:i+1]...)
		fd, err := openat2(root, at, unix.O_PATH|unix.O_NOFOLLOW, 0, beneath)
		if err == unix.ENOENT {
			return false, 0, ends, nil
		}
		if err != nil {
			return false, 0, false, err
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err != nil {
			return false, 0, false, err
		}
		kind = st.Mode & unix.S_IFMT
		if kind == unix.S_IFCHR && st.Rdev == 0 {
			return false, 0, true, nil // deleted here
		}
		if kind != unix.S_IFDIR {
			return i == len(parts)-1, kind, true, nil
		}
		ends = ends || isOpaque(root, at)
	}
	return true, unix.S_IFDIR, ends, nil
}

func isOpaque(root int, p string) bool {
	fd, err := openat2(root, p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, beneath)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var value [2]byte
	n, err := unix.Fgetxattr(fd, opaque, value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// entryAt returns what is at a real path.
func (d *Dir) entryAt(p string) (Entry, error) {
	e := Entry{Rel: ".", Path: rel(p), Same: -1}
	fd, err := openat2(d.root, e.Path, unix.O_PATH|unix.O_NOFOLLOW, 0, beneath)
	if err != nil {
		return e, classify("find", p, err)
	}
	defer unix.Close(fd)
	return e, classify("look at", p, unix.Fstat(fd, &e.Stat))
}

// CopyAttributes gives the directory to, one of ours, owner and mode of the real
// path p.
func CopyAttributes(d *Dir, p, to string) error {
	e, err := d.entryAt(p)
	if err != nil {
		return err
	}
	if err := unix.Lchown(to, int(e.Stat.Uid), int(e.Stat.Gid)); err != nil {
		return classify("set owner", to, err)
	}
	return classify("set mode", to, unix.Chmod(to, e.Stat.Mode&0o7777))
}

// CopyFile copies the file at the real path p to a new file of ours.
func CopyFile(d *Dir, p, to string) error {
	e, err := d.entryAt(p)
	if err != nil {
		return err
	}
	fd, err := unix.Open(filepath.Dir(to), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return classify("open directory", to, err)
	}
	r := NewRoot(fd, nil)
	defer r.Close()
	m := []Match{{Name: filepath.Base(to), Entries: []Entry{e}}}
	return r.Copy(context.Background(), d, m, "/"+filepath.Base(to), CopyOptions{})
}

// Fill copies the content of the directory that p leads to into one of ours.
func Fill(ctx context.Context, d *Dir, p, to string) error {
	m, err := d.Select(ctx, Selection{Src: p, Literal: true})
	if err != nil {
		return err
	}
	if len(m) == 0 || !m[0].Dir() {
		return fault.New(fault.Invalid, "copy", quote(p), "it is not a directory")
	}
	fd, err := unix.Open(to, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return classify("open directory", to, err)
	}
	r := NewRoot(fd, nil)
	defer r.Close()
	return r.Copy(ctx, d, m, "/", CopyOptions{})
}
