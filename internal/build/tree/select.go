package tree

import (
	"context"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Selection says what of a tree is copied.
type Selection struct {
	Src      string   // path; wildcards are * ? [ as in filepath.Match
	Literal  bool     // Src and Pattern have no wildcards, and links in them are followed
	Parents  bool     // with the directories from Src to what matches Pattern
	Pattern  string   // with Parents
	Exclude  []string // patterns as in .dockerignore, relative to what is copied
	Required bool     // with Parents: something must match
}

// Match is one thing that Src names, and what is below it. When it is a directory,
// the first entry only stands for where the others begin: its own attributes mean
// nothing, and are the same for all.
type Match struct {
	Name    string // last element of the path by which it was named
	Entries []Entry
}

// Dir reports whether a directory was named, whose content is copied.
func (m *Match) Dir() bool { return len(m.Entries) > 0 && m.Entries[0].Dir() }

// Select lists what a selection names, in an order that depends on names alone.
// A path without wildcards that does not exist is fault.NotFound.
func (d *Dir) Select(ctx context.Context, s Selection) ([]Match, error) {
	exclude, err := newPatterns(s.Exclude)
	if err != nil {
		return nil, fault.New(fault.Invalid, "read pattern", strings.Join(s.Exclude, " "), "%w", err)
	}
	var out []Match
	err = d.do(func() error {
		paths := []string{rel(s.Src)}
		if !s.Literal && hasWildcards(s.Src) {
			if paths, err = d.glob(rel(s.Src)); err != nil {
				return classify("match", s.Src, err)
			}
		}
		for _, p := range paths {
			m, ok, err := d.match(ctx, p, s, exclude)
			if err != nil {
				return err
			}
			if ok {
				out = append(out, m)
			}
		}
		return nil
	})
	return out, err
}

// match collects what is at p.
func (d *Dir) match(ctx context.Context, p string, s Selection, exclude *patterns) (Match, bool, error) {
	m := Match{Name: path.Base(p)}
	real, err := d.real(p)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return m, false, d.missing(p)
	}
	if err != nil {
		return m, false, classify("find", p, err)
	}
	ignored, ignoreSt, err := d.ignoreState(real)
	if err != nil {
		return m, false, err
	}
	w := d.walker(ctx)
	w.exclude = exclude
	if out, err := d.narrow(w, s, m.Name); err != nil || out {
		return m, false, err
	}
	fd, err := openat2(d.root, real, unix.O_PATH|unix.O_NOFOLLOW, 0, beneath)
	if err != nil {
		return m, false, classify("open", p, err)
	}
	defer unix.Close(fd)
	e := Entry{Rel: ".", Path: real, Same: -1}
	if err := unix.Fstat(fd, &e.Stat); err != nil {
		return m, false, classify("look at", p, err)
	}
	if e.format() == unix.S_IFSOCK {
		if s.Literal || !hasWildcards(s.Src) {
			err = fault.New(fault.Invalid, "copy", quote("/"+strings.TrimPrefix(p, "./")), "it is a socket, and means nothing without who listens there")
		}
		return m, false, err
	}
	if e.Dir() {
		e.Stat.Mode, e.Stat.Uid, e.Stat.Gid = unix.S_IFDIR|0o755, 0, 0
	}
	if ignored && (!e.Dir() || !d.o.Ignore.Below(real)) {
		return m, false, d.missing(p)
	}
	w.add(e)
	if e.Dir() {
		dir, err := openat2(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, beneath)
		if err != nil {
			return m, false, classify("open directory", p, err)
		}
		if err := w.children(dir, real, ".", state{ignore: ignoreSt}); err != nil {
			return m, false, err
		}
		if ignored && len(w.out) == 1 {
			return m, false, d.missing(p)
		}
	}
	if s.Parents && s.Required && !slices.ContainsFunc(w.out[1:], func(e Entry) bool { return !e.Parent }) {
		return m, false, d.missing(path.Join(p, s.Pattern))
	}
	m.Entries = w.out
	return m, true, nil
}

