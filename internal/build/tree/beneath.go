package tree

import (
	"path"

	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Names lists an open directory, sorted.
func Names(fd int) ([]string, error) { return names(fd) }

// Plant makes an empty directory or file at p for something to be mounted on,
// unless something is there. The directory that it is made in keeps its times.
func (r *Root) Plant(p string, dir bool) error {
	// What is mounted on a link to nothing is mounted where it leads.
	p, err := realPath(r.fd, p, true, nil)
	if err != nil {
		return classify("find", p, err)
	}
	kind, err := r.kind(p)
	if err != nil {
		return classify("find", p, err)
	}
	if kind != 0 {
		if (kind == unix.S_IFDIR) != dir {
			return fault.New(fault.Invalid, "mount on", quote("/"+p), "a directory can be mounted only on a directory, and a file on a file")
		}
		return nil
	}
	above := path.Dir(p)
	for { // the lowest directory that is there
		kind, err := r.kind(above)
		if err != nil {
			return classify("find", above, err)
		}
		if kind != 0 || above == "." {
			break
		}
		above = path.Dir(above)
	}
	fd, err := r.dir(above)
	if err != nil {
		return classify("open directory", above, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return classify("look at", above, err)
	}
	if dir {
		err = r.MakeDirs(p, Attributes{Mode: 0o755})
	} else if err = r.MakeDirs(path.Dir(p), Attributes{Mode: 0o755}); err == nil {
		err = r.MakeFile(p, nil, Attributes{Mode: 0o644})
	}
	if err != nil {
		return err
	}
	t := []unix.Timespec{st.Atim, st.Mtim}
	return classify("set times", above, unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), t, 0))
}

// StatBeneath looks at the real path p below an open directory.
func StatBeneath(root int, p string) (unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := openat2(root, rel(p), unix.O_PATH|unix.O_NOFOLLOW, 0, beneath)
	if err != nil {
		return st, err
	}
	defer unix.Close(fd)
	return st, unix.Fstat(fd, &st)
}

// parentBeneath opens the directory of the real path p.
func parentBeneath(root int, p string) (int, string, error) {
	p = rel(p)
	fd, err := openat2(root, path.Dir(p), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, beneath)
	return fd, path.Base(p), err
}

// RemoveBeneath removes a file or an empty directory below an open directory.
func RemoveBeneath(root int, p string, dir bool) error {
	fd, base, err := parentBeneath(root, p)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flags := 0
	if dir {
		flags = unix.AT_REMOVEDIR
	}
	return unix.Unlinkat(fd, base, flags)
}

// TimesBeneath sets the times of what is at the real path p, not following a
// link.
func TimesBeneath(root int, p string, t [2]unix.Timespec) error {
	fd, base, err := parentBeneath(root, p)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.UtimesNanoAt(fd, base, t[:], unix.AT_SYMLINK_NOFOLLOW)
}
