package layer

import (
	"archive/tar"
	"context"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// packer turns a directory into a tar.
type packer struct {
	o     DiffOptions
	upper bool // the directory is the upper of an overlay: translate its marks
	live  bool // files may come, go and change while they are read
	adopt bool // make the directory what Apply would make of the tar

	ctx   context.Context
	tar   *tar.Writer
	out   *sink
	buf   []byte
	links map[fileID]string // first names of files with several
	layer Layer
}

type fileID struct{ dev, ino uint64 }

// sink is where the tar goes.
type sink struct {
	w      io.Writer
	record *recordWriter // nil: none is wanted
	file   bool          // what passes is the content of a file
}

func (s *sink) Write(b []byte) (int, error) {
	if s.record != nil && !s.file {
		s.record.raw(b)
	}
	return s.w.Write(b)
}

// item is a file that is being packed.
type item struct {
	dirfd  int
	dir    string // its path; "." is the root
	name   string
	fd     int // descriptor of files and directories, else -1
	st     unix.Stat_t
	xattrs map[string]string
	marks  overlayMarks
}

func (i *item) path() string { return join(i.dir, i.name) }

func (i *item) format() uint32 { return i.st.Mode & unix.S_IFMT }

func (i *item) close() {
	if i.fd >= 0 {
		unix.Close(i.fd)
		i.fd = -1
	}
}

// run packs the directory root.
func (p packer) run(ctx context.Context, root string, out *sink) (Layer, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Layer{}, &os.PathError{Op: "open", Path: root, Err: err}
	}
	buf := copyPool.Get().(*[]byte)
	defer copyPool.Put(buf)
	p.ctx, p.out, p.buf = ctx, out, *buf
	p.tar, p.links = tar.NewWriter(out), map[fileID]string{}
	i := &item{dirfd: unix.AT_FDCWD, dir: ".", name: ".", fd: fd}
	defer i.close()
	if err := unix.Fstat(fd, &i.st); err != nil {
		return Layer{}, &os.PathError{Op: "stat", Path: root, Err: err}
	}
	if err := p.attributes(i); err != nil {
		return Layer{}, &os.PathError{Op: "read attributes", Path: root, Err: err}
	}
	if p.o.Root {
		p.layer.RootEntry = true
		if err := p.write(i, "./", tar.TypeDir); err != nil {
			return Layer{}, err
		}
	}
	p.layer.RootOpaque = i.marks.opaque
	if err := p.children(i, "."); err != nil {
		return Layer{}, err
	}
	return p.layer, p.tar.Close()
}

// children packs what is in a directory, and closes it.
func (p *packer) children(i *item, path string) error {
	dir := os.NewFile(uintptr(i.fd), "directory being packed")
	defer func() {
		dir.Close()
		i.fd = -1
	}()
	if i.marks.opaque {
		if err := p.mark(path, whiteoutOpaque); err != nil {
			return err
		}
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fault.Wrap("list directory", quote(path), err)
	}
	slices.Sort(names)
	changed := false
	for _, name := range names {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		gone, err := p.child(i, path, name)
		if err != nil {
			return err
		}
		changed = changed || gone
	}
	if p.adopt {
		return p.settle(i, changed)
	}
	return nil
}

// child packs one file or directory, whatever it is. It reports whether it
// removed it from the directory (see Adopt).
func (p *packer) child(parent *item, dir, name string) (gone bool, err error) {
	i := &item{dirfd: parent.fd, dir: dir, name: name, fd: -1}
	defer i.close()
	path := i.path()
	if p.o.Exclude != nil && p.o.Exclude(path) {
		return p.omit(i)
	}
	if len(path) > maxPath {
		return false, fault.New(fault.Unsupported, "pack file", quote(path), "%w", errTooDeep)
	}
	err = unix.Fstatat(i.dirfd, name, &i.st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		err = p.open(i)
	}
	if err == unix.EXDEV {
		p.skipped(path, "another file system is mounted there")
		if i.format() == unix.S_IFDIR {
			return false, p.write(i, path+"/", tar.TypeDir)
		}
		return false, nil
	}
	if err == nil {
		err = p.attributes(i)
	}
	if err == unix.ENOENT && p.live {
		return false, nil
	}
	if err != nil {
		return false, fault.Wrap("pack file", quote(path), err)
	}
	if p.upper {
		if done, gone, err := p.whiteout(parent, i); done || err != nil {
			return gone, err
		}
	}
	return p.entry(i)
}