// missing is the error for a path that is not there, or not for builds.
func (d *Dir) missing(p string) error {
	err := fault.New(fault.NotFound, "find", quote("/"+strings.TrimPrefix(p, "./")), "not found")
	if d.o.Flat {
		return err.WithHint("paths are relative to the build context; see whether .dockerignore leaves it out")
	}
	return err.WithHint("paths begin at the root of the stage or image that is copied from")
}

// narrow has a walker take only what a selection wants below what is named. It reports
// whether that itself is left out.
func (d *Dir) narrow(w *walker, s Selection, name string) (out bool, err error) {
	switch {
	case s.Parents && s.Literal:
		w.include, err = d.trailFilter(rel(s.Pattern))
	case s.Parents:
		w.include, err = parentFilter(rel(s.Pattern))
	case w.exclude != nil && name != ".":
		out, _, err = w.exclude.Ignored(name, nil)
	}
	return out, err
}

// parentFilter takes what matches a pattern, with everything below it, and goes
// down into directories that can lead there. "**" matches any number of them.
func parentFilter(pattern string) (func(rel string, dir bool) (take, descend bool), error) {
	if pattern == "." {
		return func(string, bool) (bool, bool) { return true, true }, nil
	}
	want := strings.Split(pattern, "/")
	if strings.HasPrefix(pattern, "!") {
		pattern = "\\" + pattern // it takes nothing back here
	}
	m, err := patternmatcher.New([]string{pattern})
	if err != nil {
		return nil, fault.New(fault.Invalid, "read pattern", pattern, "%w", err)
	}
	return func(p string, dir bool) (bool, bool) {
		if ok, err := m.MatchesOrParentMatches(p); err == nil && ok {
			return true, true
		}
		return false, dir && leadsTo(want, strings.Split(p, "/"))
	}, nil
}

// trailFilter takes what is at a path, with everything below it, and the links that
// lead there: so the path means below a copy what it means here.
func (d *Dir) trailFilter(p string) (func(rel string, dir bool) (take, descend bool), error) {
	trail, err := d.trail(p)
	if err != nil {
		return nil, classify("find", p, err)
	}
	return func(p string, _ bool) (take, descend bool) {
		for _, t := range trail {
			take = take || within(t, p)
			descend = descend || within(p, t)
		}
		return take, take || descend
	}, nil
}

// trail returns the links that lead to p, and last the real path.
func (d *Dir) trail(p string) ([]string, error) {
	var links []string
	real, err := realPath(d.root, p, true, func(link string) { links = append(links, link) })
	return append(links, real), err
}

// leadsTo reports whether something below have can match.
func leadsTo(want, have []string) bool {
	for i, h := range have {
		if i >= len(want) {
			return false
		}
		if strings.Contains(want[i], "**") {
			return true
		}
		if ok, err := path.Match(want[i], h); err != nil || !ok {
			return false
		}
	}
	return len(want) > len(have)
}

func hasWildcards(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '*', '?', '[', '\\':
			return true
		}
	}
	return false
}

// glob expands wildcards element by element. Links among directories are
// followed inside the tree; what the context leaves out is not matched.
func (d *Dir) glob(pattern string) ([]string, error) {
	at := []string{"."}
	for part := range strings.SplitSeq(pattern, "/") {
		if _, err := filepath.Match(part, ""); err != nil {
			return nil, fault.New(fault.Invalid, "match", quote(pattern), "%w", err).WithHint("close the bracket, or put a backslash before it")
		}
		var next []string
		for _, dir := range at {
			if !hasWildcards(part) {
				next = append(next, path.Join(dir, part))
				continue
			}
			list, err := d.matching(dir, part)
			if err != nil {
				return nil, err
			}
			next = append(next, list...)
		}
		at = next
	}
	var out []string
	for _, p := range at {
		real, err := d.real(p)
		if err != nil {
			continue // an element without wildcards below one with them
		}
		ignored, _, err := d.ignoreState(real)
		if err != nil {
			return nil, err
		}
		if !ignored || d.o.Ignore.Below(real) {
			out = append(out, p)
		}
	}
	return out, nil
}

func (d *Dir) matching(dir, part string) ([]string, error) {
	fd, err := d.open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := names(fd)
	unix.Close(fd)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range list {
		if ok, _ := filepath.Match(part, name); ok {
			out = append(out, path.Join(dir, name))
		}
	}
	return out, nil
}
