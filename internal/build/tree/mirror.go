package tree

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
	"berth/internal/wire/manifest"
)

// Mirror is a directory of ours that follows one somewhere else: what is the same
// there stays, so only contents that are new have to come. Nobody else changes it.
type Mirror struct {
	root *Root
	dir  *Dir
	sums Sums
	list []manifest.Entry
	have map[string]*mirrored
	data map[[32]byte]*mirrored // files by content
}

// mirrored is something that was there before.
type mirrored struct {
	*Entry
	sum Sum
}

// OpenMirror opens the directory at path. sums remembers digests of its files.
func OpenMirror(name string, sums Sums) (*Mirror, error) {
	d, err := Open(name, Options{Sums: sums})
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		d.Close()
		return nil, classify("open directory", name, err)
	}
	return &Mirror{root: NewRoot(fd, nil), dir: d, sums: sums}, nil
}

// Close closes the directory.
func (m *Mirror) Close() {
	m.dir.Close()
	m.root.Close()
}

// errNotHere says that a content is not where it was looked for.
var errNotHere = errors.New("not here")

// Follow makes the directory what list says, which has passed its Check, as far as
// contents are at hand: in the directory itself, or where find has them, whose
// error only means that it has not. It returns the positions of the files whose
// contents must be Put. Finish is to be called when all are.
func (m *Mirror) Follow(ctx context.Context, list []manifest.Entry, find func(sum [32]byte) (*os.File, error)) (missing []int, err error) {
	m.list = list
	old, err := m.scan(ctx)
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]manifest.Kind, len(list))
	for i := range list {
		wanted[list[i].Path] = list[i].Kind
	}
	stays := func(e *mirrored) bool {
		kind, ok := wanted[e.Path]
		return ok && formatOf(kind) == e.format()
	}
	// What is in the way goes now, with what is below it; the rest when its
	// contents are not needed any more.
	for i := len(old) - 1; i > 0; i-- {
		if _, ok := wanted[old[i].Path]; ok && !stays(old[i]) || !ok && m.inTheWay(old[i].Path, wanted) {
			if err := m.remove(old[i]); err != nil {
				return nil, err
			}
		}
	}
	for i := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		switch err := m.follow(ctx, &list[i], find); {
		case err == errNotHere:
			missing = append(missing, i)
		case err != nil:
			return nil, classify("receive", list[i].Path, err)
		}
	}
	for i := len(old) - 1; i > 0; i-- {
		if !stays(old[i]) && m.have[old[i].Path] == old[i] {
			if err := m.remove(old[i]); err != nil {
				return nil, err
			}
		}
	}
	m.data = nil
	return missing, nil
}

// scan finds out what is there. The first entry is the directory itself.
func (m *Mirror) scan(ctx context.Context) ([]*mirrored, error) {
	matches, err := m.dir.Select(ctx, Selection{Src: ".", Literal: true})
	if err != nil {
		return nil, err
	}
	sums, err := m.dir.sums(ctx, matches)
	if err != nil {
		return nil, err
	}
	entries := matches[0].Entries
	all, old := make([]mirrored, len(entries)), make([]*mirrored, len(entries))
	m.have, m.data = make(map[string]*mirrored, len(entries)), map[[32]byte]*mirrored{}
	for i := range entries {
		e := &all[i]
		*e = mirrored{&entries[i], sums[i]}
		old[i], m.have[e.Path] = e, e
		if e.format() == unix.S_IFREG {
			m.data[e.sum.Data] = e
		}
	}
	return old, nil
}

// inTheWay reports whether p is below something that is no directory any more.
func (m *Mirror) inTheWay(p string, wanted map[string]manifest.Kind) bool {
	for p = path.Dir(p); p != "."; p = path.Dir(p) {
		if kind, ok := wanted[p]; ok {
			return kind != manifest.Dir
		}
	}
	return false
}

