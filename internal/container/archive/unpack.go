package archive

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// UnpackOptions say how an archive becomes files.
type UnpackOptions struct {
	// KeepKind refuses to put a file in the place of a directory and the other
	// way round.
	KeepKind bool
	// Owner is who everything belongs to; nil leaves it to the archive.
	Owner *Owner
}

// Owner is a user and a group by number.
type Owner struct{ UID, GID int }

// maxDirTimes bounds how many directories get back their times at the end.
const maxDirTimes = 1 << 20

// Unpack puts the files of an uncompressed tar archive into a directory of the
// container.
func (r *Root) Unpack(ctx context.Context, name string, in io.Reader, o UnpackOptions) error {
	at, err := r.resolve(Clean(name))
	if err != nil {
		return notThere(name, err)
	}
	fd, err := r.open(at, unix.O_PATH)
	if err != nil {
		return notThere(name, err)
	}
	defer unix.Close(fd)
	if err := fit(fd, name); err != nil {
		return err
	}
	u := &unpacker{ctx: ctx, root: r, at: at, o: o, buf: make([]byte, bufferSize), parent: -1}
	defer u.forget()
	archive := tar.NewReader(in)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fault.New(fault.Invalid, "", "", "unable to read the archive: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.Check(); err != nil {
			return err
		}
		if err := u.entry(h, archive); err != nil {
			return err
		}
	}
	return u.dirTimes()
}

// fit checks that files can be put into what is open as fd.
func fit(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fault.Wrap("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fault.New(fault.Invalid, "", "", "extraction point is not a directory")
	}
	if isView(fd) {
		return fault.New(fault.Invalid, "", "", "%s shows what the kernel knows and takes no files", name)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return fault.Wrap("stat", name, err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		return readOnly(name)
	}
	return nil
}

func readOnly(name string) error {
	return fault.New(fault.Forbidden, "", "", "%s: container rootfs or mounted volume is marked read-only", name)
}

type dirTime struct {
	name string
	at   time.Time
}

type unpacker struct {
	ctx  context.Context
	root *Root
	at   string // where the archive goes, without links
	o    UnpackOptions
	buf  []byte

	parent     int // the directory that was last worked in; -1 when there is none
	parentName string
	times      []dirTime
}

func (u *unpacker) forget() {
	if u.parent >= 0 {
		_ = unix.Close(u.parent)
		u.parent = -1
	}
}

// within checks a name of the archive and makes it clean and relative.
func within(name string) (string, error) {
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(clean, 0) {
		return "", fault.New(fault.Invalid, "", "", "the archive names %q, which is outside of its directory", name)
	}
	return clean, nil
}

// enter opens the directory in which a name of the archive lies.
func (u *unpacker) enter(name string) (int, error) {
	dir := path.Dir(name)
	if u.parent >= 0 && u.parentName == dir {
		return u.parent, nil
	}
	u.forget()
	full := path.Join(u.at, dir)
	fd, err := u.root.open(full, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		fd, err = u.root.makeDirs(full)
	}
	if err != nil {
		return -1, writeError(name, err)
	}
	if isView(fd) {
		_ = unix.Close(fd)
		return -1, fault.New(fault.Invalid, "", "", "%s shows what the kernel knows and takes no files", full)
	}
	u.parent, u.parentName = fd, dir
	return fd, nil
}

// writeError classifies a failure to write.
func writeError(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		return readOnly(name)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.New(fault.Exhausted, "write", name, "%w", err)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENAMETOOLONG),
		errors.Is(err, unix.EXDEV), errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EEXIST):
		return fault.New(fault.Invalid, "write", name, "%w", err)
	}
	return fault.Wrap("write", name, err)
}

// entry makes what one header describes.
func (u *unpacker) entry(h *tar.Header, data io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := within(h.Name)
	if err != nil || name == "." {
		return err // the directory itself stays as it is
	}
	dir, err := u.enter(name)
	if err != nil {
		return err
	}
	base := path.Base(name)
	if err := u.clear(dir, base, name, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err = u.dir(dir, base, name, h)
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse, tar.TypeCont: //nolint:staticcheck // old archives have RegA
		err = u.file(dir, base, h, data)
	case tar.TypeSymlink:
		if err = unix.Symlinkat(h.Linkname, dir, base); err == nil {
			err = u.attributes(dir, base, h)
		}
	case tar.TypeLink:
		err = u.link(dir, base, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		err = u.special(dir, base, h)
	default:
		return fault.New(fault.Invalid, "", "", "the archive's entry %q is of an unknown kind %q", h.Name, h.Typeflag)
	}
	var known *fault.Error
	if errors.As(err, &known) || errors.Is(err, context.Canceled) {
		return err
	}
	return writeError(name, err)
}

// clear makes way: everything but a directory for a directory is removed.
func (u *unpacker) clear(dir int, base, name string, isDir bool) error {
	var st unix.Stat_t
	err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return writeError(name, err)
	}
	wasDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if u.o.KeepKind && wasDir != isDir {
		if wasDir {
			return fault.New(fault.Invalid, "", "", "cannot overwrite directory %q with non-directory %q", name, u.at)
		}
		return fault.New(fault.Invalid, "", "", "cannot overwrite non-directory %q with directory %q", name, u.at)
	}
	switch {
	case wasDir && isDir:
		return nil
	case !wasDir:
		if err := unix.Unlinkat(dir, base, 0); err != unix.ENOENT {
			return writeError(name, err)
		}
		return nil
	}
	tree, err := os.OpenRoot("/proc/self/fd/" + strconv.Itoa(dir))
	if err != nil {
		return writeError(name, err)
	}
	defer tree.Close()
	err = tree.RemoveAll(base)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EBUSY) {
		return fault.New(fault.Conflict, "", "", "cannot replace the directory %q: something is mounted there, or it is being written to", name)
	}
	return writeError(name, err)
}

