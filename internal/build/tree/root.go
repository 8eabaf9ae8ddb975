package tree

import (
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Root is a root file system that is being changed. Paths in it are resolved as a
// process with it as its root would: its links, absolute ones too, stay inside.
type Root struct {
	fd    int
	epoch *time.Time
}

// NewRoot returns a Root for an open directory, which it takes over. What it
// makes itself gets the time epoch, if that is not nil.
func NewRoot(fd int, epoch *time.Time) *Root { return &Root{fd: fd, epoch: epoch} }

// FD returns the directory's descriptor, which stays the Root's.
func (r *Root) FD() int { return r.fd }

// Close closes the directory.
func (r *Root) Close() { unix.Close(r.fd) }

// Attributes is what a file gets.
type Attributes struct {
	UID, GID uint32
	Mode     uint32 // permission bits
	Xattrs   map[string][]byte
	Times    *[2]unix.Timespec // nil: now, or the epoch
}

// dir opens the directory p, following links inside the root.
func (r *Root) dir(p string) (int, error) {
	return openat2(r.fd, rel(p), unix.O_RDONLY|unix.O_DIRECTORY, 0, inRoot)
}

// MakeDirs makes the directory p and those above it that are missing; new ones
// get the attributes.
func (r *Root) MakeDirs(p string, a Attributes) error {
	return classify("make directory", "/"+rel(p), r.makeDirs(rel(p), a))
}

func (r *Root) makeDirs(p string, a Attributes) error {
	fd, err := r.dir(p)
	if err == nil {
		unix.Close(fd)
		return nil
	}
	if err != unix.ENOENT {
		return err
	}
	// A link to a directory that is missing: that one is made.
	if p, err = realPath(r.fd, p, true, nil); err != nil {
		return err
	}
	return r.makeReal(p, a)
}

// makeReal is makeDirs for a path without links.
func (r *Root) makeReal(p string, a Attributes) error {
	parent, err := r.dir(path.Dir(p))
	if err == unix.ENOENT {
		if err = r.makeReal(path.Dir(p), a); err == nil {
			parent, err = r.dir(path.Dir(p))
		}
	}
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Mkdirat(parent, path.Base(p), 0o700); err != nil {
		return err
	}
	return r.set(parent, path.Base(p), unix.S_IFDIR, a)
}

// set gives name in the directory parent its attributes. It never follows a
// link.
func (r *Root) set(parent int, name string, format uint32, a Attributes) error {
	if format == unix.S_IFLNK {
		if err := unix.Fchownat(parent, name, int(a.UID), int(a.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		return r.times(parent, name, a.Times)
	}
	flags := uint64(unix.O_PATH | unix.O_NOFOLLOW)
	fd, err := openat2(parent, name, flags, 0, beneath)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != format {
		return fault.New(fault.Conflict, "set attributes", quote(name), "something else took its place")
	}
	if err := unix.Fchownat(fd, "", int(a.UID), int(a.GID), unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	self := procPath(fd)
	// After the owner: changing that drops set-user-id bits and capabilities.
	if err := unix.Chmod(self, a.Mode&0o7777); err != nil {
		return err
	}
	for key, value := range a.Xattrs {
		if err := unix.Setxattr(self, key, value, 0); err != nil && !dispensable(key, err) {
			return err
		}
	}
	return r.times(parent, name, a.Times)
}

func (r *Root) times(parent int, name string, t *[2]unix.Timespec) error {
	if t == nil {
		if r.epoch == nil {
			return nil
		}
		ts := unix.NsecToTimespec(r.epoch.UnixNano())
		t = &[2]unix.Timespec{ts, ts}
	}
	return unix.UtimesNanoAt(parent, name, t[:], unix.AT_SYMLINK_NOFOLLOW)
}

// procPath names an open file for calls that take no descriptor opened with
// O_PATH. It is a link that leads to exactly that file.
func procPath(fd int) string { return "/proc/self/fd/" + itoa(fd) }

// place opens the directory of p and clears the way for a new file there. What
// was there goes, unless it is a directory.
func (r *Root) place(p string) (parent int, base string, err error) {
	parent, base, err = r.parent(p)
	if err != nil {
		return -1, "", err
	}
	if err := clearWay(parent, base, p); err != nil {
		unix.Close(parent)
		return -1, "", err
	}
	return parent, base, nil
}

// parent opens the directory that p is in.
func (r *Root) parent(p string) (fd int, base string, err error) {
	p = rel(p)
	if p == "." {
		return -1, "", unix.EISDIR
	}
	fd, err = r.dir(path.Dir(p))
	return fd, path.Base(p), err
}

func clearWay(parent int, base, p string) error {
	err := unix.Unlinkat(parent, base, 0)
	switch err {
	case unix.ENOENT:
		return nil
	case unix.EISDIR, unix.EPERM:
		return fault.New(fault.Invalid, "replace", quote("/"+rel(p)), "a directory is in the way of a file")
	}
	return err
}

// MakeFile writes a file, replacing what is there.
func (r *Root) MakeFile(p string, data []byte, a Attributes) error {
	err := r.file(p, a, func(fd int) error { _, err := fdFile(fd).Write(data); return err })
	return classify("write file", "/"+rel(p), err)
}

// file makes a file whose content write provides.
func (r *Root) file(p string, a Attributes, write func(fd int) error) error {
	parent, _, err := r.parent(p)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return r.fileIn(parent, p, a, write)
}

// fileIn is file for the open directory that p is in.
func (r *Root) fileIn(parent int, p string, a Attributes, write func(fd int) error) error {
	base := path.Base(p)
	create := func() (int, error) {
		return openat2(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600, beneath)
	}
	fd, err := create()
	if err == unix.EEXIST {
		if err = clearWay(parent, base, p); err == nil {
			fd, err = create()
		}
	}
	if err != nil {
		return err
	}
	err = write(fd)
	if err == nil {
		err = r.setOpen(fd, a)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return r.times(parent, base, a.Times)
}

// setOpen gives a file that was just made its attributes, but not its times,
// which change as long as it is written.
func (r *Root) setOpen(fd int, a Attributes) error {
	if err := unix.Fchown(fd, int(a.UID), int(a.GID)); err != nil {
		return err
	}
	// After the owner: changing that drops set-user-id bits and capabilities.
	if err := unix.Fchmod(fd, a.Mode&0o7777); err != nil {
		return err
	}
	for key, value := range a.Xattrs {
		if err := unix.Fsetxattr(fd, key, value, 0); err != nil && !dispensable(key, err) {
			return err
		}
	}
	return nil
}

// dispensable reports whether a file is complete without an attribute that could
// not be set: those of users are not everywhere.
func dispensable(key string, err error) bool {
	return (err == unix.ENOTSUP || err == unix.EPERM) && key != "security.capability"
}

// fdFile reads and writes an open file. An os.File would ask the kernel first
// whether it can be polled, file by file.
type fdFile int

func (f fdFile) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), p)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 && len(p) > 0 {
			return 0, io.EOF
		}
		return max(n, 0), err
	}
}

func (f fdFile) Write(p []byte) (done int, err error) {
	for done < len(p) {
		n, err := unix.Write(int(f), p[done:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// kind returns the format bits of what p leads to, 0 when nothing is there.
func (r *Root) kind(p string) (uint32, error) {
	fd, err := openat2(r.fd, rel(p), unix.O_PATH, 0, inRoot)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return st.Mode & unix.S_IFMT, err
}

// OpenFile opens a regular file for reading, following links inside the root. A
// missing one is fault.NotFound.
func (r *Root) OpenFile(p string) (*os.File, error) {
	fd, err := openat2(r.fd, rel(p), unix.O_RDONLY|unix.O_NONBLOCK, 0, inRoot)
	if err != nil {
		return nil, classify("open", p, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, fault.New(fault.Invalid, "open", quote(p), "it is not a regular file")
	}
	return os.NewFile(uintptr(fd), p), nil
}
