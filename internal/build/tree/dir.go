package tree

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

const (
	inRoot  = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
)

// Ignorer says what of a directory does not exist for a build. A nil Ignorer
// ignores nothing.
type Ignorer interface {
	// Ignored reports whether the path is left out. parent is what it returned
	// for the directory above, nil at the top.
	Ignored(path string, parent any) (ignored bool, state any, err error)
	// Below reports whether something below an ignored directory can be there
	// all the same.
	Below(dir string) bool
}

// Sums remembers digests of files, so that a file that did not change is not
// read. Keys are paths below the directory.
type Sums interface {
	Get(path string, st *unix.Stat_t) (Sum, bool)
	Put(path string, st *unix.Stat_t, sum Sum)
}

// Sum is what identifies a file's content.
type Sum struct {
	Data   [32]byte // sha256 of the content
	Xattrs [32]byte // of the extended attributes, zero without any
}

// Options says how a directory is seen.
type Options struct {
	Ignore Ignorer
	Sums   Sums
	// Flat makes root the owner of everything, as in build contexts.
	Flat bool
	// As is whose rights apply; nil is this process's.
	As *Credentials
}

// Dir is a file tree to copy from. Whatever its links say, nothing outside of it
// is read. It is safe for concurrent use.
type Dir struct {
	root int
	o    Options
	as   *actor
	name string
}

// Open opens the directory at path, following links that lead there.
func Open(name string, o Options) (*Dir, error) {
	d := &Dir{root: -1, o: o, name: name}
	if o.As != nil && !o.As.root() {
		d.as = newActor(*o.As)
	}
	err := d.do(func() (err error) {
		// For reading: a directory that its owner may not list is no context.
		d.root, err = unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		d.Close()
		return nil, classify("open directory", name, err)
	}
	return d, nil
}

// At returns a Dir for an open directory, which it takes over.
func At(fd int, name string, o Options) *Dir { return &Dir{root: fd, o: o, name: name} }

// Close closes the directory.
func (d *Dir) Close() {
	if d.root >= 0 {
		unix.Close(d.root)
		d.root = -1
	}
	if d.as != nil {
		d.as.stop()
		d.as = nil
	}
}

// do runs fn with the rights that the directory is read with.
func (d *Dir) do(fn func() error) error {
	if d.as == nil {
		return fn()
	}
	return d.as.do(fn)
}

// classify gives an error of the file system a kind and a hint.
func classify(op, subject string, err error) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) {
		return err
	}
	e := &fault.Error{Op: op, Subject: quote(subject), Err: err}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		e.Kind = fault.NotFound
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		e.Kind, e.Hint = fault.Forbidden, "make it readable for whoever builds, or leave it out with .dockerignore"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		e.Kind, e.Hint = fault.Exhausted, "free some disk space, for example by removing images or build cache"
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EXDEV), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL):
		e.Kind = fault.Invalid
	default:
		e.Kind = fault.KindOf(err)
	}
	return e
}

func quote(name string) string {
	const most = 300
	if len(name) > most {
		name = name[:most] + "..."
	}
	for _, r := range name {
		if r < ' ' || r == 0xfffd || r == 0x7f {
			return strings.ReplaceAll(strings.ToValidUTF8(strconvQuote(name), "?"), "\n", "")
		}
	}
	return name
}

// openat2 opens p below dir, trying again when a rename elsewhere made the
// kernel unsure.
func openat2(dir int, p string, flags uint64, mode uint64, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: mode, Resolve: resolve}
	for try := 0; ; try++ {
		fd, err := unix.Openat2(dir, p, &how)
		if (err == unix.EAGAIN || err == unix.EINTR) && try < 100 {
			continue
		}
		return fd, err
	}
}

// rel makes a path relative to the root; the root itself is ".".
func rel(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return "."
	}
	return p
}

// open opens p, following links inside the tree.
func (d *Dir) open(p string, flags uint64) (int, error) {
	return openat2(d.root, rel(p), flags, 0, inRoot)
}

// ReadFile returns a file of at most limit bytes, or fault.NotFound.
func (d *Dir) ReadFile(p string, limit int64) ([]byte, error) {
	f, err := d.OpenFile(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readAll(f, limit)
	return data, classify("read file", p, err)
}

// OpenFile opens a regular file, following links inside the tree. A missing one is
// fault.NotFound.
func (d *Dir) OpenFile(p string) (*os.File, error) {
	var f *os.File
	err := d.do(func() error {
		fd, err := d.open(p, unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			unix.Close(fd)
			return fault.New(fault.Invalid, "read file", quote(p), "it is not a regular file")
		}
		f = os.NewFile(uintptr(fd), p)
		return nil
	})
	return f, classify("read file", p, err)
}

// Real returns the path that p leads to, without links, or fault.NotFound.
func (d *Dir) Real(p string) (string, error) {
	real := ""
	err := d.do(func() (err error) { real, err = d.real(p); return err })
	return real, classify("find", p, err)
}

// real is Real inside of do.
func (d *Dir) real(p string) (string, error) { return realPath(d.root, p, false, nil) }

// realPath resolves links element by element, as if root were the root directory.
// What it returns is used only through openat2 with beneath, so a link that changes
// meanwhile is an error, not a leak. With lax, what is missing is no error and stays
// as it is written. passed, if not nil, is told the real path of each link.
func realPath(root int, p string, lax bool, passed func(link string)) (string, error) {
	rest := strings.Split(rel(p), "/")
	at := "."
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = rel(path.Dir("/" + at))
			continue
		}
		next := path.Join(at, name)
		fd, err := openat2(root, next, unix.O_PATH|unix.O_NOFOLLOW, 0, beneath)
		if err == unix.ENOENT && lax {
			at = next
			continue
		}
		if err != nil {
			return "", err
		}
		target, isLink, err := linkOf(fd)
		unix.Close(fd)
		if err != nil {
			return "", err
		}
		if !isLink {
			at = next
			continue
		}
		if links++; links > 40 {
			return "", unix.ELOOP
		}
		if passed != nil {
			passed(next)
		}
		if strings.HasPrefix(target, "/") {
			at = "."
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// linkOf returns the target of the symlink that fd (O_PATH) refers to.
func linkOf(fd int) (string, bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", false, nil
	}
	target, err := readlinkat(fd, "")
	return target, true, err
}

func readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

// names lists a directory, sorted. It reads on from where fd stands.
func names(fd int) ([]string, error) {
	var list []string
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		_, _, list = unix.ParseDirent(buf[:n], -1, list)
	}
	slices.Sort(list)
	return list, nil
}
