package layer

import (
	"archive/tar"
	"hash/crc32"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// overlayMarks is what overlayfs notes about a file in the upper directory.
type overlayMarks struct {
	opaque    bool     // hides what is below
	whiteouts bool     // holds files that are whiteouts by an attribute
	whiteout  bool     // is one of those
	refused   string   // attribute that ties it to lower layers
	names     []string // all the attributes, to be removed from what becomes a tree
}

// Overlayfs keeps its notes in one of two namespaces, the latter where it was
// mounted without privileges (Documentation/filesystems/overlayfs.rst).
var overlayPrefixes = [...]string{overlayXattr, "user.overlay."}

// attributes reads an item's extended attributes.
func (p *packer) attributes(i *item) error {
	path := procPath(i.dirfd) + "/" + i.name
	list := func(b []byte) (int, error) { return unix.Llistxattr(path, b) }
	get := func(name string, b []byte) (int, error) { return unix.Lgetxattr(path, name, b) }
	if i.fd >= 0 {
		list = func(b []byte) (int, error) { return unix.Flistxattr(i.fd, b) }
		get = func(name string, b []byte) (int, error) { return unix.Fgetxattr(i.fd, name, b) }
	}
	names, err := listXattrs(list)
	if err != nil {
		return err
	}
	for _, name := range names {
		mark, overlay := overlayMark(name)
		if !overlay && !storable(name) {
			continue
		}
		value, err := getXattr(name, get)
		if err == unix.ENODATA {
			continue // removed just now
		}
		if err != nil {
			return err
		}
		switch {
		case !overlay:
			if i.xattrs == nil {
				i.xattrs = map[string]string{}
			}
			i.xattrs[name] = value
		case p.upper:
			i.marks.note(name, mark, value)
		}
	}
	return nil
}

// note takes down one of overlayfs' attributes.
func (m *overlayMarks) note(name, mark, value string) {
	m.names = append(m.names, name)
	switch mark {
	case "opaque":
		m.opaque = m.opaque || value == "y"
		m.whiteouts = m.whiteouts || value == "x"
	case "whiteout":
		m.whiteout = true
	case "redirect", "metacopy":
		m.refused = name
	}
}

// overlayMark cuts overlayfs' prefix off the name of an attribute.
func overlayMark(name string) (mark string, ok bool) {
	for _, prefix := range overlayPrefixes {
		if mark, ok := strings.CutPrefix(name, prefix); ok {
			return mark, true
		}
	}
	return "", false
}

// storable reports whether an attribute belongs into an archive. What the
// host's own security modules attach (labels, hashes) does not mean anything
// elsewhere.
func storable(name string) bool {
	if _, overlay := overlayMark(name); overlay {
		return false
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") || name == capability ||
		strings.HasPrefix(name, "system.posix_acl_")
}

// whiteout packs an item that is one. done is false when it is none.
func (p *packer) whiteout(parent, i *item) (done, gone bool, err error) {
	path := i.path()
	if i.marks.refused != "" {
		err = fault.New(fault.Unsupported, "pack file", quote(path), "attribute %q: part of it is in a lower layer", i.marks.refused).
			WithHint("mount the overlay with redirect_dir=off,metacopy=off")
	} else if strings.HasPrefix(i.name, whiteoutPrefix) {
		err = fault.New(fault.Unsupported, "pack file", quote(path), "in a layer this name means that %s is deleted",
			quote(i.name[len(whiteoutPrefix):])).WithHint("rename the file")
	}
	if err != nil {
		return true, false, err
	}
	format := i.format()
	device := format == unix.S_IFCHR && i.st.Rdev == 0
	if !device && !(format == unix.S_IFREG && i.st.Size == 0 && i.marks.whiteout && parent.marks.whiteouts) {
		return false, false, nil
	}
	if parent.marks.opaque { // there is nothing below that it could hide
		gone, err = p.omit(i)
		return true, gone, err
	}
	if p.adopt && !device {
		if gone, err = p.omit(i); err == nil {
			err = unix.Mknodat(i.dirfd, i.name, unix.S_IFCHR, 0)
		}
		if err != nil {
			return true, gone, fault.Wrap("make whiteout", quote(path), err)
		}
	}
	return true, gone, p.mark(i.dir, whiteoutPrefix+i.name)
}

// file packs a regular file.
func (p *packer) file(i *item) error {
	path := i.path()
	h := p.header(i, path, tar.TypeReg)
	h.Size = i.st.Size
	p.layer.Entries++
	if err := p.tar.WriteHeader(h); err != nil {
		return p.headerError(path, err)
	}
	p.out.file = true
	crc, written, err := p.content(i)
	p.out.file = false
	if err != nil {
		return fault.Wrap("read file", quote(path), err)
	}
	if p.out.record != nil && i.st.Size > 0 {
		p.out.record.content(i.dir, i.name, i.st.Size, crc)
	}
	p.layer.Size += i.st.Size
	p.layer.Disk += blockSize + (written+blockSize-1)/blockSize*blockSize
	return nil
}

// zeros is what holes read as.
var zeros [copySize]byte

// content writes a file's content. Holes are not read. written is what of it
// takes space once it is unpacked, see unpacker.copy.
func (p *packer) content(i *item) (crc uint32, written int64, err error) {
	var data int64 // where the next data are; only of interest in files with holes
	holes := i.st.Blocks*512 < i.st.Size
	for offset := int64(0); offset < i.st.Size; {
		b := p.buf[:min(int64(len(p.buf)), i.st.Size-offset)]
		if holes && offset >= data {
			if data, err = unix.Seek(i.fd, offset, unix.SEEK_DATA); err == unix.ENXIO {
				data, err = i.st.Size, nil
			} else if err != nil {
				holes, err = false, nil // a file system that does not know
			}
		}
		if holes && data-offset >= int64(len(b)) {
			b = zeros[:len(b)]
		} else if err := p.read(i.fd, b, offset); err != nil {
			return 0, 0, err
		}
		if err := p.ctx.Err(); err != nil {
			return 0, 0, err
		}
		crc = crc32.Update(crc, castagnoli, b)
		if _, err := p.tar.Write(b); err != nil {
			return 0, 0, err
		}
		if i.st.Size < sparseFrom || !allZero(b) {
			written += int64(len(b))
		}
		offset += int64(len(b))
	}
	return crc, written, nil
}

// read fills b from a file. A file that has become shorter ends with zeros if
// that is to be expected.
func (p *packer) read(fd int, b []byte, offset int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(fd, b, offset)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0 && p.live:
			clear(b)
			return nil
		case n == 0:
			return fault.New(fault.Conflict, "read file", "", "it became shorter: %w", io.ErrUnexpectedEOF)
		}
		b, offset = b[n:], offset+int64(n)
	}
	return nil
}

