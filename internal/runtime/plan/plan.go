// Package plan translates a runtime specification into the program of system
// calls that the init of a container executes. It exists to keep one place in
// which the order of a container's creation can be read: what is opened by whom,
// what is verified, and when privileges are given up.
//
// Rules that the programs follow:
//   - a path inside the root file system is resolved by openat2 with
//     RESOLVE_IN_ROOT and used through the descriptor that came back;
//   - what is written below /proc is opened below a descriptor of a real procfs
//     without crossing a mount;
//   - descriptors of the host are close-on-exec before the user's program runs;
//   - the working directory is opened without following magic links.
package plan

import (
	"berth/internal/runtime/boot"
	"berth/internal/runtime/config"
	"berth/internal/runtime/seccomp"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// None stands for a descriptor that is not there.
const None = -1

// Join is a namespace to enter.
type Join struct {
	FD    int
	Type  int    // CLONE_NEW*; several together when FD is a pidfd
	Field string // of the specification
}

// Target is a mount point, or another path in the root, that the init may find
// missing and ask the parent for.
type Target struct {
	Path string // absolute inside the root
	Dir  bool
	Mode uint32
}

// Process holds what the user's process gets, be it the container's first or a
// later one.
type Process struct {
	Spec     *specs.Process
	Env      []string // complete, with HOME
	Filter   *seccomp.Filter
	Stdio    [3]int // descriptors in the parent, None: /dev/null
	Chown    [3]bool
	Null     int // the host's /dev/null
	Preserve int // descriptors 3.. that stay
	Extra    []int
	Keyring  string // name of a new session keyring, "" for none
	UserNS   bool   // limits and scores are set by the parent
	Caps     uint64 // what the process could have at most
	Blocked  bool   // the program starts with all signals blocked
	Labels   Labels
}

// Labels says which security modules the host has.
type Labels struct {
	AppArmor string // attribute file for the next program, below /proc/self; "" without the module
	SELinux  bool
}

// Container is what the program for a new container is made from.
type Container struct {
	Spec    *specs.Spec
	Process Process

	Root     int    // detached mount of the root
	AttachAt string // where to attach the root before it becomes "/"; without a
	// mount namespace of its own, the directory that becomes the root
	Proc      int   // a real procfs
	Sync      int   // seqpacket socket to the parent
	Go        int   // pipe: a byte says that the state is on disk
	Fence     int   // fifo of a container that is created and not started, or None
	Report    int   // file for failures behind the fence
	Tasks     []int // v1 cgroup files to join
	Cgroup    int   // v2 cgroup directory, for a second clone, or None
	Binds     map[int]Bind
	DevBinds  map[string]int // trees of device nodes, where mknod is impossible
	Hierarchy []Hierarchy    // for cgroup mounts
	Joins     []Join         // entered in this order after the clone
	Second    bool           // clone a second time
	First     []Join         // entered before the second clone
	Clone     uint64         // CLONE_NEW* of the second clone
	Hooks     bool           // stop for hooks before the root changes
	// StartHooks stops once more before the user's program, if there is no fence.
	StartHooks bool
	NoPivot    bool
	Label      string // SELinux label of mounts
	Started    bool   // the parent acts on the process before it goes on
}

// Hierarchy is one cgroup tree as the container sees it.
type Hierarchy struct {
	Name    string   // of the directory
	Options []string // of the mount, in a cgroup namespace of its own
	Tree    int      // detached bind of the container's own cgroup otherwise
	V2      bool
}

// Bind is a prepared bind mount.
type Bind struct {
	Tree int
	Dir  bool
	Proc bool // the source is a procfs
}

// builder holds what the parts of a program share.
type builder struct {
	*boot.Program
	sync    int
	proc    int
	root    boot.Arg
	scratch boot.Arg // 256 bytes
	reply   boot.Arg
	answer  boot.Slot
	targets []Target
	ns      config.Namespaces
	fresh   map[string]boot.Slot // destinations of file systems nobody else has seen
	fail    *boot.Label
	second  int
}

// Program is a finished program with what the parent needs to serve it.
type Program struct {
	*boot.Program
	Targets []Target
	Inherit []int // descriptors to hand down
	late    int   // index of the first operation behind the fence, 0 without one
	second  int   // index of the first operation of the second process, 0 without one
}

// Second reports whether the operation at an address is executed by the process
// of the second clone.
func (p *Program) Second(addr uint64) bool {
	return p.second > 0 && addr >= p.Addr(p.second)
}

// Late is a step behind the fence: operations at Addr and above belong to it,
// up to the next.
type Late struct {
	Addr uint64 `json:"addr"`
	Step string `json:"step"`
}

// Late lists the steps behind the fence. Their addresses are known once the
// image is made.
func (p *Program) Late() []Late {
	if p.late == 0 {
		return nil
	}
	var out []Late
	p.Steps(p.late, func(addr uint64, step string) { out = append(out, Late{addr, step}) })
	return out
}

func newBuilder(sync, proc int) *builder {
	b := &builder{Program: boot.New(), sync: sync, proc: proc, fresh: map[string]boot.Slot{}}
	b.scratch = b.Scratch(256)
	b.reply = b.Scratch(8)
	b.answer = b.Slot()
	b.fail = b.Label()
	b.OnFail(b.fail)
	return b
}

// Build makes the program of a new container.
func Build(c *Container) (*Program, error) {
	b := newBuilder(c.Sync, c.Proc)
	b.ns = config.NamespacesOf(c.Spec)
	b.root = boot.Int(c.Root)
	b.Step("start init")
	b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_SET_NAME), b.Str("berth-init"))
	b.Call(unix.SYS_UMASK, boot.Int(0))
	if c.Second {
		b.secondClone(c.First, c.Clone, c.Cgroup)
	}
	if c.Started {
		b.Step("wait for the runtime")
		b.ask(ReqStarted, 0)
	}
	if c.Process.UserNS {
		b.becomeRoot()
	}
	b.joinCgroup(c.Tasks)
	b.join(c.Joins)
	b.unshareRest(c.Spec)
	b.Step("start session")
	b.Call(unix.SYS_SETSID).Ignore(unix.EPERM)
	b.names(c.Spec)
	if b.ns.New(specs.MountNamespace) {
		if err := b.rootfs(c); err != nil {
			return nil, err
		}
	} else {
		b.enterRoot(c)
	}
	b.sysctl(c.Spec)
	finish := &finish{fence: c.Fence, report: c.Report, ready: c.Go, hooks: c.StartHooks}
	if err := b.memoryPolicy(c.Spec); err != nil {
		return nil, err
	}
	if err := b.process(&c.Process, finish); err != nil {
		return nil, err
	}
	return b.done(c.inherit(), finish), nil
}