func (m *Mirror) remove(e *mirrored) error {
	delete(m.have, e.Path)
	err := RemoveBeneath(m.root.fd, e.Path, e.Dir())
	if err == unix.ENOENT {
		err = nil
	}
	return classify("remove", e.Path, err)
}

func formatOf(k manifest.Kind) uint32 {
	switch k {
	case manifest.Dir:
		return unix.S_IFDIR
	case manifest.File, manifest.Link:
		return unix.S_IFREG
	case manifest.Symlink:
		return unix.S_IFLNK
	case manifest.Fifo:
		return unix.S_IFIFO
	case manifest.Char:
		return unix.S_IFCHR
	case manifest.Block:
		return unix.S_IFBLK
	}
	return 0
}

// follow makes one entry what the list says; directories' attributes and hard
// links are left to Finish.
func (m *Mirror) follow(ctx context.Context, e *manifest.Entry, find func([32]byte) (*os.File, error)) error {
	have := m.have[e.Path]
	switch e.Kind {
	case manifest.Dir:
		if have != nil {
			return nil
		}
		return m.root.directory(e.Path, Attributes{Mode: 0o700})
	case manifest.File:
		if have == nil || have.Same >= 0 || have.sum.Data != e.Digest || have.Stat.Size != e.Size || have.sum.Xattrs != xattrSum(e) {
			return m.copy(ctx, e, find)
		}
		if sameAttributes(have, e) {
			return nil
		}
		if err := m.set(e); err != nil {
			return err
		}
		return m.remember(e)
	case manifest.Symlink:
		if have != nil && have.Link == e.Target && have.Stat.Mtim.Nano() == e.Mtime {
			return nil
		}
		return m.root.symlink(e.Target, e.Path, attributesOf(e))
	case manifest.Fifo, manifest.Char, manifest.Block:
		rdev := unix.Mkdev(e.Major, e.Minor)
		if e.Kind == manifest.Fifo {
			rdev = 0
		}
		if have != nil && have.Stat.Rdev == rdev && sameAttributes(have, e) {
			return nil
		}
		return m.root.device(e.Path, formatOf(e.Kind), rdev, attributesOf(e))
	}
	return nil
}

func sameAttributes(have *mirrored, e *manifest.Entry) bool {
	return have.Stat.Mode&0o7777 == e.Mode && have.Stat.Mtim.Nano() == e.Mtime
}

func attributesOf(e *manifest.Entry) Attributes {
	t := unix.NsecToTimespec(e.Mtime)
	a := Attributes{Mode: e.Mode, Times: &[2]unix.Timespec{t, t}}
	for _, x := range e.Xattrs {
		if copied(x.Name) {
			if a.Xattrs == nil {
				a.Xattrs = map[string][]byte{}
			}
			a.Xattrs[x.Name] = []byte(x.Value)
		}
	}
	return a
}

// xattrSum identifies attributes as Sum does.
func xattrSum(e *manifest.Entry) (sum [32]byte) {
	if a := attributesOf(e); len(a.Xattrs) > 0 {
		sum = hashXattrs(a.Xattrs)
	}
	return sum
}

// set gives the file or directory of an entry its attributes.
func (m *Mirror) set(e *manifest.Entry) error {
	parent, base, err := parentBeneath(m.root.fd, e.Path)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return m.root.set(parent, base, formatOf(e.Kind), attributesOf(e))
}

// remember notes that a file is what its entry says.
func (m *Mirror) remember(e *manifest.Entry) error {
	st, err := StatBeneath(m.root.fd, e.Path)
	if err == nil {
		m.sums.Put(e.Path, &st, Sum{Data: e.Digest, Xattrs: xattrSum(e)})
	}
	return err
}

