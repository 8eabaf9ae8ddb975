package layer

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is a directory that an archive is being unpacked into. Nobody else sees
// it yet, so the only hostile thing about its content is what the archive put
// there itself. Directories are opened with openat2, which refuses symlinks in
// the way; a symlink that the archive made earlier is resolved here, by hand,
// as a process with this tree as its root would, except that leading above the
// root is an error.
//
// Everything is recorded under real paths: relative to the root, cleaned,
// without symlinks; "." is the root.
type tree struct {
	root  int // O_PATH descriptor
	dirs  [dirCacheSize]cachedDir
	clock uint64
	pin   int // descriptor that the cache keeps although others are used; -1: none
	log   dirLog
	umask uint32
	// removed tells that directories were removed, so that what the log says
	// of a path may be about another one, which was there before.
	removed  bool
	replaced Replaced
	// implied is called for directories that an entry needs and no entry made
	implied func(real string) *dirMeta
	// lose is called before what has content is removed, and reports whether it
	// moved it away instead.
	lose func(dirfd int, name, real string) (bool, error)
}

// Opening a directory costs more than the rest of making a small file, and
// archives list files directory by directory.
const dirCacheSize = 64

type cachedDir struct {
	asked, real string
	fd          int
	used        uint64 // 0: empty slot
}

const (
	dirFlags    = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	dirResolve  = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	maxSymlinks = 40   // as the kernel
	maxPath     = 4095 // bytes of a path that a system call takes
)

var errTooDeep = fmt.Errorf("path of more than %d bytes: %w", maxPath, unix.ENAMETOOLONG)

func openTree(dir string) (*tree, error) {
	fd, err := unix.Open(dir, dirFlags|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return &tree{root: fd, pin: -1, umask: currentUmask(), log: dirLog{where: filepath.Dir(dir)}}, nil
}

func (t *tree) close() {
	t.forget()
	t.log.close()
	unix.Close(t.root)
}

// forget empties the cache of open directories. It must be called before a
// directory or a symlink is replaced.
func (t *tree) forget() {
	for i := range t.dirs {
		if t.dirs[i].used != 0 {
			unix.Close(t.dirs[i].fd)
			t.dirs[i] = cachedDir{}
		}
	}
}

// cleanName turns an entry's name into a path relative to the root. Absolute
// names are taken as relative, as every unpacker of images does.
func cleanName(name string) (string, error) {
	p := path.Clean(strings.TrimLeft(name, "/"))
	if p == ".." || strings.HasPrefix(p, "../") {
		return "", ErrTraversal
	}
	if len(p) > maxPath {
		return "", errTooDeep
	}
	return p, nil
}

// split cuts the last element off a clean path.
func split(p string) (dir, base string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return ".", p
}

func join(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}

// dir returns an open descriptor of the directory p and its real path. It
// belongs to the cache and is sure to stay open only until the next call.
// With create, missing directories are made.
func (t *tree) dir(p string, create bool) (fd int, real string, err error) {
	if p == "." {
		return t.root, ".", nil
	}
	t.clock++
	for i := range t.dirs {
		if c := &t.dirs[i]; c.used != 0 && c.asked == p {
			c.used = t.clock
			return c.fd, c.real, nil
		}
	}
	real = p
	fd, err = openat2(t.root, p, &unix.OpenHow{Flags: dirFlags, Resolve: dirResolve})
	if err == unix.ENOENT && create || err == unix.ELOOP || err == unix.ENOTDIR {
		if real, err = t.resolve(p, create); err == nil {
			fd, err = openat2(t.root, real, &unix.OpenHow{Flags: dirFlags, Resolve: dirResolve})
		}
	}
	if err != nil {
		return -1, "", err
	}
	t.keep(cachedDir{asked: p, real: real, fd: fd, used: t.clock})
	return fd, real, nil
}

// keep puts a directory into the cache in place of the least recently used.
func (t *tree) keep(c cachedDir) {
	oldest := 0
	for i := range t.dirs {
		if t.dirs[i].used != 0 && t.dirs[i].fd == t.pin {
			continue
		}
		if t.dirs[i].used < t.dirs[oldest].used || t.dirs[oldest].fd == t.pin {
			oldest = i
		}
	}
	if t.dirs[oldest].used != 0 {
		unix.Close(t.dirs[oldest].fd)
	}
	t.dirs[oldest] = c
}

// resolve walks p element by element, follows symlinks inside the tree, makes
// missing directories when create is set, and returns the real path.
func (t *tree) resolve(p string, create bool) (string, error) {
	rest := strings.Split(p, "/")
	real := "."
	links := 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if real == "." {
				return "", ErrTraversal
			}
			real, _ = split(real)
			continue
		}
		fd, err := t.realDir(real)
		if err != nil {
			return "", err
		}
		next := join(real, name)
		if len(next) > maxPath {
			return "", errTooDeep
		}
		target, err := readlinkat(fd, name)
		switch {
		case err == unix.EINVAL: // there, and no symlink
			real = next
		case err == unix.ENOENT && create:
			if err := t.makeImplied(fd, name, next); err != nil {
				return "", err
			}
			real = next
		case err != nil:
			return "", err
		default:
			if links++; links > maxSymlinks {
				return "", unix.ELOOP
			}
			if strings.HasPrefix(target, "/") {
				real = "."
			}
			rest = append(strings.Split(target, "/"), rest...)
		}
	}
	return real, nil
}

