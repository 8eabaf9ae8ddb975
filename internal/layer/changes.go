package layer

import (
	"context"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Kind says what happened to a path. The numbers are docker's.
type Kind uint8

// What can happen to a path.
const (
	Modified Kind = iota // "C"
	Added                // "A"
	Deleted              // "D"
)

func (k Kind) String() string { return [...]string{"C", "A", "D"}[k%3] }

// Change is one line of `diff`.
type Change struct {
	Kind Kind
	Path string // absolute, as the container sees it
}

// Changes compares an overlay's upper directory with the lower ones, topmost
// first as Lower returns them, by docker's rules for its overlay2 driver: what
// is above a change is Modified, unless it is the root; everything in a new
// directory is Added; of a deleted directory only itself is Deleted. A file is
// Modified when its mode, owner, device, capability, size or modification time
// are others, so that one that was opened for writing and not written to is
// not; of directories size and time do not count. What is new and ours, by its path
// relative to the root, with all below it, is left out. Sorted by path, a directory
// before what is in it.
func Changes(ctx context.Context, upper string, lower []string, ours func(path string) bool) ([]Change, error) {
	const op = "compare with the image"
	c := &comparer{ctx: ctx, ours: ours}
	defer c.close()
	var all []int
	for i, dir := range lower {
		fd, err := unix.Open(dir, dirFlags, 0)
		if err != nil {
			return nil, fault.Wrap(op, dir, err)
		}
		c.lower = append(c.lower, fd)
		all = append(all, i)
	}
	fd, err := unix.Open(upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = c.dir(fd, ".", all)
	}
	if err != nil {
		return nil, fault.Wrap(op, upper, err)
	}
	return c.changes, nil
}

type comparer struct {
	ctx     context.Context
	lower   []int // descriptors of the lower directories, top first
	ours    func(path string) bool
	changes []Change
}

func (c *comparer) close() {
	for _, fd := range c.lower {
		unix.Close(fd)
	}
}

func (c *comparer) add(k Kind, path string) {
	c.changes = append(c.changes, Change{k, "/" + path})
}

// dir compares the directory fd, which it closes, with what the given lower
// directories have at the same path, where all of them have a directory.
func (c *comparer) dir(fd int, path string, lower []int) error {
	dir := os.NewFile(uintptr(fd), "upper directory")
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fault.Wrap("list directory", quote(path), err)
	}
	here := map[string]bool{}
	hidden := false
	if len(lower) > 0 {
		if hidden, err = opaqueUpper(fd); err != nil {
			return fault.Wrap("read attributes", quote(path), err)
		}
	}
	if hidden { // it was made anew: what is gone shows by its absence
		for _, name := range names {
			here[name] = true
		}
		if names, err = c.addLowerNames(names, here, path, lower); err != nil {
			return err
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if hidden && !here[name] {
			c.add(Deleted, join(path, name))
		} else if err := c.child(fd, path, name, lower); err != nil {
			return err
		}
	}
	return nil
}

// addLowerNames adds the names that a path has in the lower directories alone.
func (c *comparer) addLowerNames(names []string, have map[string]bool, path string, lower []int) ([]string, error) {
	seen := map[string]bool{}
	for _, i := range lower {
		fd, err := openat2(c.lower[i], path, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: dirResolve})
		if err != nil {
			return nil, fault.Wrap("list directory", quote(path), err)
		}
		dir := os.NewFile(uintptr(fd), "lower directory")
		all, err := dir.Readdirnames(-1)
		if err == nil {
			for _, name := range all {
				if seen[name] {
					continue
				}
				seen[name] = true
				var there existing
				if there, err = lookAt(fd, name); err != nil {
					break
				}
				if !there.whiteout && !have[name] {
					names = append(names, name)
				}
			}
		}
		dir.Close()
		if err != nil {
			return nil, fault.Wrap("list directory", quote(path), err)
		}
	}
	return names, nil
}

