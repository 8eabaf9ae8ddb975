package tree

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
	"berth/internal/layer"
)

// limits of an archive that is unpacked: no image needs more.
var limits = layer.Limits{MaxBytes: 64 << 30, MaxEntries: 2_000_000}

// unpack unpacks an archive to dest. done is false when the file is none.
func (c *copier) unpack(e *Entry, dest string) (done bool, err error) {
	fd, err := c.d.openEntry(e)
	if err != nil {
		return false, err
	}
	f := os.NewFile(uintptr(fd), e.Path)
	defer f.Close()
	if !IsArchive(c.ctx, f) {
		return false, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, classify("read archive", e.Path, err)
	}
	if err := c.r.MakeDirs(dest, c.implied()); err != nil {
		return true, err
	}
	err = c.r.Untar(c.ctx, f, dest, c.o)
	return true, fault.Wrap("unpack", quote(e.Path), err)
}

// IsArchive reports whether f begins as a tar archive does, packed or not. It
// reads on from where f stands.
func IsArchive(ctx context.Context, f *os.File) bool {
	r, err := OpenArchive(ctx, f)
	if err != nil {
		return false
	}
	defer r.Close()
	_, err = tar.NewReader(r).Next()
	return err == nil
}

// OpenArchive returns the plain bytes of an archive that may be compressed with
// gzip, zstd, bzip2 or xz.
func OpenArchive(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	head := bufio.NewReaderSize(r, 64<<10)
	magic, err := head.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if string(magic) == "\xfd7zXZ\x00" {
		return openXZ(ctx, head)
	}
	return layerReader(ctx, head)
}

type readCloser struct {
	io.Reader
	close func()
}

func (r readCloser) Close() error { r.close(); return nil }

func layerReader(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	a, err := layer.NewReader(ctx, r, limits)
	if err != nil {
		return nil, err
	}
	return readCloser{a, func() { a.Close() }}, nil
}

// Untar unpacks an archive below dest. Its names cannot lead out of the root,
// and its links are links, nothing more.
func (r *Root) Untar(ctx context.Context, archive io.Reader, dest string, o CopyOptions) error {
	plain, err := OpenArchive(ctx, archive)
	if err != nil {
		return err
	}
	defer plain.Close()
	u := &untar{ctx: ctx, r: r, dest: path.Clean("/" + dest), o: o}
	tr := tar.NewReader(plain)
	for n := int64(0); ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return damaged(err)
		}
		if n >= limits.MaxEntries {
			return fault.New(fault.Invalid, "read archive", "", "it has more than %d entries", limits.MaxEntries)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.entry(h, tr); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return damaged(err)
			}
			return classify("unpack entry", h.Name, err)
		}
	}
	return u.finish()
}

func damaged(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	return fault.New(fault.Invalid, "read archive", "", "%w", err)
}

type untar struct {
	ctx  context.Context
	r    *Root
	dest string
	o    CopyOptions
	dirs []dirTime
	size int64 // of all files so far: holes make more of them than the archive has
}

type dirTime struct {
	path string
	t    [2]unix.Timespec
}

func (u *untar) entry(h *tar.Header, data io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	p := path.Join(u.dest, path.Clean("/"+h.Name))
	t := unix.NsecToTimespec(h.ModTime.UnixNano())
	a := Attributes{UID: uint32(h.Uid), GID: uint32(h.Gid), Mode: uint32(h.Mode) & 0o7777, Times: &[2]unix.Timespec{t, t}, Xattrs: map[string][]byte{}}
	if h.Uid < 0 || h.Gid < 0 || h.Uid >= 1<<32-1 || h.Gid >= 1<<32-1 {
		return fault.New(fault.Invalid, "unpack entry", quote(h.Name), "its owner %d:%d cannot be", h.Uid, h.Gid)
	}
	if u.o.Owner != nil {
		a.UID, a.GID = u.o.Owner.UID, u.o.Owner.GID
	}
	if u.o.Mode != nil && h.Typeflag != tar.TypeSymlink {
		a.Mode = u.o.Mode.Apply(a.Mode, h.Typeflag == tar.TypeDir)
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok && copied(name) {
			a.Xattrs[name] = []byte(v)
		}
	}
	if err := u.r.MakeDirs(path.Dir(p), Attributes{UID: a.UID, GID: a.GID, Mode: 0o755}); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if p == u.dest {
			return nil
		}
		u.dirs = append(u.dirs, dirTime{p, *a.Times})
		return u.r.directory(p, a)
	case tar.TypeReg, tar.TypeGNUSparse:
		if h.Size < 0 || h.Size > limits.MaxBytes-u.size {
			return fault.New(fault.Invalid, "unpack entry", quote(h.Name), "the archive's files are larger than %d bytes", limits.MaxBytes)
		}
		u.size += h.Size
		return u.r.file(p, a, func(fd int) error { return u.content(fd, data, h.Size) })
	case tar.TypeSymlink:
		if h.Linkname == "" {
			return fault.New(fault.Invalid, "unpack entry", quote(h.Name), "it is a link to nothing")
		}
		return u.r.symlink(h.Linkname, p, a)
	case tar.TypeLink:
		return u.r.hardLink(path.Join(u.dest, path.Clean("/"+h.Linkname)), p, a)
	case tar.TypeFifo:
		return u.r.device(p, unix.S_IFIFO, 0, a)
	case tar.TypeChar:
		return u.r.device(p, unix.S_IFCHR, unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)), a)
	case tar.TypeBlock:
		return u.r.device(p, unix.S_IFBLK, unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)), a)
	}
	return fault.New(fault.Invalid, "unpack entry", quote(h.Name), "an entry of type %q is unknown", h.Typeflag)
}

// content writes a file, and leaves out what is only zeros: an archive of a few
// bytes may claim gigabytes of them.
func (u *untar) content(fd int, data io.Reader, size int64) error {
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	for offset := int64(0); offset < size; {
		n, err := io.ReadFull(data, buf[:min(int64(len(buf)), size-offset)])
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		if err := u.ctx.Err(); err != nil {
			return err
		}
		if chunk := buf[:n]; bytes.Count(chunk, zero) < n {
			if _, err := unix.Seek(fd, offset, io.SeekStart); err != nil {
				return err
			}
			if _, err := fdFile(fd).Write(chunk); err != nil {
				return err
			}
		}
		offset += int64(n)
	}
	return unix.Ftruncate(fd, size)
}

var zero = []byte{0}

// finish sets the times of directories, which changed while they were filled.
func (u *untar) finish() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		d := u.dirs[i]
		parent, err := u.r.dir(path.Dir(d.path))
		if err != nil {
			continue // replaced by a later entry
		}
		_ = unix.UtimesNanoAt(parent, path.Base(d.path), d.t[:], unix.AT_SYMLINK_NOFOLLOW)
		unix.Close(parent)
	}
	return nil
}
