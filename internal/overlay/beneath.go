package overlay

import (
	"path"

	"golang.org/x/sys/unix"
)

// Beneath returns a detached copy of what is mounted at a path below base, with the
// mounts below it when recursive is set. base is an open directory, or a mount that
// Mount has made. The path is resolved by the kernel with base as its root, links
// included, so it never leaves base, whoever swaps names meanwhile; what is copied
// is what was found, not what the name means a moment later.
func Beneath(base int, name string, recursive bool) (int, error) {
	fd, err := cloneBeneath(base, name, recursive)
	if err != unix.EINVAL {
		return fd, err
	}
	// Before Linux 6.15 only what is in the caller's mount namespace can be copied:
	// a mount that is attached nowhere is, in one made for that.
	type result struct {
		fd  int
		err error
	}
	done := make(chan result, 1)
	OnSpoiltThread(func() {
		fd, err := cloneAside(base, name, recursive)
		done <- result{fd, err}
	})
	r := <-done
	return r.fd, r.err
}

func cloneBeneath(base int, name string, recursive bool) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	name = "." + path.Clean("/"+name)
	fd, err := unix.Openat2(base, name, &how)
	// A rename or mount elsewhere makes the kernel unsure about "..".
	for try := 0; (err == unix.EAGAIN || err == unix.EINTR) && try < 128; try++ {
		fd, err = unix.Openat2(base, name, &how)
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(fd, "", flags)
}

// cloneAside attaches base in a mount namespace that ends with the thread.
func cloneAside(base int, name string, recursive bool) (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return -1, failed("in a mount namespace of its own", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, failed("in a mount namespace of its own", err)
	}
	if err := unix.MoveMount(base, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return -1, err
	}
	return cloneBeneath(base, name, recursive)
}
