package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."         // a file of the lower layers is removed
	whiteoutMeta   = ".wh..wh."     // aufs' own files, and:
	whiteoutOpaque = ".wh..wh..opq" // all of the directory in lower layers is hidden
	blockSize      = 4096           // what a file's size is rounded up to in estimates
	copySize       = 128 << 10      // bytes written at once
	sparseFrom     = 1 << 20        // files of this size are looked through for zeros
	maxID          = math.MaxUint32 // as an owner this means "leave it as it is"
	xattrMost      = 64 << 10       // bytes of a value, the kernel's limit
)

var copyPool = sync.Pool{New: func() any { b := make([]byte, copySize); return &b }}

// unpacker writes the entries of one tar stream into a tree.
type unpacker struct {
	ctx     context.Context
	tree    *tree
	tap     *tap
	record  *recordWriter
	lost    *lossWriter
	inexact string // why record and tree do not give the tar again
	limits  Limits
	umask   uint32
	buf     []byte
	times   [2]unix.Timespec // of the current entry
	last    string           // name of the last whole entry
	size    int64
	disk    int64
	count   int64
	root    bool // the archive said what the root is like
	skip    int  // attributes that were refused
}

// untar unpacks the stream into tmp/tree, which must be empty and nobody
// else's, and leaves the record of it beside the tree.
func untar(ctx context.Context, tmp string, r io.Reader, limits Limits) (l Layer, err error) {
	t, err := openTree(filepath.Join(tmp, "tree"))
	if err != nil {
		return Layer{}, sysError(".", "open", err)
	}
	defer t.close()
	record, err := createRecord(filepath.Join(tmp, recordName))
	if err != nil {
		return Layer{}, sysError(".", "make record", err)
	}
	buf := copyPool.Get().(*[]byte)
	defer copyPool.Put(buf)
	u := &unpacker{ctx: ctx, tree: t, tap: &tap{r: r, record: record}, record: record, limits: limits, umask: t.umask, buf: *buf}
	u.lost = &lossWriter{dir: filepath.Join(tmp, lostName), fd: -1}
	t.implied, t.lose = u.implied, u.lose
	err = u.run(tar.NewReader(u.tap))
	if err == nil {
		_, err = io.Copy(io.Discard, u.tap) // what follows the end mark counts for the digest
		err = streamError("the last", err)
	}
	if e := errors.Join(record.close(), u.lost.close()); err == nil {
		err = sysError(".", "write record", e)
	}
	if err != nil {
		return Layer{}, err
	}
	if err := t.finish(sysError, func() { u.skip++ }); err != nil {
		return Layer{}, err
	}
	l = Layer{Size: u.size, Disk: u.disk, Entries: u.count, RootEntry: u.root, SkippedXattrs: u.skip, Inexact: u.inexact, Replaced: t.replaced}
	l.Exact = u.inexact == ""
	l.RootOpaque, err = opaque(t.root)
	return l, sysError(".", "look at", err)
}

// implied says what a directory gets that an entry needs and no entry made.
func (u *unpacker) implied(real string) *dirMeta {
	u.disk += blockSize
	return &dirMeta{path: real, again: u.tree.removed, mode: 0o755, times: u.times}
}

// lose keeps content that an entry replaces: the tar has it and the tree has no
// place for it.
func (u *unpacker) lose(dirfd int, name, real string) (bool, error) {
	if u.inexact != "" {
		return false, nil
	}
	moved, err := u.lost.keep(dirfd, name, real, u.record.frames)
	if !moved && err == nil {
		u.inexact = fmt.Sprintf("the archive replaces more than %d of its own entries", u.lost.n)
	}
	return moved, err
}

func (u *unpacker) run(tr *tar.Reader) error {
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return streamError(u.last, err)
		}
		if u.count++; u.count > u.limits.MaxEntries {
			return entryError(h.Name, ErrTooLarge, "the archive has more than %d entries", u.limits.MaxEntries)
		}
		if err := u.entry(h, tr); err != nil {
			return err
		}
		u.last = h.Name
	}
}

// entry unpacks one entry.
func (u *unpacker) entry(h *tar.Header, data io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // comments, such as a git commit's
	}
	if err := check(h); err != nil {
		return err
	}
	p, err := cleanName(h.Name)
	if err != nil {
		return sysEntryError(h.Name, "name", err)
	}
	u.times = entryTimes(h)
	if p == "." {
		return u.rootEntry(h)
	}
	parent, base := split(p)
	if aufsOwn(p) {
		return nil
	}
	dirfd, real, err := u.tree.dir(parent, true)
	if err != nil {
		return sysEntryError(h.Name, "open the directory it is in", err)
	}
	if len(real)+1+len(base) > maxPath {
		return sysEntryError(h.Name, "name", errTooDeep)
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(h, dirfd, real, base)
	}
	what, err := u.create(h, data, dirfd, real, base)
	if err != nil {
		return sysEntryError(h.Name, what, err)
	}
	return nil
}

