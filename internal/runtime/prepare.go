package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"berth/internal/fault"
	"berth/internal/overlay"
	"berth/internal/runtime/config"
	"berth/internal/runtime/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// resources collects descriptors that end with a creation, and what must be
// undone when it fails.
type resources struct {
	fds  []int
	undo []func()
	base int // descriptors are made at this number or above
}

func (r *resources) keep(fd int) int {
	r.fds = append(r.fds, fd)
	return fd
}

func (r *resources) close() {
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	r.fds = nil
}

// high moves a descriptor out of the way of those that a process wants to have
// at fixed numbers.
func (r *resources) high(fd int) (int, error) {
	if fd >= r.base {
		return fd, nil
	}
	up, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, r.base)
	unix.Close(fd)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	return up, nil
}

// open opens a file of the host and keeps it.
func (r *resources) open(path string, flags int) (int, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err == nil {
		fd, err = r.high(fd)
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return r.keep(fd), nil
}

// openProc opens /proc and makes sure that it is the root of a procfs.
func (r *resources) openProc() (int, error) {
	fd, err := r.open("/proc", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, fault.New(fault.Internal, "open", "/proc", "%w", err)
	}
	var st unix.Statfs_t
	var ino unix.Stat_t
	const procRoot = 1 // inode number of a procfs's root
	if err := errors.Join(unix.Fstatfs(fd, &st), unix.Fstat(fd, &ino)); err != nil {
		return -1, fault.New(fault.Internal, "open", "/proc", "%w", err)
	}
	if st.Type != unix.PROC_SUPER_MAGIC || ino.Ino != procRoot {
		return -1, fault.New(fault.Forbidden, "open", "/proc", "it is not a procfs")
	}
	return fd, nil
}

// openNull opens /dev/null and makes sure that it is the null device.
func (r *resources) openNull() (int, error) {
	fd, err := r.open("/dev/null", unix.O_RDWR)
	if err != nil {
		return -1, fault.New(fault.Internal, "open", "/dev/null", "%w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return -1, fault.New(fault.Forbidden, "open", "/dev/null", "it is not the null device")
	}
	return fd, nil
}

// openTree returns a detached copy of the mounts at path.
func (r *resources) openTree(dir int, path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(dir, path, flags)
	if err == nil {
		fd, err = r.high(fd)
	}
	if err != nil {
		return -1, err
	}
	return r.keep(fd), nil
}

func setAttr(tree int, recursive bool, attr unix.MountAttr) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(tree, "", flags, &attr)
}

// rootPropagation is what mounts of the host are turned into in the container.
func rootPropagation(s *specs.Spec) plan.Propagation {
	if s.Linux != nil {
		if p, ok := plan.PropagationOf(s.Linux.RootfsPropagation); ok {
			return p
		}
	}
	return plan.Propagation{Type: unix.MS_SLAVE, Recursive: true}
}

// openRoot returns a detached mount of the container's root.
func (r *resources) openRoot(opts *CreateOptions, path string) (int, error) {
	if opts.Overlay != nil {
		return r.mountOverlay(opts.Overlay)
	}
	fd, err := r.openTree(unix.AT_FDCWD, path, true)
	if err != nil {
		e := fault.New(fault.Internal, "open", "root.path", "%s: %w", path, err)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			e.Kind = fault.Invalid
		}
		return -1, e
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return -1, fault.New(fault.Invalid, "open", "root.path", "%s is not a directory", path)
	}
	// What becomes the root can't be shared before it is.
	p := rootPropagation(opts.Spec)
	if p.Type == unix.MS_SHARED || p.Type == unix.MS_UNBINDABLE {
		p = plan.Propagation{Type: unix.MS_PRIVATE}
	}
	if err := setAttr(fd, p.Recursive, unix.MountAttr{Propagation: p.Type}); err != nil {
		return -1, fault.New(fault.Internal, "prepare", "root.path", "%w", err)
	}
	return fd, nil
}

// mountOverlay makes a detached overlay mount.
func (r *resources) mountOverlay(o *Overlay) (int, error) {
	if o.Upper == "" && len(o.Lower) == 1 {
		// An overlay needs two layers; one that nobody writes to is itself.
		fd, err := r.openTree(unix.AT_FDCWD, o.Lower[0], false)
		if err == nil {
			err = setAttr(fd, false, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE})
		}
		if err != nil {
			return -1, fault.New(fault.Internal, "mount overlay", o.Lower[0], "%w", err)
		}
		return fd, nil
	}
	fd, err := overlay.Mount(overlay.Stack{Lower: o.Lower, Upper: o.Upper, Work: o.Work}, 0)
	if err == nil {
		fd, err = r.high(fd)
	}
	if err != nil {
		return -1, err
	}
	return r.keep(fd), nil
}