// child compares one entry of an upper directory.
func (c *comparer) child(dirfd int, dir, name string, lower []int) error {
	path := join(dir, name)
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT {
		return nil // the container goes on
	} else if err != nil {
		return fault.Wrap("look at file", quote(path), err)
	}
	old, below, err := c.find(path, lower)
	if err != nil {
		return fault.Wrap("look at file", quote(path), err)
	}
	format := st.Mode & unix.S_IFMT
	if format == unix.S_IFCHR && st.Rdev == 0 || format == unix.S_IFREG && st.Size == 0 && markedWhiteout(dirfd, name) {
		if old != nil {
			c.add(Deleted, path)
		}
		return nil
	}
	before := len(c.changes)
	switch {
	case old == nil && c.ours(path):
		return nil
	case old == nil:
		c.add(Added, path)
	case c.differ(dirfd, name, path, &st, old, below):
		c.add(Modified, path)
	}
	if format != unix.S_IFDIR {
		return nil
	}
	noted := len(c.changes) > before
	fd, err := openat2(dirfd, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: dirResolve})
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return nil // the container goes on
	}
	if err != nil {
		return fault.Wrap("open directory", quote(path), err)
	}
	if old != nil && old.Mode&unix.S_IFMT != unix.S_IFDIR {
		below = nil
	}
	if err := c.dir(fd, path, below); err != nil {
		return err
	}
	if !noted && len(c.changes) > before {
		c.changes = slices.Insert(c.changes, before, Change{Modified, "/" + path})
	}
	return nil
}

// find looks for a path in lower directories that have its parent. It returns
// what the container saw there, and where that was: for a directory all lower
// ones that it was merged of.
func (c *comparer) find(path string, lower []int) (*unix.Stat_t, []int, error) {
	var top *unix.Stat_t
	var where []int
	for _, i := range lower {
		var st unix.Stat_t
		err := unix.Fstatat(c.lower[i], path, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		format := st.Mode & unix.S_IFMT
		if format == unix.S_IFCHR && st.Rdev == 0 || top != nil && format != unix.S_IFDIR {
			break
		}
		where = append(where, i)
		if top == nil {
			top = &st
		}
		if format != unix.S_IFDIR {
			break
		}
		fd, err := openat2(c.lower[i], path, &unix.OpenHow{Flags: dirFlags, Resolve: dirResolve})
		if err != nil {
			return nil, nil, err
		}
		last, err := opaque(fd)
		unix.Close(fd)
		if err != nil {
			return nil, nil, err
		}
		if last {
			break
		}
	}
	return top, where, nil
}

// differ compares a file with the one that it took the place of.
func (c *comparer) differ(dirfd int, name, path string, a, b *unix.Stat_t, below []int) bool {
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Rdev != b.Rdev {
		return true
	}
	format := a.Mode & unix.S_IFMT
	if format == unix.S_IFDIR {
		return false
	}
	if a.Size != b.Size || !sameTime(a.Mtim, b.Mtim) {
		return true
	}
	if format != unix.S_IFREG {
		return false
	}
	was, _ := unixCapability(procPath(c.lower[below[0]]) + "/" + path)
	is, _ := unixCapability(procPath(dirfd) + "/" + name)
	return was != is
}

// sameTime compares two times, of which one may come from an archive that has
// only seconds.
func sameTime(a, b unix.Timespec) bool {
	return a.Sec == b.Sec && (a.Nsec == b.Nsec || a.Nsec == 0 || b.Nsec == 0)
}

func unixCapability(path string) (string, error) {
	return getXattr(capability, func(name string, b []byte) (int, error) { return unix.Lgetxattr(path, name, b) })
}

// opaqueUpper is opaque for directories that an overlay made, in either of its
// namespaces.
func opaqueUpper(fd int) (bool, error) {
	for _, prefix := range overlayPrefixes {
		value, err := getXattr(prefix+"opaque", func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
		if err != nil && err != unix.ENODATA && err != unix.ENOTSUP {
			return false, err
		}
		if value == "y" {
			return true, nil
		}
	}
	return false, nil
}

// markedWhiteout reports whether an empty file is a whiteout by its attribute.
func markedWhiteout(dirfd int, name string) bool {
	for _, prefix := range overlayPrefixes {
		_, err := getXattr(prefix+"whiteout", func(attr string, b []byte) (int, error) {
			return unix.Lgetxattr(procPath(dirfd)+"/"+name, attr, b)
		})
		if err == nil {
			return true
		}
	}
	return false
}