// create makes an entry that is no whiteout. On failure it also returns what it
// was doing.
func (u *unpacker) create(h *tar.Header, data io.Reader, dirfd int, real, base string) (what string, err error) {
	switch h.Typeflag {
	case tar.TypeDir:
		return "make directory", u.directory(h, dirfd, real, base)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return "write file", u.file(h, data, dirfd, real, base)
	case tar.TypeSymlink:
		return "make symlink", u.symlink(h, dirfd, real, base)
	case tar.TypeLink:
		return "make hard link to " + quote(h.Linkname), u.hardlink(h, dirfd, real, base)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return "make device", u.device(h, dirfd, real, base)
	}
	return "", entryError(h.Name, ErrEntryType, "type %q", string(h.Typeflag))
}

// check refuses what no entry may have, whatever its type.
func check(h *tar.Header) error {
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= maxID || int64(h.Gid) >= maxID {
		return entryError(h.Name, ErrField, "owner %d:%d", h.Uid, h.Gid)
	}
	if h.Size < 0 {
		return entryError(h.Name, ErrField, "size %d", h.Size)
	}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok {
			continue
		}
		if name = unescapeXattr(name); strings.HasPrefix(name, overlayXattr) {
			return entryError(h.Name, ErrReserved, "attribute %q", name)
		}
		if len(value) > xattrMost {
			return entryError(h.Name, ErrField, "attribute %q has %d bytes", name, len(value))
		}
	}
	return nil
}

// sysEntryError adds the entry's name to an error that may be one of ours or
// the file system's.
func sysEntryError(name, what string, err error) error {
	for _, known := range []error{ErrTraversal, ErrWhiteout, ErrLink, ErrField, ErrReserved, ErrDevice} {
		if errors.Is(err, known) {
			return entryError(name, err, "%s", what)
		}
	}
	return sysError(name, what, err)
}

// aufsOwn reports whether a path is one of the bookkeeping files that aufs left
// in the images of its time. They mean nothing to anybody else.
func aufsOwn(p string) bool {
	for _, name := range [...]string{".wh..wh.aufs", ".wh..wh.orph", ".wh..wh.plnk"} {
		if p == name || strings.HasPrefix(p, name) && p[len(name)] == '/' {
			return true
		}
	}
	return false
}

// whiteout handles an entry whose name says that something below is hidden.
func (u *unpacker) whiteout(h *tar.Header, dirfd int, real, base string) error {
	if base == whiteoutOpaque {
		return sysError(h.Name, "hide what is below", makeOpaque(dirfd))
	}
	name := base[len(whiteoutPrefix):]
	if name == "" || name == "." || name == ".." || strings.HasPrefix(base, whiteoutMeta) || strings.HasPrefix(name, whiteoutPrefix) {
		return entryError(h.Name, ErrWhiteout, "name")
	}
	if h.Typeflag == tar.TypeDir {
		return entryError(h.Name, ErrWhiteout, "it is a directory")
	}
	err := unix.Mknodat(dirfd, name, unix.S_IFCHR, 0)
	if err == unix.EEXIST {
		// The layer itself has such an entry, which is then all there is.
		return sysError(h.Name, "hide what is below", u.hideBelow(dirfd, name))
	}
	if err != nil {
		return sysError(h.Name, "make whiteout", err)
	}
	superfluous, err := opaque(dirfd)
	if err == nil && superfluous {
		err = unix.Unlinkat(dirfd, name, 0)
	}
	return sysError(h.Name, "make whiteout", err)
}

// hideBelow makes name opaque if it is a directory.
func (u *unpacker) hideBelow(dirfd int, name string) error {
	there, err := lookAt(dirfd, name)
	if err != nil || !there.dir {
		return err
	}
	fd, err := openat2(dirfd, name, &unix.OpenHow{Flags: dirFlags, Resolve: dirResolve})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return makeOpaque(fd)
}

// rootEntry takes over what the archive says about the root directory.
func (u *unpacker) rootEntry(h *tar.Header) error {
	if h.Typeflag != tar.TypeDir {
		return entryError(h.Name, ErrEntryType, "the root is no directory but of type %q", string(h.Typeflag))
	}
	u.root = true
	if err := u.tree.log.add(u.dirMeta(h, ".", true)); err != nil {
		return sysError(h.Name, "note", err)
	}
	return sysError(h.Name, "set owner", unix.Fchownat(u.tree.root, "", h.Uid, h.Gid, unix.AT_EMPTY_PATH))
}

func (u *unpacker) dirMeta(h *tar.Header, real string, again bool) *dirMeta {
	return &dirMeta{path: real, again: again, mode: uint32(h.Mode) & 0o7777, times: u.times, xattrs: xattrs(h)}
}

