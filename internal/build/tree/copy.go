package tree

import (
	"context"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// CopyOptions says how copies differ from what is copied.
type CopyOptions struct {
	// Owner is who owns the copies; nil keeps the owners.
	Owner *Owner
	Mode  *Mode // nil keeps the modes
	// Unpack unpacks archives instead of copying them.
	Unpack bool
}

// Owner is a user and a group.
type Owner struct{ UID, GID uint32 }

// Copy puts what was selected from d at dest, as COPY does: a directory's content
// goes into dest; a file becomes dest, or goes into it when that is a directory
// or ends in a slash. Missing directories above are made.
func (r *Root) Copy(ctx context.Context, d *Dir, matches []Match, dest string, o CopyOptions) error {
	c := &copier{ctx: ctx, r: r, d: d, o: o, links: map[[2]uint64]string{}}
	if len(matches) > 1 && !strings.HasSuffix(dest, "/") {
		for i := range matches {
			if !matches[i].Dir() {
				dest += "/"
				break
			}
		}
	}
	for i := range matches {
		if err := c.match(&matches[i], dest); err != nil {
			return err
		}
	}
	return nil
}

type copier struct {
	ctx   context.Context
	r     *Root
	d     *Dir
	o     CopyOptions
	links map[[2]uint64]string // file by device and inode -> its first copy
}

// implied is what directories get that are made on the way, the destination too: of
// a directory only the content is copied. As docker's builder has it, a mode in
// numbers is theirs, too.
func (c *copier) implied() Attributes {
	a := Attributes{Mode: 0o755}
	if c.o.Mode != nil && c.o.Mode.octal >= 0 {
		a.Mode = uint32(c.o.Mode.octal)
	}
	if c.o.Owner != nil {
		a.UID, a.GID = c.o.Owner.UID, c.o.Owner.GID
	}
	return a
}

func (c *copier) match(m *Match, dest string) error {
	if len(m.Entries) == 0 {
		return nil
	}
	top := &m.Entries[0]
	if top.Dir() {
		return c.directory(m, dest)
	}
	if c.o.Unpack && top.format() == unix.S_IFREG {
		if done, err := c.unpack(top, dest); done || err != nil {
			return err
		}
	}
	target := dest
	kind, err := c.r.kind(dest)
	if err != nil {
		return classify("find", dest, err)
	}
	switch {
	case kind == unix.S_IFDIR || strings.HasSuffix(dest, "/"):
		if err := c.r.MakeDirs(dest, c.implied()); err != nil {
			return err
		}
		target = path.Join(dest, m.Name)
	default:
		// A file that is copied onto a link replaces what the link is for, or becomes
		// that, with the directories that it needs.
		if target, err = realPath(c.r.fd, dest, true, nil); err != nil {
			return classify("find", dest, err)
		}
		if err := c.r.MakeDirs(path.Dir(target), c.implied()); err != nil {
			return err
		}
	}
	return c.entry(top, target)
}

// directory copies the content of a directory into dest.
func (c *copier) directory(m *Match, dest string) error {
	if err := c.r.MakeDirs(dest, c.implied()); err != nil {
		return err
	}
	// Times of directories last: what is put into them changes those.
	var late []*Entry
	var files plain
	for i := 1; i < len(m.Entries); i++ {
		e := &m.Entries[i]
		p := path.Join(dest, e.Rel)
		if e.format() == unix.S_IFREG && e.Stat.Nlink == 1 {
			files.add(e, path.Dir(p))
			continue
		}
		if err := c.entry(e, p); err != nil {
			return err
		}
		if e.Dir() {
			late = append(late, e)
		}
	}
	if err := files.copy(c); err != nil {
		return err
	}
	for i := len(late) - 1; i >= 0; i-- {
		if err := c.dirTimes(late[i], path.Join(dest, late[i].Rel)); err != nil {
			return err
		}
	}
	return nil
}

func (c *copier) dirTimes(e *Entry, p string) error {
	parent, err := c.r.dir(path.Dir(path.Clean("/" + p)))
	if err != nil {
		return classify("set times", p, err)
	}
	defer unix.Close(parent)
	t := [2]unix.Timespec{e.Stat.Atim, e.Stat.Mtim}
	if base := path.Base(path.Clean("/" + p)); base != "/" {
		err = unix.UtimesNanoAt(parent, base, t[:], unix.AT_SYMLINK_NOFOLLOW)
	}
	return classify("set times", p, err)
}

// attributes returns what the copy of an entry gets.
func (c *copier) attributes(e *Entry) (Attributes, error) {
	a := Attributes{Mode: e.Stat.Mode & 0o7777, Times: &[2]unix.Timespec{e.Stat.Atim, e.Stat.Mtim}}
	a.UID, a.GID = c.d.owner(e)
	if c.o.Owner != nil {
		a.UID, a.GID = c.o.Owner.UID, c.o.Owner.GID
	}
	if c.o.Mode != nil && e.format() != unix.S_IFLNK {
		a.Mode = c.o.Mode.Apply(a.Mode, e.Dir())
	}
	if !e.Dir() {
		return a, nil
	}
	fd, err := c.d.openEntry(e)
	if err != nil {
		return a, err
	}
	defer unix.Close(fd)
	a.Xattrs, err = readXattrs(fd)
	return a, classify("read attributes", e.Path, err)
}

// entry makes the copy of one entry at p.
func (c *copier) entry(e *Entry, p string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	a, err := c.attributes(e)
	if err != nil {
		return err
	}
	switch e.format() {
	case unix.S_IFDIR:
		return c.r.directory(p, a)
	case unix.S_IFREG:
		key := [2]uint64{uint64(e.Stat.Dev), e.Stat.Ino}
		if first, ok := c.links[key]; ok && e.Stat.Nlink > 1 {
			return classify("link", p, c.r.link(first, p))
		}
		if e.Stat.Nlink > 1 {
			c.links[key] = p
		}
		parent, _, err := c.r.parent(p)
		if err != nil {
			return classify("copy", e.Path, err)
		}
		defer unix.Close(parent)
		return c.file(c.ctx, e, parent, p, a)
	case unix.S_IFLNK:
		return classify("make link", p, c.r.symlink(e.Link, p, a))
	}
	return classify("make device", p, c.r.device(p, e.Stat.Mode&unix.S_IFMT, uint64(e.Stat.Rdev), a))
}

// directory makes p a directory with the attributes. A link to a directory stays,
// and what follows goes where it leads.
func (r *Root) directory(p string, a Attributes) error {
	p = rel(p)
	if p == "." {
		return nil
	}
	parent, err := r.dir(path.Dir(p))
	if err != nil {
		return classify("make directory", p, err)
	}
	defer unix.Close(parent)
	base := path.Base(p)
	err = unix.Mkdirat(parent, base, 0o700)
	if err == unix.EEXIST {
		var st unix.Stat_t
		if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return classify("make directory", p, err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			err = nil
		case unix.S_IFLNK:
			if kind, kerr := r.kind(p); kerr == nil && kind == unix.S_IFDIR {
				return nil
			}
		}
	}
	if err == unix.EEXIST {
		return fault.New(fault.Invalid, "make directory", quote("/"+p), "a file is in its way")
	}
	if err == nil {
		err = r.set(parent, base, unix.S_IFDIR, a)
	}
	return classify("make directory", p, err)
}

// plain is regular files with one name, which are copied side by side: those of
// one directory one after another, since the kernel lets only one process at a
// time make files there.
type plain struct {
	dirs []*batch
}

// batch is files that go into one directory.
type batch struct {
	dir   string
	files []*Entry
}

// add adds a file that goes into dir.
func (l *plain) add(e *Entry, dir string) {
	if n := len(l.dirs); n == 0 || l.dirs[n-1].dir != dir {
		l.dirs = append(l.dirs, &batch{dir: dir})
	}
	last := l.dirs[len(l.dirs)-1]
	last.files = append(last.files, e)
}

// copy copies the files into their directories, which are there.
func (l *plain) copy(c *copier) error {
	groups, err := l.groups(c.r)
	if err != nil {
		return err
	}
	return parallel(c.ctx, len(groups), 1, func(ctx context.Context, i int) error {
		for _, b := range groups[i] {
			if err := b.copy(ctx, c, len(groups) == 1); err != nil {
				return err
			}
		}
		return nil
	})
}

// groups puts together what goes into the same directory: a link in the root may
// make two of them one, and then the last file of a name stays.
func (l *plain) groups(r *Root) ([][]*batch, error) {
	var groups [][]*batch
	index := map[[2]uint64]int{}
	for _, b := range l.dirs {
		fd, err := r.dir(b.dir)
		if err != nil {
			return nil, classify("open directory", b.dir, err)
		}
		var st unix.Stat_t
		err = unix.Fstat(fd, &st)
		unix.Close(fd)
		if err != nil {
			return nil, classify("look at", b.dir, err)
		}
		id := [2]uint64{uint64(st.Dev), st.Ino}
		i, ok := index[id]
		if !ok {
			i = len(groups)
			index[id] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], b)
	}
	return groups, nil
}