// binds opens the sources of all bind mounts, as the host sees them, and makes what
// else the host makes: overlays of layers that are given one by one.
func (r *resources) binds(s *specs.Spec, bundle string, idmaps *idMapper) (map[int]plan.Bind, error) {
	out := map[int]plan.Bind{}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		o := plan.ParseMountOptions(m.Options)
		var b plan.Bind
		var err error
		switch layers, isOverlay := overlayOf(m, &o); {
		case o.Remount:
			continue
		case isOverlay:
			b, err = r.overlayMount(layers, &o, i)
		case o.Bind || m.Type == "bind":
			b, err = r.bind(m, &o, i, bundle, rootPropagation(s), idmaps)
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		out[i] = b
	}
	return out, nil
}

// overlayOf reads an overlay mount whose layers are given one by one, as lowerdir+
// takes them. The kernel knows that since 6.5 and for paths of less than 256 bytes;
// the overlay room makes up for both, so such a mount is made by it, as the root is.
func overlayOf(m *specs.Mount, o *plan.MountOptions) (l Overlay, ok bool) {
	if m.Type != "overlay" {
		return l, false
	}
	for _, option := range o.Data {
		switch key, dir, _ := strings.Cut(option, "="); key {
		case "lowerdir+":
			l.Lower = append(l.Lower, dir)
		case "upperdir":
			l.Upper = dir
		case "workdir":
			l.Work = dir
		default:
			return l, false
		}
	}
	return l, len(l.Lower) > 0
}

// IsOwnMount reports whether a mount says something that other runtimes do not
// understand: an overlay whose layers are given one by one, or a part of a source.
func IsOwnMount(m *specs.Mount) bool {
	o := plan.ParseMountOptions(m.Options)
	_, isOverlay := overlayOf(m, &o)
	return isOverlay || o.Subdir != ""
}

func (r *resources) overlayMount(l Overlay, o *plan.MountOptions, i int) (plan.Bind, error) {
	b := plan.Bind{Dir: true}
	fd, err := r.mountOverlay(&l)
	if err == nil && o.Subdir != "" {
		fd, err = r.part(fd, o.Subdir, false)
		b.Dir = err == nil && isDir(fd)
	}
	if err != nil {
		return b, fault.Wrap("prepare", fmt.Sprintf("mounts[%d]", i), err)
	}
	b.Tree = fd
	return b, setOptions(fd, o, i, 0)
}

// part returns a detached copy of what is at a path below base and stays there.
func (r *resources) part(base int, subdir string, recursive bool) (int, error) {
	fd, err := overlay.Beneath(base, subdir, recursive)
	if err == nil {
		fd, err = r.high(fd)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return -1, fault.New(fault.NotFound, "", "", "cannot access path %s: %w", subdir, err)
	}
	if err != nil {
		return -1, fault.New(fault.Internal, "open", subdir, "%w", err)
	}
	return r.keep(fd), nil
}

