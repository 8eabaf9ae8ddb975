package runtime

import (
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"berth/internal/fault"
	"berth/internal/runtime/plan"

	"golang.org/x/sys/unix"
)

// inRoot opens a path below a directory as if that were "/".
func inRoot(root int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	name = "." + path.Clean("/"+name)
	for range 128 {
		fd, err := unix.Openat2(root, name, &how)
		// A rename or mount elsewhere makes the kernel unsure about "..".
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// makeTarget makes a missing mount point or directory below the root, with the
// directories that lead to it. Every step starts at the root and stays in it,
// wherever links lead; a link to nothing is followed to where it points.
func (k *creation) makeTarget(t plan.Target) error {
	owner := k.rootOwner()
	dir := t.Path
	if !t.Dir {
		dir = path.Dir(t.Path)
	}
	parent, err := makeDirs(k.rootFD, dir, owner, 0)
	if err != nil {
		return fault.New(fault.Internal, "make mount point", t.Path, "%w", err)
	}
	defer unix.Close(parent)
	if t.Dir {
		return nil
	}
	base := path.Base(t.Path)
	fd, err := unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_RDONLY, 0o644)
	if err != nil {
		return fault.New(fault.Internal, "make mount point", t.Path, "%w", err)
	}
	defer unix.Close(fd)
	if owner != ([2]int{}) {
		return os.NewSyscallError("fchown", unix.Fchown(fd, owner[0], owner[1]))
	}
	return nil
}

// rootOwner is who owns what is made for the container: the root of its user
// namespace.
func (k *creation) rootOwner() (owner [2]int) {
	if l := k.opts.Spec.Linux; l != nil && k.userNS {
		owner[0], _ = hostID(l.UIDMappings, 0)
		owner[1], _ = hostID(l.GIDMappings, 0)
	}
	return owner
}

// maxLinks bounds how many links to nothing are followed on the way to one
// target.
const maxLinks = 16

// makeDirs opens a directory below root and makes what is missing of the way.
func makeDirs(root int, dir string, owner [2]int, links int) (int, error) {
	dir = path.Clean("/" + dir)
	fd, err := inRoot(root, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil || !errors.Is(err, unix.ENOENT) || dir == "/" {
		return fd, err
	}
	parent, err := makeDirs(root, path.Dir(dir), owner, links)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	base := path.Base(dir)
	switch err := unix.Mkdirat(parent, base, 0o755); {
	case err == nil:
		if owner != ([2]int{}) {
			if err := unix.Fchownat(parent, base, owner[0], owner[1], unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return -1, err
			}
		}
	case err == unix.EEXIST:
		if to, ok := danglingLink(parent, base); ok {
			if links >= maxLinks {
				return -1, unix.ELOOP
			}
			if !path.IsAbs(to) {
				to = path.Join(path.Dir(dir), to)
			}
			return makeDirs(root, to, owner, links+1)
		}
	default:
		return -1, err
	}
	return inRoot(root, dir, unix.O_PATH|unix.O_DIRECTORY)
}

func danglingLink(parent int, base string) (to string, ok bool) {
	var b [unix.PathMax]byte
	n, err := unix.Readlinkat(parent, base, b[:])
	return string(b[:max(n, 0)]), err == nil && n > 0
}

// copyUp copies a directory of the root into a fresh tmpfs that is about to
// cover it.
func (k *creation) copyUp(t plan.Target, tree int) error {
	from, err := inRoot(k.rootFD, t.Path, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		err = copyDir(from, tree, true)
	}
	if err != nil {
		return fault.New(fault.Internal, "copy into tmpfs", t.Path, "%w", err)
	}
	return nil
}

// copyDir copies the content of one open directory into another, and its owner
// and mode. It closes from. Nothing is opened through a link.
func copyDir(from, to int, top bool) error {
	dir := os.NewFile(uintptr(from), "source")
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if err := copyEntry(from, to, name); err != nil {
				return &os.PathError{Op: "copy", Path: name, Err: err}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	return own(to, "", &st)
}

// own gives a copied entry its original's owner and mode; name "" is the
// directory itself, a descriptor that may be opened by O_PATH.
func own(dir int, name string, st *unix.Stat_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	if err := unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), flags); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	if name == "" {
		name = "."
	}
	return unix.Fchmodat(dir, name, st.Mode&0o7777, 0)
}

func copyEntry(from, to int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(to, name, 0o700); err != nil && err != unix.EEXIST {
			return err
		}
		sub, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		into, err := unix.Openat(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			unix.Close(sub)
			return err
		}
		defer unix.Close(into)
		return copyDir(sub, into, false)
	case unix.S_IFLNK:
		link, ok := danglingLink(from, name)
		if !ok {
			return unix.EINVAL
		}
		if err := unix.Symlinkat(link, to, name); err != nil {
			return err
		}
	case unix.S_IFREG:
		if err := copyFile(from, to, name); err != nil {
			return err
		}
	default:
		if err := unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	}
	return own(to, name, &st)
}

func copyFile(from, to int, name string) error {
	in, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(in), name)
	defer src.Close()
	out, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(out), name)
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}

// maxPasswd bounds how much of an image's /etc/passwd is read.
const maxPasswd = 1 << 20

// homeOf looks up the home directory of a user id in the root's /etc/passwd.
func homeOf(root int, uid uint32) string {
	fd, err := inRoot(root, "/etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), "passwd")
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPasswd))
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		field := strings.Split(line, ":")
		if len(field) >= 6 && field[2] == strconv.FormatUint(uint64(uid), 10) {
			return field[5]
		}
	}
	return ""
}