// copy makes a file from one that has its content already.
func (m *Mirror) copy(ctx context.Context, e *manifest.Entry, find func([32]byte) (*os.File, error)) error {
	if e.Size == 0 {
		return m.Put(e, func(io.Writer) error { return nil })
	}
	src, err := m.source(e.Digest, find)
	if err != nil {
		return errNotHere
	}
	defer src.Close()
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	err = m.Put(e, func(w io.Writer) error {
		_, err := copyBuffer(ctx, w, io.LimitReader(src, e.Size+1), buf[:])
		return err
	})
	if fault.Is(err, fault.Invalid) { // it has become something else meanwhile
		return errNotHere
	}
	return err
}

// source opens a file that had this content.
func (m *Mirror) source(sum [32]byte, find func([32]byte) (*os.File, error)) (*os.File, error) {
	if have := m.data[sum]; have != nil {
		if fd, err := m.dir.openEntry(have.Entry); err == nil {
			return os.NewFile(uintptr(fd), have.Path), nil
		}
	}
	if find == nil {
		return nil, errNotHere
	}
	return find(sum)
}

// Put makes the file of an entry. write provides the content, and may change the
// entry to the one that the content turns out to be of. Another content is
// fault.Invalid.
func (m *Mirror) Put(e *manifest.Entry, write func(io.Writer) error) error {
	err := m.root.file(e.Path, Attributes{Mode: 0o600}, func(fd int) error {
		h := sha256.New()
		if err := write(io.MultiWriter(fdFile(fd), h)); err != nil {
			return err
		}
		if [32]byte(h.Sum(nil)) != e.Digest {
			return fault.New(fault.Invalid, "receive file", quote(e.Path), "its content is not the one that is listed")
		}
		return nil
	})
	if err == nil {
		err = m.set(e)
	}
	if err == nil {
		err = m.remember(e)
	}
	return classify("receive file", e.Path, err)
}

// Finish makes hard links, and gives directories their attributes, which changed
// while they were filled.
func (m *Mirror) Finish() error {
	if err := m.link(); err != nil {
		return err
	}
	for i := len(m.list) - 1; i >= 0; i-- {
		if e := &m.list[i]; e.Kind == manifest.Dir {
			if err := m.finishDir(e); err != nil {
				return classify("set attributes", e.Path, err)
			}
		}
	}
	return nil
}

// link makes the hard links that are missing. The file's time of change is another
// with each.
func (m *Mirror) link() error {
	linked := map[string]bool{}
	for i := range m.list {
		e := &m.list[i]
		if e.Kind != manifest.Link {
			continue
		}
		file, err := StatBeneath(m.root.fd, e.Target)
		if err != nil {
			return classify("look at", e.Target, err)
		}
		if name, err := StatBeneath(m.root.fd, e.Path); err == nil && name.Ino == file.Ino {
			continue
		}
		if err := m.root.link(e.Target, e.Path); err != nil {
			return classify("link", e.Path, err)
		}
		linked[e.Target] = true
	}
	for i := range m.list {
		if e := &m.list[i]; linked[e.Path] {
			if err := m.remember(e); err != nil {
				return classify("look at", e.Path, err)
			}
		}
	}
	return nil
}

// finishDir sets what is not as it should be.
func (m *Mirror) finishDir(e *manifest.Entry) error {
	st, err := StatBeneath(m.root.fd, e.Path)
	if err != nil {
		return err
	}
	have := m.have[e.Path]
	if have != nil && have.sum.Xattrs == xattrSum(e) && st.Mode&0o7777 == e.Mode && st.Mtim.Nano() == e.Mtime {
		return nil
	}
	if have != nil && have.sum.Xattrs != xattrSum(e) {
		if err := m.clear(e.Path); err != nil {
			return err
		}
	}
	return m.set(e)
}

// clear takes a directory's attributes away.
func (m *Mirror) clear(p string) error {
	fd, err := openat2(m.root.fd, p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, beneath)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	list, err := readXattrs(fd)
	for name := range list {
		err = errors.Join(err, unix.Fremovexattr(fd, name))
	}
	return err
}