// inherit lists the descriptors that the init needs.
func (c *Container) inherit() []int {
	l := []int{c.Root, c.Proc, c.Sync, c.Go, c.Fence, c.Report, c.Cgroup}
	l = append(l, c.Tasks...)
	for _, bind := range c.Binds {
		l = append(l, bind.Tree)
	}
	for _, fd := range c.DevBinds {
		l = append(l, fd)
	}
	for _, h := range c.Hierarchy {
		l = append(l, h.Tree)
	}
	for _, j := range c.First {
		l = append(l, j.FD)
	}
	for _, j := range c.Joins {
		l = append(l, j.FD)
	}
	return append(l, c.Process.inherit()...)
}

func (p *Process) inherit() []int {
	l := append([]int{p.Null}, p.Stdio[:]...)
	for i := range p.Preserve {
		l = append(l, 3+i)
	}
	return append(l, p.Extra...)
}

// done appends the failure handlers.
func (b *builder) done(inherit []int, f *finish) *Program {
	b.failures(f)
	keep := inherit[:0]
	seen := map[int]bool{}
	for _, fd := range inherit {
		if fd >= 0 && !seen[fd] {
			seen[fd] = true
			keep = append(keep, fd)
		}
	}
	return &Program{Program: b.Program, Targets: b.targets, Inherit: keep, late: f.lateOp, second: b.second}
}

// becomeRoot takes the ids of the user namespace's root.
func (b *builder) becomeRoot() {
	b.Step("become root of the user namespace")
	b.Call(unix.SYS_SETRESGID, boot.Int(0), boot.Int(0), boot.Int(0))
	b.Call(unix.SYS_SETRESUID, boot.Int(0), boot.Int(0), boot.Int(0))
	b.Call(unix.SYS_SETGROUPS, boot.Int(0), boot.Int(0)).Ignore(unix.EPERM)
}

// joinCgroup enters the v1 cgroups. The process moves itself and has one
// thread, so no lock over all processes of the machine is taken.
func (b *builder) joinCgroup(tasks []int) {
	b.Step("join cgroup")
	for _, fd := range tasks {
		b.Call(unix.SYS_WRITE, boot.Int(fd), b.Str("0"), boot.Int(1))
	}
}