// realDir returns a descriptor, owned by the cache, of a directory given by its
// real path.
func (t *tree) realDir(real string) (int, error) {
	if real == "." {
		return t.root, nil
	}
	t.clock++
	for i := range t.dirs {
		if c := &t.dirs[i]; c.used != 0 && c.asked == real && c.real == real {
			c.used = t.clock
			return c.fd, nil
		}
	}
	fd, err := openat2(t.root, real, &unix.OpenHow{Flags: dirFlags, Resolve: dirResolve})
	if err != nil {
		return -1, err
	}
	t.keep(cachedDir{asked: real, real: real, fd: fd, used: t.clock})
	return fd, nil
}

// makeImplied makes a directory that the archive has no entry for (yet).
func (t *tree) makeImplied(dirfd int, name, real string) error {
	if strings.HasPrefix(name, whiteoutPrefix) {
		return ErrWhiteout
	}
	if err := unix.Mkdirat(dirfd, name, 0o755); err != nil {
		return err
	}
	return t.log.add(t.implied(real))
}

// existing describes what is in the way of a new entry.
type existing struct {
	dir      bool
	whiteout bool
	content  bool // a directory, or a file that is not empty
	kind     Replaced
}

func lookAt(dirfd int, name string) (existing, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return existing{}, err
	}
	format := st.Mode & unix.S_IFMT
	there := existing{
		dir:      format == unix.S_IFDIR,
		whiteout: format == unix.S_IFCHR && st.Rdev == 0,
		content:  format == unix.S_IFDIR || format == unix.S_IFREG && st.Size > 0,
		kind:     ReplacedFiles,
	}
	if there.dir || format == unix.S_IFLNK {
		there.kind = ReplacedPaths
	} else if there.whiteout {
		there.kind = ReplacedNothing
	}
	return there, nil
}

// place runs create, which must fail with EEXIST rather than touch what is
// there; an older entry of the same name is then removed, whatever it is, and
// create runs again: the last entry of a name wins. real is the path of dirfd.
func (t *tree) place(dirfd int, real, name string, create func() error) (replaced existing, err error) {
	err = create()
	if err != unix.EEXIST {
		return existing{}, err
	}
	replaced, err = lookAt(dirfd, name)
	if err != nil {
		return existing{}, err
	}
	t.forgetUnless(dirfd)
	t.removed = t.removed || replaced.dir
	t.replaced = max(t.replaced, replaced.kind)
	moved := false
	if replaced.content {
		moved, err = t.lose(dirfd, name, join(real, name))
	}
	switch {
	case err != nil || moved:
	case replaced.dir:
		err = new(remover).dirAt(dirfd, name)
	default:
		err = unix.Unlinkat(dirfd, name, 0)
	}
	if err != nil {
		return existing{}, err
	}
	return replaced, create()
}

// forgetUnless empties the cache except for the directory that is in use, of
// which only the real path is still sure to lead to it.
func (t *tree) forgetUnless(dirfd int) {
	for i := range t.dirs {
		c := &t.dirs[i]
		switch {
		case c.used == 0:
		case c.fd == dirfd:
			c.asked = c.real
		default:
			unix.Close(c.fd)
			*c = cachedDir{}
		}
	}
}

// finish gives each directory what it was to get at the end. What the log says
// of a directory that was replaced later by something else is passed over.
func (t *tree) finish(fail func(real, what string, err error) error, refused func()) error {
	return t.log.each(func(m *dirMeta) error {
		if err := t.finishDir(m, refused); err != nil {
			return fail(m.path, "set directory attributes", err)
		}
		return nil
	})
}

func (t *tree) finishDir(m *dirMeta, refused func()) error {
	if !t.removed && m.path != "." && !m.needsMode(t.umask) {
		// Only the times: no need to open it.
		dir, base := split(m.path)
		fd, err := t.realDir(dir)
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(fd, base, m.times[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	fd, err := openat2(t.root, m.path, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: dirResolve,
	})
	switch {
	case t.removed && (err == unix.ENOENT || err == unix.ELOOP || err == unix.ENOTDIR):
		return nil
	case err != nil:
		return err
	}
	defer unix.Close(fd)
	return m.apply(fd, t.umask, refused)
}

// opaque reports whether an open directory hides what is below it.
func opaque(fd int) (bool, error) {
	var buf [8]byte
	n, err := unix.Getxattr(procPath(fd), opaqueXattr, buf[:])
	if err == unix.ENODATA {
		return false, nil
	}
	return err == nil && string(buf[:n]) == "y", err
}

// makeOpaque lets a directory hide what is below it. Whiteouts in it are then
// superfluous and go.
func makeOpaque(fd int) error {
	if done, err := opaque(fd); done || err != nil {
		return err
	}
	if err := unix.Setxattr(procPath(fd), opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("attribute %q: %w", opaqueXattr, err)
	}
	list, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(list), "opaque directory")
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(512)
		for _, e := range entries {
			if e.Type() != fs.ModeDevice|fs.ModeCharDevice {
				continue
			}
			if there, err := lookAt(fd, e.Name()); err != nil || !there.whiteout {
				continue // another device
			}
			if err := unix.Unlinkat(fd, e.Name(), 0); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
