// Package rootview lets the engine look into a container's root file system
// without mounting it anywhere: an overlay mount that is attached to no
// directory lives exactly as long as a file descriptor. It exists because files
// of the image (its users, its volumes' first content) must be read as the
// container would see them, and because links in an image must never lead out
// of it: every path is resolved by the kernel with the image as its root.
package rootview

import (
	"os"
	"strconv"

	"berth/internal/fault"
	"berth/internal/overlay"

	"golang.org/x/sys/unix"
)

// View is an open root file system, read-only.
type View struct{ root int }

// Open opens the stack of layer directories, top first.
func Open(layers []string) (*View, error) {
	if len(layers) == 1 {
		fd, err := unix.Open(layers[0], unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fault.Wrap("open root", layers[0], err)
		}
		return &View{fd}, nil
	}
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID
	fd, err := overlay.Mount(overlay.Stack{Lower: layers}, attrs)
	if err != nil {
		return nil, err
	}
	return &View{fd}, nil
}

// Close ends the view.
func (v *View) Close() error { return unix.Close(v.root) }

// OpenFile opens a regular file of at most limit bytes, or fails with
// fault.NotFound, or fault.Invalid when there is something else. Nothing but a
// regular file is ever opened: opening a device or a FIFO can do things.
func (v *View) OpenFile(path string, limit int64) (*os.File, error) {
	f, st, err := v.open(path, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fault.New(fault.Invalid, "open", path, "not a regular file")
	}
	if st.Size > limit {
		return nil, fault.New(fault.Invalid, "open", path, "%d bytes are more than the %d allowed", st.Size, limit)
	}
	file, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	return file, fault.Wrap("open", path, err)
}

// OpenDir opens a directory for reading.
func (v *View) OpenDir(path string) (*os.File, error) {
	f, _, err := v.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	return f, err
}

func (v *View) open(path string, flags uint64) (*os.File, *unix.Stat_t, error) {
	fd, err := unix.Openat2(v.root, path, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR:
		return nil, nil, fault.New(fault.NotFound, "open", path, "%w", err)
	default:
		return nil, nil, fault.New(fault.Invalid, "open", path, "%w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, nil, fault.Wrap("stat", path, err)
	}
	return f, &st, nil
}