// open opens what has content: a regular file or a directory.
func (p *packer) open(i *item) error {
	flags := uint64(unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NOATIME)
	format := i.format()
	switch format {
	case unix.S_IFDIR:
		flags |= unix.O_DIRECTORY
	case unix.S_IFREG:
		flags |= unix.O_NONBLOCK
	default:
		return nil
	}
	fd, err := openat2(i.dirfd, i.name, &unix.OpenHow{Flags: flags, Resolve: dirResolve | unix.RESOLVE_NO_XDEV})
	if err != nil {
		return err
	}
	if err = unix.Fstat(fd, &i.st); err == nil && i.format() != format {
		err = unix.ENOENT // replaced just now
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	i.fd = fd
	return nil
}

// entry packs what is no whiteout.
func (p *packer) entry(i *item) (gone bool, err error) {
	path := i.path()
	format := i.format()
	if format == unix.S_IFDIR {
		p.layer.Disk += blockSize
		if err := p.write(i, path+"/", tar.TypeDir); err != nil {
			return false, err
		}
		return false, p.children(i, path)
	}
	if format == unix.S_IFSOCK {
		return p.leaveOut(i, "an archive cannot hold a socket")
	}
	if i.st.Nlink > 1 {
		id := fileID{uint64(i.st.Dev), i.st.Ino}
		if first, ok := p.links[id]; ok {
			h := p.header(i, path, tar.TypeLink)
			h.Linkname, h.PAXRecords = first, nil
			p.layer.Entries++
			return false, p.headerError(path, p.tar.WriteHeader(h))
		}
		p.links[id] = path
	}
	switch format {
	case unix.S_IFREG:
		err = p.file(i)
	case unix.S_IFLNK:
		err = p.symlink(i)
	case unix.S_IFCHR:
		if i.st.Rdev == 0 {
			return p.leaveOut(i, "character device 0:0 means a whiteout")
		}
		err = p.special(i, tar.TypeChar)
	case unix.S_IFBLK:
		err = p.special(i, tar.TypeBlock)
	case unix.S_IFIFO:
		err = p.special(i, tar.TypeFifo)
	default:
		return p.leaveOut(i, "it is of an unknown type")
	}
	if err == nil && p.adopt {
		err = p.settle(i, false)
	}
	return false, err
}

func (p *packer) symlink(i *item) error {
	target, err := readlinkat(i.dirfd, i.name)
	if err == unix.ENOENT && p.live || err == unix.EINVAL && p.live {
		return nil
	}
	if err != nil {
		return fault.Wrap("read symlink", quote(i.path()), err)
	}
	h := p.header(i, i.path(), tar.TypeSymlink)
	h.Linkname = target
	p.layer.Entries++
	p.layer.Disk += blockSize
	return p.headerError(i.path(), p.tar.WriteHeader(h))
}

func (p *packer) special(i *item, typeflag byte) error {
	p.layer.Disk += blockSize
	return p.write(i, i.path(), typeflag)
}

// write writes an entry that is only a header.
func (p *packer) write(i *item, name string, typeflag byte) error {
	p.layer.Entries++
	return p.headerError(name, p.tar.WriteHeader(p.header(i, name, typeflag)))
}

func (p *packer) headerError(name string, err error) error {
	return fault.Wrap("pack file", quote(name), err)
}

// header describes a file. Only what the file system keeps is in it: the size
// of a directory, a change time or a user's name would differ elsewhere.
func (p *packer) header(i *item, name string, typeflag byte) *tar.Header {
	h := &tar.Header{
		Typeflag: typeflag, Name: name, Mode: int64(i.st.Mode & 0o7777), Uid: int(i.st.Uid), Gid: int(i.st.Gid),
		ModTime: p.modTime(i), Format: tar.FormatPAX,
	}
	if typeflag == tar.TypeChar || typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(unix.Major(i.st.Rdev)), int64(unix.Minor(i.st.Rdev))
	}
	for key, value := range i.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+escapeXattr(key)] = value
	}
	return h
}

func (p *packer) modTime(i *item) time.Time {
	t := time.Unix(i.st.Mtim.Unix())
	if p.o.Epoch != nil && t.After(*p.o.Epoch) {
		return *p.o.Epoch
	}
	return t
}

// mark writes an entry that says that something is hidden.
func (p *packer) mark(dir, name string) error {
	p.layer.Entries++
	path := join(dir, name)
	return p.headerError(path, p.tar.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: path, Mode: 0o600, ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}))
}

func (p *packer) skipped(path, why string) {
	if p.o.Skipped != nil {
		p.o.Skipped(path, why)
	}
}

// leaveOut leaves a file out and says so.
func (p *packer) leaveOut(i *item, why string) (gone bool, err error) {
	p.skipped(i.path(), why)
	return p.omit(i)
}

// omit leaves a file or directory out. Of a directory that becomes a layer's
// tree it is removed, as what is not in the tar must not be in the tree.
func (p *packer) omit(i *item) (gone bool, err error) {
	if !p.adopt {
		return false, nil
	}
	return true, fault.Wrap("remove file", quote(i.path()), new(remover).at(i.dirfd, i.name))
}
