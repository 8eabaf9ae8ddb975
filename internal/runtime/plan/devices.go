package plan

import (
	"fmt"
	"path"
	"strings"

	"berth/internal/runtime/boot"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// node is a device node to make.
type node struct {
	path, field  string
	mode         uint32 // with type
	major, minor int64
	uid, gid     uint32
}

var basicNodes = [...]node{
	{path: "/dev/null", mode: unix.S_IFCHR | 0o666, major: 1, minor: 3},
	{path: "/dev/zero", mode: unix.S_IFCHR | 0o666, major: 1, minor: 5},
	{path: "/dev/full", mode: unix.S_IFCHR | 0o666, major: 1, minor: 7},
	{path: "/dev/random", mode: unix.S_IFCHR | 0o666, major: 1, minor: 8},
	{path: "/dev/urandom", mode: unix.S_IFCHR | 0o666, major: 1, minor: 9},
	{path: "/dev/tty", mode: unix.S_IFCHR | 0o666, major: 5, minor: 0},
}

// ownDev reports whether the runtime fills /dev. What somebody binds there is
// theirs.
func (b *builder) ownDev(s *specs.Spec) bool {
	for i := range s.Mounts {
		if path.Clean("/"+s.Mounts[i].Destination) == "/dev" {
			o := ParseMountOptions(s.Mounts[i].Options)
			if o.Bind || s.Mounts[i].Type == "bind" {
				return false
			}
		}
	}
	return true
}

// Nodes lists the device nodes of a container: those that every program
// expects, and those of the specification, which come first at a shared path.
func nodes(s *specs.Spec) []node {
	var l []node
	named := map[string]bool{}
	if s.Linux != nil {
		for i, d := range s.Linux.Devices {
			n := node{path: path.Clean(d.Path), field: fmt.Sprintf("linux.devices[%d]", i), mode: 0o666, major: d.Major, minor: d.Minor}
			if d.FileMode != nil {
				n.mode = uint32(*d.FileMode) & 0o7777
			}
			switch d.Type {
			case "b":
				n.mode |= unix.S_IFBLK
			case "p":
				n.mode |= unix.S_IFIFO
			default:
				n.mode |= unix.S_IFCHR
			}
			if d.UID != nil {
				n.uid = *d.UID
			}
			if d.GID != nil {
				n.gid = *d.GID
			}
			named[n.path] = true
			l = append(l, n)
		}
	}
	for _, n := range basicNodes {
		if !named[n.path] {
			n.field = "device " + n.path
			l = append(l, n)
		}
	}
	return l
}

// DevicePaths lists where device nodes are made, for those who must bind them
// from the host instead.
func DevicePaths(s *specs.Spec) []string {
	var out []string
	for _, n := range nodes(s) {
		if n.mode&unix.S_IFMT != unix.S_IFIFO {
			out = append(out, n.path)
		}
	}
	return out
}

// devices fills /dev.
func (b *builder) devices(c *Container) {
	b.Step("open /dev")
	dev, fresh := b.fresh["/dev"]
	if !fresh {
		dev = b.target("/dev", true, inRoot, 0o755)
		b.notProc(dev)
	}
	for _, n := range nodes(c.Spec) {
		b.Step(n.field)
		b.node(c, n, dev, fresh)
	}
	b.Step("links in /dev")
	for _, l := range [...][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"},
		{"/proc/kcore", "core"},
	} {
		b.Call(unix.SYS_SYMLINKAT, b.Str(l[0]), dev.Val(), b.Str(l[1])).Ignore(unix.EEXIST, unix.EROFS)
	}
	if !fresh {
		b.Call(unix.SYS_UNLINKAT, dev.Val(), b.Str("ptmx"), boot.Int(0)).Ignore(unix.ENOENT, unix.EROFS, unix.EBUSY)
	}
	b.Call(unix.SYS_SYMLINKAT, b.Str("pts/ptmx"), dev.Val(), b.Str("ptmx")).Ignore(unix.EEXIST, unix.EROFS)
}

// node makes one device node below /dev, or anywhere else in the root.
func (b *builder) node(c *Container, n node, dev boot.Slot, fresh bool) {
	dir, name := dev, path.Base(n.path)
	parent := path.Dir(n.path)
	switch {
	case parent == "/dev":
	case fresh && strings.HasPrefix(parent, "/dev/"):
		dir = b.Slot()
		made := ""
		for part := range strings.SplitSeq(strings.TrimPrefix(parent, "/dev/"), "/") {
			made = path.Join(made, part)
			b.Call(unix.SYS_MKDIRAT, dev.Val(), b.Str(made), boot.Int(0o755)).Ignore(unix.EEXIST)
		}
		// Another mount may have been made there meanwhile, so even here the
		// way is resolved below the root.
		b.Call(unix.SYS_OPENAT2, b.root, b.Str(rel(parent)), b.how(unix.O_PATH|unix.O_DIRECTORY, 0, inRoot), boot.Int(24)).Into(dir)
	default:
		dir = b.target(parent, true, inRoot, 0o755)
		b.notProc(dir)
	}
	if tree, ok := c.DevBinds[n.path]; ok {
		b.freshPoint(dir, name, false)
		_, point := b.openIn(dir.Val(), name, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		b.attach(boot.Int(tree), point.Val())
		return
	}
	exists := b.Label()
	b.Call(unix.SYS_MKNODAT, dir.Val(), b.Str(name), boot.Int(n.mode), boot.Int(unix.Mkdev(uint32(n.major), uint32(n.minor)))).OnErr(exists, unix.EEXIST)
	if n.uid != 0 || n.gid != 0 {
		b.Call(unix.SYS_FCHOWNAT, dir.Val(), b.Str(name), boot.Int(n.uid), boot.Int(n.gid), boot.Int(unix.AT_SYMLINK_NOFOLLOW))
	}
	b.Bind(exists)
}