// settle makes of a packed file or directory what Apply would have made:
// without overlayfs' notes, and of the time that the tar says. changed tells
// that something was removed from the directory.
func (p *packer) settle(i *item, changed bool) error {
	path := procPath(i.dirfd) + "/" + i.name
	if i.name == "." {
		path = procPath(i.fd)
	}
	var err error
	for _, name := range i.marks.names {
		if name == opaqueXattr && i.marks.opaque {
			continue
		}
		if i.name == "." {
			err = unix.Removexattr(path, name)
		} else {
			err = unix.Lremovexattr(path, name)
		}
		if err != nil && err != unix.ENODATA {
			return fault.Wrap("remove attribute", quote(i.path()), err)
		}
	}
	if i.marks.opaque {
		if i.name == "." {
			err = unix.Setxattr(path, opaqueXattr, []byte("y"), 0)
		} else {
			err = unix.Lsetxattr(path, opaqueXattr, []byte("y"), 0)
		}
		if err != nil {
			return fault.Wrap("set attribute", quote(i.path()), err)
		}
	}
	if t := p.modTime(i); changed || t.Unix() != i.st.Mtim.Sec || int64(t.Nanosecond()) != i.st.Mtim.Nsec {
		times := []unix.Timespec{i.st.Atim, timespec(t)}
		if i.name == "." {
			err = futimens(i.fd, (*[2]unix.Timespec)(times))
		} else {
			err = unix.UtimesNanoAt(i.dirfd, i.name, times, unix.AT_SYMLINK_NOFOLLOW)
		}
		return fault.Wrap("set times", quote(i.path()), err)
	}
	return nil
}
