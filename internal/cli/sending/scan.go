package sending

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/cli/archive"
	"berth/internal/fault"
	"berth/internal/wire/manifest"
)

// version tells versions of a file apart, as git's index does. The time of change
// cannot be set by programs, so together with the others it notices any change.
type version struct {
	Dev, Ino     uint64
	Size         int64
	Mtime, Ctime int64 // nanoseconds
	Mode         uint32
}

func versionOf(st *unix.Stat_t) version {
	return version{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Mode}
}

// A file that changed less than this ago can change again without looking
// different: more than the step in which file systems' times advance, and more
// than that of those which count in seconds.
const (
	tick       = 20 * time.Millisecond
	coarseTick = 2 * time.Second
)

// settled reports whether a later change of the file will show.
func (v *version) settled(now time.Time) bool {
	changed := max(v.Mtime, v.Ctime)
	step := tick
	if v.Ctime%int64(time.Second) == 0 {
		step = coarseTick
	}
	return now.UnixNano()-changed > int64(step)
}

// walked collects what is in a directory.
type walked struct {
	dir   string
	list  []manifest.Entry
	stats []version // of the same positions
	seen  map[[2]uint64]string
}

// scan lists what is sent of a directory, with the digests of all files.
func (c *cache) scan(ctx context.Context, dir, dockerfile string) ([]manifest.Entry, error) {
	w := &walked{dir: dir, seen: map[[2]uint64]string{}}
	err := archive.WalkContext(dir, dockerfile, func(rel string, _ fs.DirEntry) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return w.add(filepath.ToSlash(rel))
	})
	if err != nil {
		return nil, err
	}
	var unknown []int
	for i := range w.list {
		e := &w.list[i]
		if e.Kind != manifest.File {
			continue
		}
		if k, ok := c.known[e.Path]; ok && k.version == w.stats[i] {
			e.Digest, e.Xattrs = k.digest, k.xattrs
			continue
		}
		unknown = append(unknown, i)
	}
	err = each(ctx, unknown, func(i int) error { return w.read(ctx, &w.list[i], &w.stats[i]) })
	if err != nil {
		return nil, err
	}
	c.learn(w)
	return w.list, nil
}

// add lists one thing, after the directories above that are only there because
// something below them is.
func (w *walked) add(rel string) error {
	if above := path.Dir(rel); above != "." && !w.has(above) {
		if err := w.add(above); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	name := filepath.Join(w.dir, rel)
	if err := unix.Lstat(name, &st); err != nil {
		if err == unix.ENOENT { // removed meanwhile
			return nil
		}
		return &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	e := manifest.Entry{Path: rel, Mode: st.Mode & 0o7777, Mtime: st.Mtim.Nano()}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Kind, e.Size = manifest.File, st.Size
		if id := [2]uint64{uint64(st.Dev), st.Ino}; st.Nlink > 1 {
			if first, ok := w.seen[id]; ok {
				e = manifest.Entry{Path: rel, Kind: manifest.Link, Target: first}
			} else {
				w.seen[id] = rel
			}
		}
	case unix.S_IFDIR:
		e.Kind = manifest.Dir
		e.Xattrs, err = xattrs(name)
	case unix.S_IFLNK:
		e.Kind, e.Mode = manifest.Symlink, 0o777
		e.Target, err = os.Readlink(name)
	case unix.S_IFIFO:
		e.Kind = manifest.Fifo
	case unix.S_IFCHR:
		e.Kind, e.Major, e.Minor = manifest.Char, unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case unix.S_IFBLK:
		e.Kind, e.Major, e.Minor = manifest.Block, unix.Major(st.Rdev), unix.Minor(st.Rdev)
	default: // a socket means nothing to anybody but who listens there
		return nil
	}
	if err != nil {
		return err
	}
	w.list, w.stats = append(w.list, e), append(w.stats, versionOf(&st))
	return nil
}

// has reports whether a directory is listed: it can only be the last one of its
// depth.
func (w *walked) has(dir string) bool {
	_, ok := slices.BinarySearchFunc(w.list, dir, func(e manifest.Entry, p string) int { return manifest.Compare(e.Path, p) })
	return ok
}

// each calls fn for all positions, several at once, up to the first error.
func each(ctx context.Context, list []int, fn func(i int) error) error {
	var next atomic.Int64
	var wait sync.WaitGroup
	var mu sync.Mutex
	var first error
	for range min(runtime.GOMAXPROCS(0), 1+len(list)/16) {
		wait.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(list) {
					return
				}
				err := ctx.Err()
				if err == nil {
					err = fn(list[n])
				}
				if err != nil {
					mu.Lock()
					first = errors.Join(first, err)
					mu.Unlock()
					next.Store(int64(len(list)))
					return
				}
			}
		})
	}
	wait.Wait()
	return first
}

// tries is how often a file that changes meanwhile is read again.
const tries = 3

// read fills in what only the file itself tells.
func (w *walked) read(ctx context.Context, e *manifest.Entry, v *version) error {
	path := filepath.Join(w.dir, e.Path)
	buf := make([]byte, 64<<10)
	for range tries {
		c, err := openContent(path)
		if err != nil {
			return err
		}
		for err == nil {
			if _, err = c.Read(buf); err == nil {
				err = ctx.Err()
			}
		}
		if err != io.EOF {
			c.f.Close()
			return err
		}
		is, at, same, err := c.end(e.Path)
		if err != nil {
			return err
		}
		if same {
			*e, *v = is, at
			return nil
		}
	}
	return changing(path)
}

func changing(path string) error {
	return fault.New(fault.Conflict, "read", path, "the file changes while it is being read").
		WithHint("build again when nothing writes to it, or leave it out with .dockerignore")
}

// open opens a regular file.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOENT) {
		return nil, changing(path)
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, changing(path)
	}
	return f, nil
}

// xattrs returns the attributes that mean something in an image.
func xattrs(path string) ([]manifest.Xattr, error) {
	return attributes(func(to []byte) (int, error) { return unix.Llistxattr(path, to) },
		func(name string, to []byte) (int, error) { return unix.Lgetxattr(path, name, to) })
}

func fileXattrs(f *os.File) ([]manifest.Xattr, error) {
	fd := int(f.Fd())
	return attributes(func(to []byte) (int, error) { return unix.Flistxattr(fd, to) },
		func(name string, to []byte) (int, error) { return unix.Fgetxattr(fd, name, to) })
}

func attributes(list func([]byte) (int, error), get func(string, []byte) (int, error)) ([]manifest.Xattr, error) {
	var small [512]byte
	buf := small[:]
	n, err := list(buf)
	if err == unix.ERANGE {
		buf = make([]byte, 64<<10)
		n, err = list(buf)
	}
	if err == unix.ENOTSUP || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []manifest.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := get(name, value)
		if err == unix.ENODATA || err == unix.ENOTSUP {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, manifest.Xattr{Name: name, Value: string(value[:n])})
	}
	slices.SortFunc(out, func(a, b manifest.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
