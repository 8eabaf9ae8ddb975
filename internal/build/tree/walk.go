package tree

import (
	"context"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is one file, directory, link or other thing that is copied.
type Entry struct {
	Rel  string // below what was selected; "." is that itself
	Path string // below the tree's root
	Stat unix.Stat_t
	Link string // target of a symlink
	// Same is the index of an earlier entry that is the same file, or -1.
	Same int
	// Parent tells that the entry is here only because something below it is.
	Parent bool
}

func (e *Entry) format() uint32 { return e.Stat.Mode & unix.S_IFMT }

// Dir reports whether the entry is a directory.
func (e *Entry) Dir() bool { return e.format() == unix.S_IFDIR }

// walker collects entries below one directory.
type walker struct {
	ctx     context.Context
	d       *Dir
	out     []Entry
	links   map[[2]uint64]int
	include func(rel string, dir bool) (take, descend bool) // nil: everything
	exclude *patterns
}

func (d *Dir) walker(ctx context.Context) *walker {
	return &walker{ctx: ctx, d: d, links: map[[2]uint64]int{}}
}

// state is what filters said about a directory.
type state struct {
	ignore  any
	exclude any
}

// ignoreState returns what the ignorer says about the real path p, asking for
// each directory above it.
func (d *Dir) ignoreState(p string) (ignored bool, st any, err error) {
	if d.o.Ignore == nil || p == "." {
		return false, nil, nil
	}
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		if ignored, st, err = d.o.Ignore.Ignored(p[:i], st); err != nil {
			return false, nil, err
		}
		if ignored && i < len(p) && !d.o.Ignore.Below(p[:i]) {
			return true, st, nil
		}
	}
	return ignored, st, nil
}

// stat looks at name in the open directory dir. A missing file is not an error:
// it vanished while the directory was read.
func (w *walker) stat(dir int, name, p, rel string) (Entry, bool, error) {
	e := Entry{Rel: rel, Path: p, Same: -1}
	if err := unix.Fstatat(dir, name, &e.Stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return e, false, nil
		}
		return e, false, classify("look at", p, err)
	}
	if e.format() == unix.S_IFSOCK {
		return e, false, nil // means nothing to anybody but who listens there
	}
	if e.format() == unix.S_IFLNK {
		var err error
		if e.Link, err = readlinkat(dir, name); err != nil {
			return e, false, classify("read link", p, err)
		}
	}
	return e, true, nil
}

// add takes an entry into the list.
func (w *walker) add(e Entry) int {
	if e.format() == unix.S_IFREG && e.Stat.Nlink > 1 {
		key := [2]uint64{uint64(e.Stat.Dev), e.Stat.Ino}
		if i, ok := w.links[key]; ok {
			e.Same = i
		} else {
			w.links[key] = len(w.out)
		}
	}
	w.out = append(w.out, e)
	return len(w.out) - 1
}

// children walks the directory that fd refers to, which it closes. p is its
// path, below is its path relative to what was selected.
func (w *walker) children(fd int, p, below string, st state) error {
	list, err := names(fd)
	if err != nil {
		unix.Close(fd)
		return classify("list directory", p, err)
	}
	defer unix.Close(fd)
	if err := w.ctx.Err(); err != nil {
		return err
	}
	for _, name := range list {
		if err := w.child(fd, name, path.Join(p, name), path.Join(below, name), st); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) child(dir int, name, p, rel string, st state) error {
	ignored, next, err := w.filter(p, rel, st)
	if err != nil {
		return err
	}
	if ignored && !w.below(p) {
		return nil
	}
	e, ok, err := w.stat(dir, name, p, rel)
	if err != nil || !ok {
		return err
	}
	take, descend := !ignored, true
	if w.include != nil {
		var t bool
		t, descend = w.include(rel, e.Dir())
		take = take && t
	}
	if !e.Dir() {
		if take {
			w.add(e)
		}
		return nil
	}
	if !take && !descend {
		return nil
	}
	e.Parent = !take
	at := w.add(e)
	fd, err := openat2(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, beneath)
	if err != nil {
		if err == unix.ENOENT || !take && err == unix.EACCES {
			w.out = w.out[:at]
			return nil
		}
		return classify("open directory", p, err)
	}
	if err := w.children(fd, p, rel, next); err != nil {
		return err
	}
	if !take && len(w.out) == at+1 {
		w.out = w.out[:at] // nothing below it was wanted
	}
	return nil
}

// filter asks the ignorer and the exclusions of the copy.
func (w *walker) filter(p, rel string, st state) (ignored bool, next state, err error) {
	if w.d.o.Ignore != nil {
		if ignored, next.ignore, err = w.d.o.Ignore.Ignored(p, st.ignore); err != nil {
			return false, next, err
		}
	}
	if w.exclude != nil {
		var out bool
		if out, next.exclude, err = w.exclude.Ignored(rel, st.exclude); err != nil {
			return false, next, err
		}
		ignored = ignored || out
	}
	return ignored, next, nil
}

// below reports whether something below an ignored path may be there.
func (w *walker) below(p string) bool {
	if w.d.o.Ignore != nil && w.d.o.Ignore.Below(p) {
		return true
	}
	return w.exclude != nil && w.exclude.negated
}

// within reports whether p is dir or below it.
func within(dir, p string) bool {
	return dir == "." || p == dir || strings.HasPrefix(p, dir+"/")
}
