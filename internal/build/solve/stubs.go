package solve

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"berth/internal/build/graph"
	"berth/internal/build/tree"
	"berth/internal/fault"
)

// stubs are the places in an upper directory that were made for mounts, and the
// directories that had to be copied up for that. A step's layer must not show
// them: they are made before it runs and removed afterwards.
//
// Removing works in the upper directory alone, on descriptors, and follows no
// link: whatever the step put in the way, nothing else is removed
// (CVE-2024-23652).
type stubs struct {
	upper string
	list  []stub // parents first
}

type stub struct {
	path string // below the upper directory
	made bool   // for a mount; otherwise copied up
	st   unix.Stat_t
}

// plant makes what the mounts of a step need, and its working directory, which
// stays.
func (s *Solver) plant(p *scratchpad, op *graph.Exec, mounts []Mount) (*stubs, error) {
	root, err := p.mount(nil)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if op.Dir != "" {
		if err := root.MakeDirs(op.Dir, tree.Attributes{Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	before, err := upperEntries(p.upper)
	if err != nil {
		return nil, err
	}
	for _, place := range Places {
		if err := root.Plant(place, strings.HasSuffix(place, "/")); err != nil {
			return nil, fault.Wrap("make mount point", place, err)
		}
	}
	for _, m := range mounts {
		dir, err := m.isDir()
		if err == nil && !below(m.Target) {
			err = root.Plant(m.Target, dir)
		}
		if err != nil {
			return nil, fault.Wrap("make mount point", m.Target, err)
		}
	}
	after, err := upperEntries(p.upper)
	if err != nil {
		return nil, err
	}
	out := &stubs{upper: p.upper}
	for _, e := range after {
		if !slices.ContainsFunc(before, func(b stub) bool { return b.path == e.path }) {
			out.list = append(out.list, e)
		}
	}
	return out, p.markCopied(out)
}

// below reports whether a path is inside a place that is mounted over anyway.
func below(p string) bool {
	for _, place := range []string{"/proc/", "/sys/", "/dev/"} {
		if strings.HasPrefix(p, place) {
			return true
		}
	}
	return false
}

// isDir reports whether the mount needs a directory to be mounted on.
func (m *Mount) isDir() (bool, error) {
	switch m.Kind {
	case DataMount:
		return false, nil
	case BindMount:
		var st unix.Stat_t
		if err := unix.Lstat(m.Path, &st); err != nil {
			return false, err
		}
		return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
	}
	return true, nil
}

// upperEntries lists an upper directory, which is all but empty before a step.
func upperEntries(dir string) ([]stub, error) {
	var out []stub
	var walk func(p string) error
	walk = func(p string) error {
		fd, err := unix.Open(filepath.Join(dir, p), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		names, err := tree.Names(fd)
		if err != nil {
			return err
		}
		for _, name := range names {
			e := stub{path: path.Join(p, name)}
			if err := unix.Fstatat(fd, name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
			out = append(out, e)
			if e.st.Mode&unix.S_IFMT == unix.S_IFDIR {
				if err := walk(e.path); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return out, walk("")
}

// markCopied tells what was copied up from what is new: the trees below have it.
func (p *scratchpad) markCopied(s *stubs) error {
	for i := range s.list {
		_, _, err := tree.Contributing(p.lower, s.list[i].path)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		s.list[i].made = err != nil
	}
	return nil
}

// remove takes away what is as it was made, and sets the times of directories
// back to what the step left.
func (s *stubs) remove() error {
	root, err := unix.Open(s.upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	times := map[string][2]unix.Timespec{}
	for _, e := range s.list { // before anything is removed
		if dir := path.Dir(e.path); dir != "." {
			if st, err := tree.StatBeneath(root, dir); err == nil {
				times[dir] = [2]unix.Timespec{st.Atim, st.Mtim}
			}
		}
	}
	for i := len(s.list) - 1; i >= 0; i-- {
		e := &s.list[i]
		st, err := tree.StatBeneath(root, e.path)
		if err != nil || st.Ino != e.st.Ino || st.Mode != e.st.Mode || st.Uid != e.st.Uid || st.Gid != e.st.Gid {
			continue // the step has made something of it
		}
		if t, ok := times[e.path]; ok { // its children are gone, and are not to show
			_ = tree.TimesBeneath(root, e.path, t)
			st.Mtim = t[1]
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if !isDir && st.Size > 0 || !e.made && (!isDir || st.Mtim != e.st.Mtim) {
			continue
		}
		// A directory that is not empty stays: rmdir refuses it.
		_ = tree.RemoveBeneath(root, e.path, isDir)
	}
	for dir, t := range times {
		_ = tree.TimesBeneath(root, dir, t)
	}
	return nil
}