func (b *builder) join(joins []Join) {
	for _, j := range joins {
		b.Step(j.Field + ": join")
		b.Call(unix.SYS_SETNS, boot.Int(j.FD), boot.Int(j.Type))
	}
}

// secondClone enters namespaces whose members are only children (pid), or which
// must own those that follow (user), clones once more and leaves the work to
// the child, which has the same parent as this process.
func (b *builder) secondClone(first []Join, flags uint64, cgroup int) {
	b.Step("protect init")
	b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_SET_DUMPABLE), boot.Int(0))
	b.join(first)
	b.Step("clone into namespaces")
	pidfd, pid := b.Slot(), b.Slot()
	flags |= unix.CLONE_PARENT | unix.CLONE_PIDFD
	cg := boot.Int(0)
	if cgroup != None {
		flags |= unix.CLONE_INTO_CGROUP
		cg = boot.Int(cgroup)
	}
	zero := boot.Int(0)
	args := b.Words(boot.Int(flags), pidfd.Addr(), zero, zero, zero, zero, zero, zero, zero, zero, cg)
	child := b.Label()
	b.Call(unix.SYS_CLONE3, args, boot.Int(88)).Into(pid)
	b.Test(pid.Addr(), ^uint64(0), 0, 0).Then(child).OnErr(b.here(1))
	b.sendFD(ReqForked, pid.Val(), pidfd.Val())
	b.Call(unix.SYS_EXIT_GROUP, boot.Int(0))
	b.Bind(child)
	b.second = b.Len()
}

// here returns a label d operations behind the one appended last.
func (b *builder) here(d int) *boot.Label {
	l := b.Label()
	b.BindAt(l, b.Len()-1+d)
	return l
}

// unshareRest makes the namespaces that clone can't make right: a cgroup
// namespace starts at the cgroup one is in already, and the clocks of a time
// namespace are set before anyone is in it.
func (b *builder) unshareRest(s *specs.Spec) {
	if b.ns.New(specs.CgroupNamespace) {
		b.Step("linux.namespaces: new cgroup namespace")
		b.Call(unix.SYS_UNSHARE, boot.Int(unix.CLONE_NEWCGROUP))
	}
	if !b.ns.New(specs.TimeNamespace) {
		return
	}
	b.Step("linux.namespaces: new time namespace")
	b.Call(unix.SYS_UNSHARE, boot.Int(unix.CLONE_NEWTIME))
	for _, clock := range [...]struct {
		name string
		id   string
	}{{"monotonic", "1"}, {"boottime", "7"}} {
		if o, ok := s.Linux.TimeOffsets[clock.name]; ok {
			b.Step("linux.timeOffsets[" + clock.name + "]")
			b.writeProc("self/timens_offsets", timeOffset(clock.id, o))
		}
	}
	b.Step("linux.namespaces: enter time namespace")
	fd := b.openProc("self/ns/time_for_children", unix.O_RDONLY, 0)
	b.Call(unix.SYS_SETNS, fd.Val(), boot.Int(unix.CLONE_NEWTIME))
}

// names sets host and domain name and brings a new loopback device up.
func (b *builder) names(s *specs.Spec) {
	if s.Hostname != "" {
		b.Step("hostname")
		b.Call(unix.SYS_SETHOSTNAME, b.Str(s.Hostname), boot.Int(len(s.Hostname)))
	}
	if s.Domainname != "" {
		b.Step("domainname")
		b.Call(unix.SYS_SETDOMAINNAME, b.Str(s.Domainname), boot.Int(len(s.Domainname)))
	}
	if b.ns.New(specs.NetworkNamespace) {
		b.Step("bring up loopback")
		sock := b.Slot()
		ifreq := make([]byte, 40)
		copy(ifreq, "lo")
		ifreq[16] = unix.IFF_UP
		b.Call(unix.SYS_SOCKET, boot.Int(unix.AF_INET), boot.Int(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), boot.Int(0)).Into(sock)
		b.Call(unix.SYS_IOCTL, sock.Val(), boot.Int(unix.SIOCSIFFLAGS), b.Bytes(ifreq))
	}
}

// enterRoot changes into the root of a container that shares its mount
// namespace with somebody, where no mount is made.
func (b *builder) enterRoot(c *Container) {
	if c.Hooks {
		b.Step("hooks before the root changes")
		b.ask(ReqHooks, 0)
	}
	b.Step("root.path")
	b.Call(unix.SYS_CHDIR, b.Str(c.AttachAt))
	b.Call(unix.SYS_CHROOT, b.Str("."))
}
