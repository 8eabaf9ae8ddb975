// Package tmpfs mounts memory below the run directory: what must have a place of the
// host's, so that a container that is still to be made finds it there, and must not
// reach a disk. It exists so that there is one way to make such a place, and one that
// frees it, whatever a killed engine left on top of it.
package tmpfs

import (
	"errors"
	"io/fs"
	"os"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// Mount makes a directory that only root may enter by its path, and mounts a new tmpfs
// there in place of whatever is. name is how mount tables call it; options are those of
// tmpfs(5).
func Mount(dir, name, options string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Wrap("create", dir, err)
	}
	if err := unmount(dir); err != nil {
		return err
	}
	err := unix.Mount(name, dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options)
	return fault.Wrap("mount "+name, dir, err)
}

// Remove unmounts what is mounted at a directory and removes it; one that is not there
// is fine.
func Remove(dir string) error {
	if err := unmount(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap("remove", dir, err)
	}
	return nil
}

// unmount ends all mounts at a directory, one above the other. Who still uses them
// keeps them.
func unmount(dir string) error {
	for {
		switch err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err {
		case nil:
		case unix.EINVAL, unix.ENOENT:
			return nil
		default:
			return fault.Wrap("unmount", dir, err)
		}
	}
}
