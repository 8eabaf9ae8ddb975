package archive

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// Stat describes a file of the container. A link at the end of the path is
// described itself, with the path that it leads to inside of the container.
func (r *Root) Stat(name string) (container.PathStat, error) {
	name = Clean(name)
	fd, err := r.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return container.PathStat{}, notThere(name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return container.PathStat{}, fault.Wrap("stat", name, err)
	}
	out := container.PathStat{Name: path.Base(name), Size: st.Size, Mode: fileMode(st.Mode), Mtime: time.Unix(st.Mtim.Unix())}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if out.LinkTarget, err = r.resolve(name); err != nil {
			return out, fault.Wrap("follow link", name, err)
		}
	}
	return out, nil
}

// notThere turns what the kernel says about a path into what a user is told.
func notThere(name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fault.New(fault.NotFound, "", "", "Could not find the file %s", name)
	case errors.Is(err, unix.ENOTDIR):
		return fault.New(fault.Invalid, "", "", "%s: not a directory", name)
	case errors.Is(err, unix.ELOOP):
		return fault.New(fault.Invalid, "", "", "%s: too many links", name)
	case errors.Is(err, unix.ENAMETOOLONG):
		return fault.New(fault.Invalid, "", "", "the path is too long")
	}
	return fault.Wrap("open", name, err)
}

// fileMode turns the kernel's mode into Go's, which is what docker sends.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	for bit, also := range map[uint32]fs.FileMode{unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= also
		}
	}
	return mode
}

// bufferSize is that of every copy, in bytes.
const bufferSize = 256 << 10

// Pack writes a file or a directory with all below it as a tar archive. Names in
// it begin with the last part of the given path, as docker's do.
func (r *Root) Pack(ctx context.Context, name string, w io.Writer) error {
	name = Clean(name)
	fd, err := r.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return notThere(name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fault.Wrap("stat", name, err)
	}
	if isView(fd) {
		return fault.New(fault.Invalid, "", "", "%s shows what the kernel knows and holds no files to copy", name).WithHint("read it with exec")
	}
	out := bufio.NewWriterSize(w, bufferSize)
	p := &packer{ctx: ctx, tar: tar.NewWriter(out), buf: make([]byte, bufferSize), seen: make(map[inode]string)}
	base := path.Base(name)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		dir, err := openBelow(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return fault.Wrap("open", name, err)
		}
		if base == "/" {
			base, p.whole = "", true
		}
		err = p.dir(dir, base, &st)
		_ = unix.Close(dir)
		if err != nil {
			return err
		}
	} else {
		up, err := r.open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return notThere(name, err)
		}
		err = p.entry(up, base, base, &st)
		_ = unix.Close(up)
		if err != nil {
			return err
		}
	}
	if err := p.tar.Close(); err != nil {
		return err
	}
	return out.Flush()
}

type inode struct{ dev, ino uint64 }

type packer struct {
	ctx   context.Context
	tar   *tar.Writer
	buf   []byte
	names []byte
	seen  map[inode]string // where files with several names are in the archive
	whole bool             // the whole root is packed
}

// dir writes a directory, which is open, and what is in it.
func (p *packer) dir(fd int, name string, st *unix.Stat_t) error {
	if err := p.header(fd, "", name, st); err != nil {
		return err
	}
	if isView(fd) || p.whole && name == "/dev" && isTmpfs(fd) {
		return nil
	}
	return p.members(fd, name+"/")
}

// members writes what is in an open directory; names begin with prefix.
func (p *packer) members(fd int, prefix string) error {
	names, err := p.list(fd)
	if err != nil {
		return fault.Wrap("list", prefix, err)
	}
	for _, n := range names {
		var st unix.Stat_t
		err := unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			err = p.entry(fd, n, prefix+n, &st)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) { // gone meanwhile
			return err
		}
	}
	return nil
}

