package volume

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"berth/internal/fault"
	"berth/internal/quota"

	"golang.org/x/sys/unix"
)

// Populate copies the files of an image directory, open as src, into a directory of
// a volume that is still empty, with owners, modes, times, extended attributes,
// links and devices; one that is not empty is left alone. Names are resolved
// against open directories only, so nothing in the image can lead the copy out of
// it, and no container that has the volume already can lead it out of there.
func Populate(ctx context.Context, dst, src *os.File) error {
	switch isEmpty, err := empty(dst); {
	case err != nil:
		return fault.Wrap("fill volume", dst.Name(), err)
	case !isEmpty:
		return nil
	}
	c := copier{ctx: ctx, links: make(map[inode]link)}
	defer c.close()
	if err := quota.Obey(func() error { return c.dir(src, dst) }); err != nil {
		return fault.Wrap("fill volume", dst.Name(), classify(err))
	}
	return nil
}

type inode struct{ dev, ino uint64 }

// link is where a file with several names was first copied to.
type link struct {
	dir  int // an open directory, kept until the end
	name string
}

type copier struct {
	ctx   context.Context
	links map[inode]link
	dirs  []int
}

func (c *copier) close() {
	for _, fd := range c.dirs {
		unix.Close(fd)
	}
}

// dir copies what is in src to dst, then src's own attributes.
func (c *copier) dir(src, dst *os.File) error {
	for {
		names, err := src.Readdirnames(256)
		for _, n := range names {
			if err := c.entry(src, dst, n); err != nil {
				return &os.PathError{Op: "copy", Path: n, Err: err}
			}
		}
		if errors.Is(err, io.EOF) || (err == nil && len(names) == 0) {
			break
		}
		if err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return err
	}
	return attributes(int(src.Fd()), int(dst.Fd()), &st)
}

func (c *copier) entry(src, dst *os.File, name string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	sfd, dfd := int(src.Fd()), int(dst.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(sfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	id := inode{uint64(st.Dev), st.Ino}
	if first, seen := c.links[id]; seen && kind != unix.S_IFDIR {
		return unix.Linkat(first.dir, first.name, dfd, name, 0)
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		err = c.subdir(sfd, dfd, name)
	case unix.S_IFREG:
		err = file(sfd, dfd, name, &st)
	case unix.S_IFLNK:
		err = symlink(sfd, dfd, name, &st)
	case unix.S_IFSOCK:
		return nil // a socket without its process is nothing
	default:
		if err = unix.Mknodat(dfd, name, st.Mode, int(st.Rdev)); err == nil {
			err = ownerModeTimes(dfd, name, &st)
		}
	}
	if err == nil && st.Nlink > 1 && kind != unix.S_IFDIR {
		err = c.remember(id, dfd, name)
	}
	return err
}

func (c *copier) remember(id inode, dfd int, name string) error {
	fd, err := unix.FcntlInt(uintptr(dfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c.dirs = append(c.dirs, fd)
	c.links[id] = link{fd, name}
	return nil
}

func (c *copier) subdir(sfd, dfd int, name string) error {
	const how = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	s, err := unix.Openat(sfd, name, how, 0)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(s), name)
	defer src.Close()
	if err := unix.Mkdirat(dfd, name, 0o700); err != nil {
		return err
	}
	d, err := unix.Openat(dfd, name, how, 0)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(d), name)
	defer dst.Close()
	return c.dir(src, dst)
}

func file(sfd, dfd int, name string, st *unix.Stat_t) error {
	s, err := unix.Openat(sfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(s), name)
	defer src.Close()
	d, err := unix.Openat(dfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(d), name)
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return attributes(s, d, st)
}

func symlink(sfd, dfd int, name string, st *unix.Stat_t) error {
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(sfd, name, buf)
	if err != nil {
		return err
	}
	if err := unix.Symlinkat(string(buf[:n]), dfd, name); err != nil {
		return err
	}
	return ownerModeTimes(dfd, name, st)
}

// attributes copies owner, mode, extended attributes and times between two open
// files. The order matters: a change of owner clears set-id bits and
// capabilities.
func attributes(src, dst int, st *unix.Stat_t) error {
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(dst, st.Mode&0o7777); err != nil {
		return err
	}
	if err := xattrs(src, dst); err != nil {
		return err
	}
	tv := []unix.Timeval{
		unix.NsecToTimeval(time.Unix(st.Atim.Unix()).UnixNano()),
		unix.NsecToTimeval(time.Unix(st.Mtim.Unix()).UnixNano()),
	}
	return unix.Futimes(dst, tv)
}

// ownerModeTimes does so for what cannot be opened: links, devices and FIFOs. The
// name may lead elsewhere by now, so it is never followed.
func ownerModeTimes(dfd int, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(dfd, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := chmodNode(dfd, name, st.Mode); err != nil {
			return err
		}
	}
	ts := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(dfd, name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// chmodNode sets the mode of a device or FIFO, and of nothing that has taken its
// place.
func chmodNode(dfd int, name string, mode uint32) error {
	fd, err := unix.Openat(dfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != mode&unix.S_IFMT {
		return errors.New("somebody has replaced it")
	}
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode&0o7777)
}

// xattrs copies user attributes, capabilities and access lists. What belongs to
// overlayfs itself stays behind.
func xattrs(src, dst int) error {
	size, err := unix.Flistxattr(src, nil)
	if err != nil || size == 0 {
		if errors.Is(err, unix.ENOTSUP) {
			return nil
		}
		return err
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(src, list); err != nil {
		return err
	}
	value := make([]byte, 64<<10) // the kernel's limit for one attribute
	for _, key := range strings.Split(strings.Trim(string(list[:size]), "\x00"), "\x00") {
		if key == "" || strings.HasPrefix(key, "trusted.") {
			continue
		}
		n, err := unix.Fgetxattr(src, key, value)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(dst, key, value[:n], 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return nil
}