// copy copies the files one after another, or side by side when there is nothing
// else to do meanwhile.
func (b *batch) copy(ctx context.Context, c *copier, aside bool) error {
	parent, err := c.r.dir(b.dir)
	if err != nil {
		return classify("open directory", b.dir, err)
	}
	defer unix.Close(parent)
	one := func(ctx context.Context, i int) error {
		e := b.files[i]
		a, err := c.attributes(e)
		if err != nil {
			return err
		}
		return c.file(ctx, e, parent, path.Join(b.dir, path.Base(e.Rel)), a)
	}
	if aside {
		return parallel(ctx, len(b.files), 16, one)
	}
	for i := range b.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := one(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// file copies a regular file to p, which is in the open directory parent.
func (c *copier) file(ctx context.Context, e *Entry, parent int, p string, a Attributes) error {
	selected := e.Stat
	src, err := c.d.openEntry(e)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	if a.Xattrs, err = readXattrs(src); err != nil {
		return classify("read attributes", e.Path, err)
	}
	err = c.r.fileIn(parent, p, a, func(dst int) error {
		buf := buffers.Get().(*[256 << 10]byte)
		defer buffers.Put(buf)
		if err := copyFile(ctx, dst, src, &selected, buf[:]); err != nil {
			return err
		}
		return c.unchanged(src, e.Path, &selected)
	})
	return classify("copy", e.Path, err)
}

// unchanged makes sure that what was copied is what the digest was made of, if
// somebody else may write to the files. Sums vouch for the content of a version.
func (c *copier) unchanged(src int, p string, selected *unix.Stat_t) error {
	if c.d.o.Sums == nil {
		return nil
	}
	var after unix.Stat_t
	if err := unix.Fstat(src, &after); err != nil {
		return err
	}
	if !sameVersion(selected, &after) {
		return changed(p)
	}
	return nil
}

// link makes p another name of the file first.
func (r *Root) link(first, p string) error {
	parent, base, err := r.place(p)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	from, err := r.dir(path.Dir(rel(first)))
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return unix.Linkat(from, path.Base(first), parent, base, 0)
}

// hardLink is link with the attributes that an archive has for the new name, and
// thereby for the file.
func (r *Root) hardLink(first, p string, a Attributes) error {
	if err := r.link(first, p); err != nil {
		return err
	}
	parent, err := r.dir(path.Dir(rel(p)))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	var st unix.Stat_t
	if err := unix.Fstatat(parent, path.Base(rel(p)), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	return r.set(parent, path.Base(rel(p)), unix.S_IFREG, a)
}

func (r *Root) symlink(target, p string, a Attributes) error {
	parent, base, err := r.place(p)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Symlinkat(target, parent, base); err != nil {
		return err
	}
	return r.set(parent, base, unix.S_IFLNK, a)
}

func (r *Root) device(p string, format uint32, rdev uint64, a Attributes) error {
	if format == unix.S_IFCHR && rdev == 0 {
		return fault.New(fault.Invalid, "make device", quote(p), "a character device 0:0 means a deletion in layers")
	}
	parent, base, err := r.place(p)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Mknodat(parent, base, format|0o600, int(rdev)); err != nil {
		return err
	}
	return r.set(parent, base, format, a)
}