// entry writes one member of an open directory.
func (p *packer) entry(dir int, base, name string, st *unix.Stat_t) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fault.Wrap("open", name, err)
		}
		defer unix.Close(fd)
		if err := unix.Fstat(fd, st); err != nil {
			return fault.Wrap("stat", name, err)
		}
		return p.dir(fd, name, st)
	case unix.S_IFREG:
		return p.file(dir, base, name)
	case unix.S_IFSOCK:
		return nil // means nothing without its process
	}
	return p.header(dir, base, name, st)
}

// file writes a regular file as long as it is when it is opened: one that grows
// meanwhile is cut, one that shrinks is filled up with zeros, as tar does.
func (p *packer) file(dir int, base, name string) error {
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap("open", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fault.Wrap("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil // replaced meanwhile
	}
	if p.known(name, &st) {
		return p.header(fd, "", name, &st)
	}
	if err := p.header(fd, "", name, &st); err != nil {
		return err
	}
	if st.Size > bufferSize {
		_ = unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL)
	}
	for left := st.Size; left > 0; {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		part := p.buf[:min(left, bufferSize)]
		n, err := unix.Read(fd, part)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fault.Wrap("read", name, err)
		}
		if n == 0 {
			clear(part)
			n = len(part)
		}
		if _, err := p.tar.Write(part[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// known reports whether the same file is in the archive under another name.
func (p *packer) known(name string, st *unix.Stat_t) bool {
	if st.Nlink < 2 {
		return false
	}
	first, seen := p.seen[inode{uint64(st.Dev), st.Ino}]
	return seen && first != name
}

// header writes the header of what is open as fd, or is called base in it.
func (p *packer) header(fd int, base, name string, st *unix.Stat_t) error {
	h := &tar.Header{Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Sec, 0)}
	kind := st.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		if value := capability(fd); value != "" {
			h.PAXRecords = map[string]string{xattrPrefix + capabilityName: value}
		}
	case unix.S_IFLNK:
		to, err := linkAt(fd, base)
		if err != nil {
			return fault.Wrap("read link", name, err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, to
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	if st.Nlink > 1 && kind != unix.S_IFDIR {
		id := inode{uint64(st.Dev), st.Ino}
		if first, seen := p.seen[id]; seen && first != name {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
		} else {
			p.seen[id] = name
		}
	}
	return p.tar.WriteHeader(h)
}

const (
	xattrPrefix    = "SCHILY.xattr."
	capabilityName = "security.capability"
)

func capability(fd int) string {
	var buf [64]byte
	n, err := unix.Fgetxattr(fd, capabilityName, buf[:])
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

// list returns the names in an open directory, sorted.
func (p *packer) list(fd int) ([]string, error) {
	if p.names == nil {
		p.names = make([]byte, 64<<10)
	}
	var out []string
	for {
		n, err := unix.Getdents(fd, p.names)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			slices.Sort(out)
			return out, nil
		}
		for b := p.names[:n]; len(b) >= direntHead; {
			size := int(binary.NativeEndian.Uint16(b[16:]))
			if size < direntHead || size > len(b) {
				return nil, unix.EINVAL
			}
			name, _, _ := strings.Cut(string(b[direntHead:size]), "\x00")
			if name != "." && name != ".." && binary.NativeEndian.Uint64(b) != 0 {
				out = append(out, name)
			}
			b = b[size:]
		}
	}
}

// direntHead is the length of linux_dirent64 before its name.
const direntHead = 19

// isView reports whether what is open shows the kernel's knowledge and not files.
func isView(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch uint32(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.SELINUX_MAGIC,
		unix.BINFMTFS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, mqueueMagic, configfsMagic:
		return true
	}
	return false
}

// From the kernel's include/uapi/linux/magic.h and ipc/mqueue.c.
const (
	mqueueMagic   = 0x19800202
	configfsMagic = 0x62656570
)

func isTmpfs(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && uint32(st.Type) == unix.TMPFS_MAGIC
}