func isDir(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// source opens what a bind mount shows: a file or directory of the host, or what
// is at a path below a directory.
func (r *resources) source(path string, o *plan.MountOptions) (int, error) {
	if o.Subdir == "" {
		return r.openTree(unix.AT_FDCWD, path, o.Recursive)
	}
	base, err := r.open(path, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	return r.part(base, o.Subdir, o.Recursive)
}

// setOptions gives a detached mount the attributes that its options name.
func setOptions(fd int, o *plan.MountOptions, i int, clr uint64) error {
	var err error
	if o.Set|clr != 0 {
		err = setAttr(fd, false, unix.MountAttr{Attr_set: o.Set, Attr_clr: clr})
	}
	if err == nil && o.RecSet|o.RecClear != 0 {
		err = setAttr(fd, true, unix.MountAttr{Attr_set: o.RecSet, Attr_clr: o.RecClear})
	}
	if err != nil {
		return fault.New(fault.Internal, "prepare", fmt.Sprintf("mounts[%d].options", i), "%w", err)
	}
	return nil
}

func (r *resources) bind(m *specs.Mount, o *plan.MountOptions, i int, bundle string, p plan.Propagation, idmaps *idMapper) (plan.Bind, error) {
	var b plan.Bind
	field := fmt.Sprintf("mounts[%d].source", i)
	source := m.Source
	if source == "" {
		return b, fault.New(fault.Invalid, "check", field, "is empty; a bind mount needs it")
	}
	if !filepath.IsAbs(source) {
		source = filepath.Join(bundle, source)
	}
	if len(o.Data) > 0 {
		return b, fault.New(fault.Invalid, "check", fmt.Sprintf("mounts[%d].options", i), "%q is no option of a bind mount", o.Data[0])
	}
	fd, err := r.source(source, o)
	if err != nil {
		e := fault.New(fault.Internal, "open", field, "%s: %w", source, err)
		if errors.Is(err, unix.ENOENT) || fault.Is(err, fault.NotFound) {
			e.Kind = fault.NotFound
		}
		return b, e
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs)); err != nil {
		return b, fault.New(fault.Internal, "open", field, "%s: %w", source, err)
	}
	b = plan.Bind{Tree: fd, Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, Proc: fs.Type == unix.PROC_SUPER_MAGIC}
	if err := setAttr(fd, true, unix.MountAttr{Propagation: p.Type}); err != nil {
		return b, fault.New(fault.Internal, "prepare", field, "%w", err)
	}
	if o.IDMap || len(m.UIDMappings) > 0 {
		if err := idmaps.apply(fd, m, o, i); err != nil {
			return b, err
		}
	}
	// A bind mount keeps its source's restrictions unless they are lifted
	// recursively, by name.
	clr := uint64(0)
	if o.Set&unix.MOUNT_ATTR__ATIME != 0 || o.Clear&unix.MOUNT_ATTR__ATIME != 0 {
		clr = unix.MOUNT_ATTR__ATIME
	}
	return b, setOptions(fd, o, i, clr)
}

// cloneFlags are the kernel's names for namespace types.
var cloneFlags = [...]struct {
	typ  specs.LinuxNamespaceType
	flag uint64
}{
	{specs.MountNamespace, unix.CLONE_NEWNS}, {specs.NetworkNamespace, unix.CLONE_NEWNET},
	{specs.IPCNamespace, unix.CLONE_NEWIPC}, {specs.UTSNamespace, unix.CLONE_NEWUTS},
	{specs.PIDNamespace, unix.CLONE_NEWPID}, {specs.CgroupNamespace, unix.CLONE_NEWCGROUP},
	{specs.TimeNamespace, unix.CLONE_NEWTIME}, {specs.UserNamespace, unix.CLONE_NEWUSER},
}

// namespaces opens the namespaces to join, the user namespace last, and
// returns the flags of those to make by clone and of all that are not ours.
func (r *resources) namespaces(s *specs.Spec) (joins []plan.Join, made, separate uint64, err error) {
	ns := config.NamespacesOf(s)
	for _, k := range cloneFlags {
		path, listed := ns[k.typ]
		if !listed {
			continue
		}
		separate |= k.flag
		if path == "" {
			if k.flag != unix.CLONE_NEWCGROUP && k.flag != unix.CLONE_NEWTIME {
				made |= k.flag
			}
			continue
		}
		field := "linux.namespaces"
		for i := range s.Linux.Namespaces {
			if s.Linux.Namespaces[i].Type == k.typ {
				field = fmt.Sprintf("linux.namespaces[%d].path", i)
			}
		}
		fd, err := r.open(path, unix.O_RDONLY)
		if err != nil {
			kind := fault.Internal
			if errors.Is(err, unix.ENOENT) {
				kind = fault.NotFound
			}
			return nil, 0, 0, fault.New(kind, "open", field, "%w", err)
		}
		typ, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
		if err != nil || uint64(typ) != k.flag {
			return nil, 0, 0, fault.New(fault.Invalid, "check", field, "%s is not a %s namespace", path, k.typ)
		}
		if sameNamespace(fd, k.typ) {
			separate &^= k.flag
			if k.flag == unix.CLONE_NEWUSER {
				continue // entering one's own user namespace is an error
			}
		}
		joins = append(joins, plan.Join{FD: fd, Type: int(k.flag), Field: field})
	}
	return joins, made, separate, nil
}

// sameNamespace reports whether fd is this process's own namespace.
func sameNamespace(fd int, typ specs.LinuxNamespaceType) bool {
	name := map[specs.LinuxNamespaceType]string{specs.MountNamespace: "mnt", specs.NetworkNamespace: "net"}[typ]
	if name == "" {
		name = string(typ)
	}
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && unix.Stat("/proc/self/ns/"+name, &b) == nil && a.Ino == b.Ino && a.Dev == b.Dev
}
