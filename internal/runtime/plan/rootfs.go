package plan

import (
	"fmt"
	"path"
	"strings"

	"berth/internal/runtime/boot"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rootfs emits everything between the new mount namespace and the new root.
func (b *builder) rootfs(c *Container) error {
	s := c.Spec
	b.propagation(s)
	b.Step("attach the root file system")
	b.Call(unix.SYS_MOVE_MOUNT, b.root, b.Str(""), boot.Int(unix.AT_FDCWD), b.Str(c.AttachAt), boot.Int(unix.MOVE_MOUNT_F_EMPTY_PATH))
	hostNull := b.hostNull(s)
	for i := range s.Mounts {
		if err := b.mount(c, i, &s.Mounts[i]); err != nil {
			return err
		}
	}
	if b.ownDev(s) {
		b.devices(c)
	}
	b.cwdExists(s.Process)
	if s.Process.Terminal {
		b.console(s.Process, true)
	}
	if c.Hooks {
		b.Step("hooks before the root changes")
		b.ask(ReqHooks, 0)
	}
	if s.Linux != nil {
		for i, p := range s.Linux.ReadonlyPaths {
			b.Step(fmt.Sprintf("linux.readonlyPaths[%d] (%s)", i, p))
			b.readonly(p)
		}
		if len(s.Linux.MaskedPaths) > 0 {
			b.mask(s.Linux.MaskedPaths, b.nullDevice(c, hostNull))
		}
	}
	if s.Root != nil && s.Root.Readonly {
		b.Step("root.readonly")
		b.setAttr(b.root, false, unix.MOUNT_ATTR_RDONLY, 0, 0)
	}
	b.changeRoot(c)
	return nil
}

// propagation cuts the copied mounts off from the host's.
func (b *builder) propagation(s *specs.Spec) {
	p := Propagation{unix.MS_SLAVE, true}
	if s.Linux != nil && s.Linux.RootfsPropagation != "" {
		p, _ = PropagationOf(s.Linux.RootfsPropagation)
	}
	b.Step("linux.rootfsPropagation")
	root, zero := b.Str("/"), boot.Int(0)
	flags := p.Type
	if p.Recursive {
		flags |= unix.MS_REC
	}
	b.Call(unix.SYS_MOUNT, zero, root, zero, boot.Int(flags), zero)
	if p.Type == unix.MS_SHARED || p.Type == unix.MS_UNBINDABLE {
		b.Call(unix.SYS_MOUNT, zero, root, zero, boot.Int(unix.MS_PRIVATE), zero) // pivot_root wants it
	}
}

// hostNull keeps a hold of the host's null device, for containers whose /dev is
// not made here.
func (b *builder) hostNull(s *specs.Spec) boot.Slot {
	null := b.Slot()
	if s.Linux != nil && len(s.Linux.MaskedPaths) > 0 && !b.madeDev(s) {
		b.Step("open the host's /dev/null")
		_, null = b.openIn(boot.Int(unix.AT_FDCWD), "/dev/null", unix.O_PATH, 0)
	}
	return null
}

// madeDev reports whether /dev is a file system that is made for the container
// alone.
func (b *builder) madeDev(s *specs.Spec) bool {
	made := false
	for i := range s.Mounts {
		if m := &s.Mounts[i]; path.Clean("/"+m.Destination) == "/dev" {
			made = m.Type == "tmpfs" && b.ownDev(s)
		}
	}
	return made
}

// nullDevice returns a null device to hide files behind, checked to be one.
func (b *builder) nullDevice(c *Container, host boot.Slot) boot.Slot {
	b.Step("open the null device")
	if dev, ok := b.fresh["/dev"]; ok && len(c.DevBinds) == 0 {
		_, host = b.openIn(dev.Val(), "null", unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
	} else if b.madeDev(c.Spec) {
		_, host = b.openIn(b.root, "dev/null", unix.O_PATH|unix.O_NOFOLLOW, inRoot|unix.RESOLVE_NO_SYMLINKS)
	}
	b.isNull(host)
	return host
}

// isNull fails with ENODEV unless fd is the null device.
func (b *builder) isNull(fd boot.Slot) {
	b.statx(fd)
	b.Test(b.scratch.Plus(24), 0xf000<<32, unix.S_IFCHR<<32, unix.ENODEV)
	b.Test(b.scratch.Plus(128), ^uint64(0), 1|3<<32, unix.ENODEV)
}

// statx reads type and device number of fd into the scratch space: the mode is
// at 28, the device's major and minor number at 128 and 132.
func (b *builder) statx(fd boot.Slot) {
	b.Call(unix.SYS_STATX, fd.Val(), b.Str(""), boot.Int(unix.AT_EMPTY_PATH), boot.Int(unix.STATX_TYPE), b.scratch)
}

// readonly makes a path read-only with everything mounted below it. A path
// that is not there needs no protection.
func (b *builder) readonly(p string) {
	skip := b.Label()
	op, fd := b.openIn(b.root, rel(p), unix.O_PATH, inRoot)
	op.OnErr(skip, unix.ENOENT, unix.ENOTDIR)
	tree := b.Slot()
	const flags = unix.OPEN_TREE_CLONE | unix.AT_RECURSIVE | unix.AT_EMPTY_PATH | unix.OPEN_TREE_CLOEXEC
	b.Call(unix.SYS_OPEN_TREE, fd.Val(), b.Str(""), boot.Int(flags)).Into(tree)
	b.setAttr(tree.Val(), true, unix.MOUNT_ATTR_RDONLY, 0, 0)
	b.attach(tree.Val(), fd.Val())
	b.Bind(skip)
}

// mask hides paths: a file behind the null device, a directory behind an empty
// file system. What is there afterwards is checked, because the names may be
// fought over by another container that shares them.
func (b *builder) mask(paths []string, null boot.Slot) {
	const clone = unix.OPEN_TREE_CLONE | unix.AT_EMPTY_PATH | unix.OPEN_TREE_CLOEXEC
	empty := b.Slot() // an attached empty file system, 0 before the first
	for i, p := range paths {
		b.Step(fmt.Sprintf("linux.maskedPaths[%d] (%s)", i, p))
		done, isDir, first, have := b.Label(), b.Label(), b.Label(), b.Label()
		op, fd := b.openIn(b.root, rel(p), unix.O_PATH, inRoot)
		op.OnErr(done, unix.ENOENT, unix.ENOTDIR)
		tree := b.Slot()
		b.Call(unix.SYS_OPEN_TREE, null.Val(), b.Str(""), boot.Int(clone)).Into(tree)
		b.attach(tree.Val(), fd.Val()).OnErr(isDir, unix.EINVAL, unix.ENOTDIR)
		_, check := b.openIn(b.root, rel(p), unix.O_PATH, inRoot)
		b.isNull(check)
		b.Goto(done)

		b.Bind(isDir)
		b.Test(empty.Addr(), ^uint64(0), 0, 0).Then(first).OnErr(have)
		b.Bind(have)
		b.Call(unix.SYS_OPEN_TREE, empty.Val(), b.Str(""), boot.Int(clone)).Into(tree)
		b.attach(tree.Val(), fd.Val())
		b.isEmpty(p)
		b.Goto(done)
		b.Bind(first)
		b.emptyFS(empty)
		b.attach(empty.Val(), fd.Val())
		b.isEmpty(p)
		b.Bind(done)
	}
}

// emptyFS makes a read-only file system with nothing in it.
func (b *builder) emptyFS(tree boot.Slot) {
	fs := b.Slot()
	b.Call(unix.SYS_FSOPEN, b.Str("tmpfs"), boot.Int(unix.FSOPEN_CLOEXEC)).Into(fs)
	for _, kv := range [...][2]string{{"nr_blocks", "1"}, {"nr_inodes", "1"}} {
		b.Call(unix.SYS_FSCONFIG, fs.Val(), boot.Int(fsconfigSetString), b.Str(kv[0]), b.Str(kv[1]), boot.Int(0))
	}
	b.Call(unix.SYS_FSCONFIG, fs.Val(), boot.Int(fsconfigCreate), boot.Int(0), boot.Int(0), boot.Int(0))
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	b.Call(unix.SYS_FSMOUNT, fs.Val(), boot.Int(unix.FSMOUNT_CLOEXEC), boot.Int(attrs)).Into(tree)
}

// isEmpty checks that a masked directory shows the empty file system.
func (b *builder) isEmpty(p string) {
	_, check := b.openIn(b.root, rel(p), unix.O_PATH, inRoot)
	b.Call(unix.SYS_FSTATFS, check.Val(), b.scratch)
	b.Test(b.scratch, ^uint64(0), unix.TMPFS_MAGIC, unix.ENODEV)
}

// cwdExists makes the working directory if the image lacks it.
func (b *builder) cwdExists(p *specs.Process) {
	if cwd := path.Clean(p.Cwd); cwd != "/" {
		b.Step("process.cwd (" + cwd + ")")
		done, missing := b.Label(), b.Label()
		op, _ := b.openIn(b.root, rel(cwd), unix.O_PATH, inRoot)
		op.Then(done).OnErr(missing, unix.ENOENT)
		// Whatever else is wrong with it is told when it is entered.
		b.lastIgnore(op, missing, done)
		b.Bind(missing)
		b.targets = append(b.targets, Target{Path: cwd, Dir: true, Mode: 0o755})
		b.ask(ReqTarget, len(b.targets)-1)
		b.Bind(done)
	}
}

// lastIgnore sends ENOENT to one place and every other error to another.
func (b *builder) lastIgnore(op boot.Op, missing, done *boot.Label) {
	test := b.Label()
	errno := b.Slot()
	op.Into(errno).OnErr(test)
	b.Bind(test)
	enoent := -int64(unix.ENOENT)
	b.Test(errno.Addr(), ^uint64(0), uint64(enoent), 0).Then(missing).OnErr(done)
}

// changeRoot makes the container's root "/" and drops the host's tree.
func (b *builder) changeRoot(c *Container) {
	b.Step("change root")
	dot := b.Str(".")
	old := b.Slot()
	b.Call(unix.SYS_OPENAT, boot.Int(unix.AT_FDCWD), b.Str("/"), boot.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).Into(old)
	b.Call(unix.SYS_FCHDIR, b.root)
	zero := boot.Int(0)
	if c.NoPivot {
		if c.AttachAt != "/" {
			b.Call(unix.SYS_MOUNT, dot, b.Str("/"), zero, boot.Int(unix.MS_MOVE), zero)
		}
		b.Call(unix.SYS_CHROOT, dot)
	} else {
		b.Call(unix.SYS_PIVOT_ROOT, dot, dot)
		b.Call(unix.SYS_FCHDIR, old.Val())
		// Unmounting must not propagate to the host.
		b.Call(unix.SYS_MOUNT, zero, dot, zero, boot.Int(unix.MS_SLAVE|unix.MS_REC), zero)
		b.Call(unix.SYS_UMOUNT2, dot, boot.Int(unix.MNT_DETACH))
	}
	b.Call(unix.SYS_CHDIR, b.Str("/"))
	if l := c.Spec.Linux; l != nil && l.RootfsPropagation != "" {
		p, _ := PropagationOf(l.RootfsPropagation)
		b.setAttr(b.root, p.Recursive, 0, 0, p.Type)
	}
}

// sysctl writes kernel parameters through the real procfs.
func (b *builder) sysctl(s *specs.Spec) {
	if s.Linux == nil {
		return
	}
	for key, value := range s.Linux.Sysctl {
		b.Step("linux.sysctl[" + key + "]")
		file := key
		if !strings.Contains(key, "/") {
			file = strings.ReplaceAll(key, ".", "/")
		}
		b.writeProc("sys/"+file, value)
	}
}
