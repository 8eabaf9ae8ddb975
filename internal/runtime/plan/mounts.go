package plan

import (
	"fmt"
	"path"
	"strings"
	"syscall"

	"berth/internal/fault"
	"berth/internal/runtime/boot"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Commands of fsconfig(2).
const (
	fsconfigSetFlag   = 0
	fsconfigSetString = 1
	fsconfigCreate    = 6
	fsconfigReconfig  = 7
)

// attachFlags of move_mount(2): both ends are given by descriptor alone.
const attachFlags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH

// mountAttr is struct mount_attr as words.
func (b *builder) mountAttr(set, clr, propagation uint64) boot.Arg {
	return b.Words(boot.Int(set), boot.Int(clr), boot.Int(propagation), boot.Int(0))
}

func (b *builder) setAttr(tree boot.Arg, recursive bool, set, clr, propagation uint64) boot.Op {
	flags := unix.AT_EMPTY_PATH
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return b.Call(unix.SYS_MOUNT_SETATTR, tree, b.Str(""), boot.Int(flags), b.mountAttr(set, clr, propagation), boot.Int(32))
}

// attach moves a detached tree onto the target.
func (b *builder) attach(tree, target boot.Arg) boot.Op {
	empty := b.Str("")
	return b.Call(unix.SYS_MOVE_MOUNT, tree, empty, target, empty, boot.Int(attachFlags))
}

// mount emits one entry of the specification's mounts.
func (b *builder) mount(c *Container, i int, m *specs.Mount) error {
	dest := path.Clean("/" + m.Destination)
	o := ParseMountOptions(m.Options)
	name := fmt.Sprintf("mounts[%d] (%s)", i, dest)
	b.Step(name)
	bind, isBind := c.Binds[i]
	switch {
	case o.Remount:
		return b.remount(dest, &o)
	case isBind:
		b.bind(dest, bind, &o, name)
		return nil
	case o.Subdir != "":
		return fault.New(fault.Unsupported, "check", fmt.Sprintf("mounts[%d].options", i), "only bind mounts and overlays can be mounted in part: %s%s", SubdirOption, o.Subdir)
	case m.Type == "cgroup" || m.Type == "cgroup2":
		b.cgroup(c, dest, &o)
		return nil
	case o.IDMap || len(m.UIDMappings) > 0:
		return fault.New(fault.Unsupported, "check", fmt.Sprintf("mounts[%d].uidMappings", i), "only bind mounts can map ids")
	}
	tree, err := b.newFS(m, &o, c.Label)
	if err != nil {
		return err
	}
	if o.CopyUp {
		if m.Type != "tmpfs" {
			return fault.New(fault.Invalid, "check", fmt.Sprintf("mounts[%d].options", i), "tmpcopyup is for tmpfs only")
		}
		b.targets = append(b.targets, Target{Path: dest, Dir: true})
		b.Step(name + ": copy the directory's content")
		b.sendFD(ReqCopyUp, boot.Int(len(b.targets)-1), tree.Val())
		b.wait()
		b.Step(name)
	}
	strict := m.Type == "proc" || m.Type == "sysfs"
	b.place(tree.Val(), dest, placing{dir: true, plain: strict, intoProc: strict && dest == "/proc"})
	b.after(tree.Val(), &o)
	if m.Type == "tmpfs" && !o.CopyUp && o.Set&unix.MOUNT_ATTR_RDONLY == 0 {
		b.fresh[dest] = tree
	}
	return nil
}

// newFS emits the making of a file system and returns its detached mount.
func (b *builder) newFS(m *specs.Mount, o *MountOptions, label string) (boot.Slot, error) {
	fs, tree := b.Slot(), b.Slot()
	b.Call(unix.SYS_FSOPEN, b.Str(m.Type), boot.Int(unix.FSOPEN_CLOEXEC)).Into(fs)
	setString := func(key, value string) {
		b.Call(unix.SYS_FSCONFIG, fs.Val(), boot.Int(fsconfigSetString), b.Str(key), b.Str(value), boot.Int(0))
	}
	setFlag := func(key string) {
		b.Call(unix.SYS_FSCONFIG, fs.Val(), boot.Int(fsconfigSetFlag), b.Str(key), boot.Int(0), boot.Int(0))
	}
	if m.Source != "" {
		setString("source", m.Source)
	}
	for _, d := range o.Data {
		if k, v, ok := strings.Cut(d, "="); ok {
			setString(k, v)
		} else {
			setFlag(d)
		}
	}
	if label != "" && m.Type != "proc" && m.Type != "sysfs" {
		setString("context", label)
	}
	for _, f := range o.SuperFlags {
		setFlag(f)
	}
	attrs := o.Set
	switch m.Type {
	case "proc", "sysfs", "tmpfs", "mqueue", "devpts":
		// Read-only is the mount's matter: the file system may be shared, or
		// has to be filled first.
	default:
		if attrs&unix.MOUNT_ATTR_RDONLY != 0 {
			setFlag("ro")
		}
	}
	b.Call(unix.SYS_FSCONFIG, fs.Val(), boot.Int(fsconfigCreate), boot.Int(0), boot.Int(0), boot.Int(0))
	b.Call(unix.SYS_FSMOUNT, fs.Val(), boot.Int(unix.FSMOUNT_CLOEXEC), boot.Int(attrs)).Into(tree)
	return tree, nil
}

// after applies what is set on an attached mount.
func (b *builder) after(tree boot.Arg, o *MountOptions) {
	if o.RecSet|o.RecClear != 0 {
		b.setAttr(tree, true, o.RecSet, o.RecClear, 0)
	}
	for _, p := range o.Propagation {
		b.setAttr(tree, p.Recursive, 0, 0, p.Type)
	}
}

// placing says what a mount point may be.
type placing struct {
	dir      bool // the mounted tree's root is a directory
	plain    bool // no component may be a symbolic link
	intoProc bool // the target may lie on a procfs
}

// place attaches a detached tree at dest, whose mount point is made if it is
// missing.
func (b *builder) place(tree boot.Arg, dest string, p placing) {
	if dev, ok := b.fresh[path.Dir(dest)]; ok && dest != "/" {
		// The parent directory is on a file system that nobody else has ever
		// seen: names in it are what we make them.
		b.freshPoint(dev, path.Base(dest), p.dir)
		b.Call(unix.SYS_MOVE_MOUNT, tree, b.Str(""), dev.Val(), b.Str(path.Base(dest)), boot.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
		return
	}
	resolve := uint64(inRoot)
	if p.plain {
		resolve |= unix.RESOLVE_NO_SYMLINKS
	}
	target := b.target(dest, p.dir, resolve, 0o755)
	if !p.intoProc {
		b.notProc(target)
	}
	b.attach(tree, target.Val())
}

func (b *builder) freshPoint(dir boot.Slot, name string, isDir bool) {
	if isDir {
		b.Call(unix.SYS_MKDIRAT, dir.Val(), b.Str(name), boot.Int(0o755)).Ignore(unix.EEXIST)
		return
	}
	b.Call(unix.SYS_MKNODAT, dir.Val(), b.Str(name), boot.Int(unix.S_IFREG|0o644), boot.Int(0)).Ignore(unix.EEXIST)
}

// target opens a path in the root, which the parent makes if it is missing.
func (b *builder) target(dest string, dir bool, resolve uint64, mode uint32) boot.Slot {
	found, missing := b.Label(), b.Label()
	op, fd := b.openIn(b.root, rel(dest), unix.O_PATH, resolve)
	op.Then(found).OnErr(missing, unix.ENOENT)
	b.Bind(missing)
	b.targets = append(b.targets, Target{Path: dest, Dir: dir, Mode: mode})
	b.ask(ReqTarget, len(b.targets)-1)
	again, fd2 := b.openIn(b.root, rel(dest), unix.O_PATH, resolve)
	again.Into(fd)
	_ = fd2
	b.Bind(found)
	return fd
}

// notProc fails with EPERM if fd is on a procfs: a mount there can blind the
// runtime's own checks, and a link in the image must not smuggle one in.
func (b *builder) notProc(fd boot.Slot) {
	fine := b.Label()
	b.Call(unix.SYS_FSTATFS, fd.Val(), b.scratch)
	b.Test(b.scratch, ^uint64(0), unix.PROC_SUPER_MAGIC, 0).OnErr(fine)
	b.failWith(unix.EPERM)
	b.Bind(fine)
}

// failWith fails the current step.
func (b *builder) failWith(errno syscall.Errno) {
	b.Test(b.Words(boot.Int(0)), 1, 1, errno)
}

// procFiles are the files of procfs that may be mounted over, by tools that
// show a container its own share of the machine.
var procFiles = [...]string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
	"/proc/loadavg", "/proc/slabinfo", "/proc/net/dev", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

func (b *builder) bind(dest string, bind Bind, o *MountOptions, name string) {
	p := placing{dir: bind.Dir}
	for _, f := range procFiles {
		p.intoProc = p.intoProc || dest == f
	}
	if dest == "/proc" {
		p.plain = true
		p.intoProc = bind.Proc
		if !bind.Proc {
			b.Step(name + ": only a procfs can be mounted here")
			b.failWith(unix.EPERM)
		}
	}
	if strings.HasPrefix(dest, "/proc/") && p.intoProc {
		p.plain = true
	}
	b.place(boot.Int(bind.Tree), dest, p)
	// Attributes are set on the detached tree by the parent; propagation is
	// relative to the place where the tree is now.
	for _, pr := range o.Propagation {
		b.setAttr(boot.Int(bind.Tree), pr.Recursive, 0, 0, pr.Type)
	}
}

// remount changes the attributes of a mount that is there already.
func (b *builder) remount(dest string, o *MountOptions) error {
	_, fd := b.openOp(dest)
	if !o.Bind && (len(o.Data) > 0 || len(o.SuperFlags) > 0) {
		return fault.New(fault.Unsupported, "check", dest, "options of a file system can't be changed by remount")
	}
	b.setAttr(fd.Val(), false, o.Set, o.Clear, 0)
	b.after(fd.Val(), o)
	return nil
}

func (b *builder) openOp(dest string) (boot.Op, boot.Slot) {
	return b.openIn(b.root, rel(dest), unix.O_PATH, inRoot)
}

// cgroup shows the container its cgroups at dest.
func (b *builder) cgroup(c *Container, dest string, o *MountOptions) {
	inside := b.ns.Separate(specs.CgroupNamespace)
	if len(c.Hierarchy) == 1 && c.Hierarchy[0].V2 {
		tree := b.cgroupTree(&c.Hierarchy[0], o.Set, inside)
		b.place(tree, dest, placing{dir: true, plain: true})
		b.after(tree, o)
		return
	}
	fs, top := b.Slot(), b.Slot()
	b.Call(unix.SYS_FSOPEN, b.Str("tmpfs"), boot.Int(unix.FSOPEN_CLOEXEC)).Into(fs)
	b.Call(unix.SYS_FSCONFIG, fs.Val(), boot.Int(fsconfigSetString), b.Str("mode"), b.Str("755"), boot.Int(0))
	b.Call(unix.SYS_FSCONFIG, fs.Val(), boot.Int(fsconfigCreate), boot.Int(0), boot.Int(0), boot.Int(0))
	b.Call(unix.SYS_FSMOUNT, fs.Val(), boot.Int(unix.FSMOUNT_CLOEXEC), boot.Int(o.Set&^unix.MOUNT_ATTR_RDONLY)).Into(top)
	b.place(top.Val(), dest, placing{dir: true, plain: true})
	for i := range c.Hierarchy {
		h := &c.Hierarchy[i]
		tree := b.cgroupTree(h, o.Set, inside)
		b.freshPoint(top, h.Name, true)
		b.Call(unix.SYS_MOVE_MOUNT, tree, b.Str(""), top.Val(), b.Str(h.Name), boot.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
		if strings.Contains(h.Name, ",") {
			for alias := range strings.SplitSeq(h.Name, ",") {
				b.Call(unix.SYS_SYMLINKAT, b.Str(h.Name), top.Val(), b.Str(alias)).Ignore(unix.EEXIST)
			}
		}
	}
	if o.Set&unix.MOUNT_ATTR_RDONLY != 0 {
		b.setAttr(top.Val(), false, unix.MOUNT_ATTR_RDONLY, 0, 0)
	}
	b.after(top.Val(), o)
}

// cgroupTree returns a detached mount of one hierarchy. In a cgroup namespace
// the kernel shows the container's own part; otherwise the parent has bound it.
func (b *builder) cgroupTree(h *Hierarchy, attrs uint64, inside bool) boot.Arg {
	if !inside {
		if attrs != 0 {
			b.setAttr(boot.Int(h.Tree), false, attrs, 0, 0)
		}
		return boot.Int(h.Tree)
	}
	fs, tree := b.Slot(), b.Slot()
	typ := "cgroup"
	if h.V2 {
		typ = "cgroup2"
	}
	b.Call(unix.SYS_FSOPEN, b.Str(typ), boot.Int(unix.FSOPEN_CLOEXEC)).Into(fs)
	for _, opt := range h.Options {
		k, v, isString := strings.Cut(opt, "=")
		if isString {
			b.Call(unix.SYS_FSCONFIG, fs.Val(), boot.Int(fsconfigSetString), b.Str(k), b.Str(v), boot.Int(0))
		} else {
			b.Call(unix.SYS_FSCONFIG, fs.Val(), boot.Int(fsconfigSetFlag), b.Str(k), boot.Int(0), boot.Int(0))
		}
	}
	b.Call(unix.SYS_FSCONFIG, fs.Val(), boot.Int(fsconfigCreate), boot.Int(0), boot.Int(0), boot.Int(0))
	b.Call(unix.SYS_FSMOUNT, fs.Val(), boot.Int(unix.FSMOUNT_CLOEXEC), boot.Int(attrs)).Into(tree)
	return tree.Val()
}