// directory makes a directory, or gives an existing one new attributes. What
// would be inherited by its files (set-gid, default ACLs) is left to the end.
func (u *unpacker) directory(h *tar.Header, dirfd int, real, base string) error {
	mode := uint32(h.Mode) & 0o7777
	create := func() error { return unix.Mkdirat(dirfd, base, mode&0o777) }
	err := create()
	merged := false
	if err == unix.EEXIST {
		var there existing
		if there, err = lookAt(dirfd, base); err != nil {
			return err
		}
		merged = there.dir
		if !merged {
			there, err = u.tree.place(dirfd, real, base, create)
		}
		if err == nil && there.whiteout { // hidden below and made anew: nothing of it shows through
			err = u.hideBelow(dirfd, base)
		}
	}
	if err != nil {
		return err
	}
	if !merged {
		u.disk += blockSize
	}
	if err := u.tree.log.add(u.dirMeta(h, join(real, base), merged || u.tree.removed)); err != nil {
		return err
	}
	if h.Uid != 0 || h.Gid != 0 || merged {
		return unix.Fchownat(dirfd, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

func (u *unpacker) symlink(h *tar.Header, dirfd int, real, base string) error {
	if err := checkTarget(h); err != nil {
		return err
	}
	_, err := u.tree.place(dirfd, real, base, func() error { return unix.Symlinkat(h.Linkname, dirfd, base) })
	if err != nil {
		return err
	}
	return u.attributes(h, dirfd, base)
}

// checkTarget refuses a relative symlink that climbs above the root, taken by
// its letters. An absolute one is relative to the root of whoever follows it.
func checkTarget(h *tar.Header) error {
	if h.Linkname == "" {
		return fmt.Errorf("empty target: %w", ErrField)
	}
	if strings.HasPrefix(h.Linkname, "/") {
		return nil
	}
	dir, _ := split(path.Clean(strings.TrimLeft(h.Name, "/")))
	if p := path.Join(dir, h.Linkname); p == ".." || strings.HasPrefix(p, "../") {
		return fmt.Errorf("target %s: %w", quote(h.Linkname), ErrTraversal)
	}
	return nil
}

// hardlink makes a second name for a file of this layer.
func (u *unpacker) hardlink(h *tar.Header, dirfd int, real, base string) error {
	target, err := cleanName(h.Linkname)
	if err != nil {
		return err
	}
	targetDir, name := split(target)
	if strings.HasPrefix(name, whiteoutPrefix) || target == "." {
		return ErrLink
	}
	u.tree.pin = dirfd // looking for the target must not close it
	fromfd, fromReal, err := u.tree.dir(targetDir, false)
	u.tree.pin = -1
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return fmt.Errorf("the layer has no such file: %w", ErrLink)
	}
	if err != nil {
		return err
	}
	there, err := lookAt(fromfd, name)
	switch {
	case err == unix.ENOENT:
		return fmt.Errorf("the layer has no such file: %w", ErrLink)
	case err != nil:
		return err
	case there.dir:
		return fmt.Errorf("it is a directory: %w", ErrLink)
	case there.whiteout:
		return fmt.Errorf("it is a whiteout: %w", ErrLink)
	case fromReal == real && name == base:
		return nil // some archivers write a file given twice as a link to itself
	case strings.HasPrefix(fromReal+"/", join(real, base)+"/"):
		return fmt.Errorf("it is inside what the link replaces: %w", ErrLink)
	}
	if err = unix.Linkat(fromfd, name, dirfd, base, 0); err != unix.EEXIST {
		return err
	}
	// Making room may close the target's directory.
	if fromfd, err = dup(fromfd); err != nil {
		return err
	}
	defer unix.Close(fromfd)
	_, err = u.tree.place(dirfd, real, base, func() error { return unix.Linkat(fromfd, name, dirfd, base, 0) })
	return err
}

func (u *unpacker) device(h *tar.Header, dirfd int, real, base string) error {
	mode := uint32(h.Mode) & 0o7777
	dev := uint64(0)
	switch h.Typeflag {
	case tar.TypeFifo:
		mode |= unix.S_IFIFO
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	}
	if h.Typeflag != tar.TypeFifo {
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return fmt.Errorf("%d:%d: %w", h.Devmajor, h.Devminor, ErrDevice)
		}
		dev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	}
	if h.Typeflag == tar.TypeChar && dev == 0 {
		return fmt.Errorf("character device 0:0 means a whiteout: %w", ErrReserved)
	}
	_, err := u.tree.place(dirfd, real, base, func() error { return unix.Mknodat(dirfd, base, mode, int(dev)) })
	if err != nil {
		return err
	}
	return u.attributes(h, dirfd, base)
}

// entryTimes returns access and modification time. An access time that is not
// recorded is taken to be the modification time.
func entryTimes(h *tar.Header) [2]unix.Timespec {
	m := timespec(h.ModTime)
	if h.AccessTime.After(h.ModTime) {
		return [2]unix.Timespec{timespec(h.AccessTime), m}
	}
	return [2]unix.Timespec{m, m}
}

func timespec(t time.Time) unix.Timespec {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
