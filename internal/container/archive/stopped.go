package archive

import (
	"errors"
	"path"
	"slices"
	"strings"

	"berth/internal/fault"
	"berth/internal/overlay"
	"berth/internal/volume"

	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"
)

// Layers is what the root of a container that does not run is made of.
type Layers struct {
	Lower       []string       // read-only directories, top first
	Upper, Work string         // of the overlay; "" makes a view for reading
	Mounts      []volume.Mount // binds, volumes and images on top; a tmpfs is left out
	// ReadOnly makes the root itself, not the mounts, read-only.
	ReadOnly bool
}

// ErrNoMountPoint says that a read-only view lacks the directory for a mount.
var ErrNoMountPoint = errors.New("a mount point is missing")

// Stopped puts the root of a container together that does not run, with its
// mounts, in a mount namespace of its own which ends with the Root. When the stack
// has an upper directory, missing mount points are made; the caller sees to it
// that nobody else uses that directory meanwhile. Without one, a missing mount
// point is ErrNoMountPoint.
func Stopped(l Layers) (*Root, error) {
	attrs := 0
	if l.ReadOnly {
		attrs = unix.MOUNT_ATTR_RDONLY
	}
	// The root becomes read-only only when all mount points are there.
	tree, err := overlay.Mount(overlay.Stack{Lower: l.Lower, Upper: l.Upper, Work: l.Work}, 0)
	if err != nil {
		return nil, err
	}
	r := &Root{dir: tree, space: -1, pid: -1}
	mounts, err := openMounts(l.Mounts)
	defer mounts.close()
	if err == nil {
		err = r.assemble(mounts, l.Upper != "", attrs)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// opened is a mount that is attached nowhere yet.
type opened struct {
	volume.Mount
	fd     int
	isFile bool
}

type openedMounts []opened

func (o openedMounts) close() {
	for _, m := range o {
		_ = unix.Close(m.fd)
	}
}

// openMounts makes detached copies of what is to be mounted, those first that
// others are mounted in.
func openMounts(mounts []volume.Mount) (out openedMounts, err error) {
	all := slices.Clone(mounts)
	slices.SortStableFunc(all, func(a, b volume.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	for _, m := range all {
		if m.Type == mount.TypeTmpfs {
			continue
		}
		fd, err := openMount(&m)
		if err != nil {
			return out, fault.Wrap("mount", m.Source, err)
		}
		o := opened{Mount: m, fd: fd}
		out = append(out, o)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return out, fault.Wrap("mount", m.Source, err)
		}
		out[len(out)-1].isFile = st.Mode&unix.S_IFMT != unix.S_IFDIR
		// Nothing done here reaches the host's mounts.
		attr := &unix.MountAttr{Propagation: unix.MS_PRIVATE}
		if m.ReadOnly {
			attr.Attr_set = unix.MOUNT_ATTR_RDONLY
		}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attr); err != nil {
			return out, fault.Wrap("mount", m.Source, err)
		}
	}
	return out, nil
}

// openMount makes a detached copy of what one mount shows.
func openMount(m *volume.Mount) (int, error) {
	whole := -1
	var err error
	switch {
	case m.Type == mount.TypeImage:
		whole, err = openImage(m.Lower)
		if m.Subpath == "" {
			return whole, err
		}
	case m.Subpath == "":
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
		if !m.NonRecursive {
			flags |= unix.AT_RECURSIVE
		}
		return unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	default:
		whole, err = unix.Open(m.Source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(whole)
	return overlay.Beneath(whole, m.Subpath, m.Type != mount.TypeImage)
}

// openImage stacks the layers of an image; one alone is its own stack.
func openImage(lower []string) (int, error) {
	if len(lower) == 1 {
		return unix.OpenTree(unix.AT_FDCWD, lower[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	}
	return overlay.Mount(overlay.Stack{Lower: lower}, unix.MOUNT_ATTR_RDONLY)
}

// assemble attaches the root and the mounts in a mount namespace of a thread that
// ends afterwards; a descriptor of the namespace keeps it.
func (r *Root) assemble(mounts openedMounts, create bool, attrs int) error {
	done := make(chan error, 1)
	overlay.OnSpoiltThread(func() {
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return fault.New(fault.Internal, "make mount namespace", "", "%w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fault.New(fault.Internal, "make mount namespace", "", "%w", err)
			}
			var err error
			if r.space, err = unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
				return fault.New(fault.Internal, "make mount namespace", "", "%w", err)
			}
			if err := unix.MoveMount(r.dir, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
				return fault.New(fault.Internal, "mount root", "", "%w", err)
			}
			for _, m := range mounts {
				if err := r.attach(m, create); err != nil {
					return err
				}
			}
			if attrs != 0 {
				if err := unix.MountSetattr(r.dir, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: uint64(attrs)}); err != nil {
					return fault.New(fault.Internal, "mount root read-only", "", "%w", err)
				}
			}
			return nil
		}()
	})
	return <-done
}

// attach mounts one thing at its place, which is opened below the root and not
// looked up again.
func (r *Root) attach(m opened, create bool) error {
	const how = unix.O_PATH
	at, err := r.open(m.Destination, how)
	if errors.Is(err, unix.ENOENT) {
		if !create {
			return ErrNoMountPoint
		}
		if err = r.makePoint(m); err == nil {
			at, err = r.open(m.Destination, how)
		}
	}
	if err != nil {
		return fault.Wrap("open mount point", m.Destination, err)
	}
	defer unix.Close(at)
	err = unix.MoveMount(m.fd, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return fault.Wrap("mount at", m.Destination, err)
}

// makePoint makes the directory or the empty file that a mount covers.
func (r *Root) makePoint(m opened) error {
	dst, err := r.resolve(m.Destination)
	if err != nil {
		return err
	}
	if !m.isFile {
		fd, err := r.makeDirs(dst)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}
	dir, err := r.makeDirs(path.Dir(dst))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, path.Base(dst), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err == nil {
		_ = unix.Close(fd)
	}
	if err == unix.EEXIST {
		err = nil
	}
	return err
}

// makeDirs opens a directory and makes it, and those on the way, where missing.
func (r *Root) makeDirs(name string) (int, error) {
	fd, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, unix.ENOENT) || name == "/" {
		return fd, err
	}
	up, err := r.makeDirs(path.Dir(name))
	if err != nil {
		return -1, err
	}
	defer unix.Close(up)
	base := path.Base(name)
	if err := unix.Mkdirat(up, base, 0o755); err != nil && err != unix.EEXIST {
		return -1, err
	}
	return r.open(name, unix.O_PATH|unix.O_DIRECTORY)
}