func (u *unpacker) dir(dir int, base, name string, h *tar.Header) error {
	if err := unix.Mkdirat(dir, base, 0o700); err != nil && err != unix.EEXIST {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if len(u.times) < maxDirTimes {
		u.times = append(u.times, dirTime{name, h.ModTime})
	}
	return u.openAttributes(fd, h)
}

func (u *unpacker) file(dir int, base string, h *tar.Header, data io.Reader) error {
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		n, err := data.Read(u.buf)
		for part := u.buf[:n]; len(part) > 0; {
			written, werr := unix.Write(fd, part)
			if werr == unix.EINTR {
				continue
			}
			if werr != nil {
				return werr
			}
			part = part[written:]
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fault.New(fault.Invalid, "", "", "unable to read the archive: %w", err)
		}
		if h.Size > bufferSize {
			if err := errors.Join(u.ctx.Err(), u.root.Check()); err != nil {
				return err
			}
		}
	}
	if err := u.openAttributes(fd, h); err != nil {
		return err
	}
	return unix.Futimes(fd, timevals(h.ModTime))
}

func timevals(t time.Time) []unix.Timeval {
	tv := unix.NsecToTimeval(t.UnixNano())
	return []unix.Timeval{tv, tv}
}

// link makes another name for what the archive brought before, or what was there.
func (u *unpacker) link(dir int, base string, h *tar.Header) error {
	to, err := within(h.Linkname)
	if err != nil {
		return err
	}
	fd, err := u.root.open(path.Join(u.at, to), unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Linkat(fd, "", dir, base, unix.AT_EMPTY_PATH)
}

func (u *unpacker) special(dir int, base string, h *tar.Header) error {
	mode, dev := uint32(unix.S_IFIFO), 0
	switch h.Typeflag {
	case tar.TypeChar:
		mode = unix.S_IFCHR
	case tar.TypeBlock:
		mode = unix.S_IFBLK
	}
	if mode != unix.S_IFIFO {
		if h.Devmajor < 0 || h.Devmajor > 1<<12 || h.Devminor < 0 || h.Devminor > 1<<20 {
			return fault.New(fault.Invalid, "", "", "the archive's device %q has no valid number", h.Name)
		}
		dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	}
	if err := unix.Mknodat(dir, base, mode|0o600, dev); err != nil {
		return err
	}
	return u.attributes(dir, base, h)
}

// attributes gives a link or a special file its owner, mode and times. The file is
// opened first: it may have been replaced by a link, which must not be followed.
func (u *unpacker) attributes(dir int, base string, h *tar.Header) error {
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	uid, gid := u.owner(h)
	if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), uint32(h.Mode)&0o7777, 0); err != nil {
			return err
		}
	}
	ts := unix.NsecToTimespec(h.ModTime.UnixNano())
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH)
}

// openAttributes gives an open file its owner, mode and extended attributes, in
// the order that keeps set-id bits and capabilities.
func (u *unpacker) openAttributes(fd int, h *tar.Header) error {
	uid, gid := u.owner(h)
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return err
	}
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || (attr != capabilityName && !strings.HasPrefix(attr, "user.") && !strings.HasPrefix(attr, "system.posix_acl_")) {
			continue // labels and what belongs to file systems themselves
		}
		if err := unix.Fsetxattr(fd, attr, []byte(value), 0); err != nil && err != unix.ENOTSUP {
			return err
		}
	}
	return nil
}

func (u *unpacker) owner(h *tar.Header) (uid, gid int) {
	if u.o.Owner != nil {
		return u.o.Owner.UID, u.o.Owner.GID
	}
	return h.Uid, h.Gid
}

// dirTimes comes last: every file that is made in a directory changes its time.
func (u *unpacker) dirTimes() error {
	for i := len(u.times) - 1; i >= 0; i-- {
		t := u.times[i]
		dir, err := u.enter(t.name)
		if err != nil {
			return err
		}
		fd, err := unix.Openat(dir, path.Base(t.name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // moved or replaced since
		}
		err = unix.Futimes(fd, timevals(t.at))
		_ = unix.Close(fd)
		if err != nil {
			return writeError(t.name, err)
		}
	}
	return nil
}
