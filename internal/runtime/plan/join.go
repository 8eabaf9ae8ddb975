package plan

import (
	"berth/internal/runtime/boot"

	"golang.org/x/sys/unix"
)

// Exec is what the program for a further process in a container is made from.
type Exec struct {
	Process Process
	Target  int    // pidfd of the container's init
	Flags   uint64 // CLONE_NEW* of the namespaces to enter
	Proc    int
	Sync    int
	Tasks   []int
	Cgroup  int
	Started bool
	Initial string // processors before the cgroup is joined
}

// BuildExec makes the program that enters a container and executes a process
// there. It has one thread, so even a user namespace can be entered.
func BuildExec(e *Exec) (*Program, error) {
	b := newBuilder(e.Sync, e.Proc)
	b.Step("start init")
	b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_SET_NAME), b.Str("berth-init"))
	b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_SET_DUMPABLE), boot.Int(0))
	b.affinity("initial", e.Initial)
	b.enter(e.Target, e.Flags, e.Cgroup)
	if e.Started {
		b.Step("wait for the runtime")
		b.ask(ReqStarted, 0)
	}
	if e.Process.UserNS {
		b.becomeRoot()
	}
	b.joinCgroup(e.Tasks)
	b.Step("start session")
	b.Call(unix.SYS_SETSID).Ignore(unix.EPERM)
	if e.Process.Spec.Terminal {
		b.Step("open the root")
		root := b.Slot()
		b.Call(unix.SYS_OPENAT, boot.Int(unix.AT_FDCWD), b.Str("/"), boot.Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)).Into(root)
		b.root = root.Val()
		b.console(e.Process.Spec, false)
	}
	if a := e.Process.Spec.ExecCPUAffinity; a != nil {
		b.affinity("final", a.Final)
	}
	f := &finish{fence: None, report: None, ready: None}
	if err := b.process(&e.Process, f); err != nil {
		return nil, err
	}
	inherit := append([]int{e.Target, e.Proc, e.Sync, e.Cgroup}, e.Tasks...)
	return b.done(append(inherit, e.Process.inherit()...), f), nil
}

// enter joins the namespaces of a process. A pid namespace holds only children
// of whoever entered it, hence the second clone.
func (b *builder) enter(pidfd int, flags uint64, cgroup int) {
	join := []Join{{pidfd, int(flags), "namespaces of the container"}}
	switch {
	case flags&unix.CLONE_NEWPID != 0:
		b.secondClone(join, 0, cgroup)
	case flags != 0:
		b.join(join)
	}
	b.Step("enter the root")
	b.Call(unix.SYS_CHDIR, b.Str("/"))
}

// Hook is what the program for a hook in the container's namespaces is made
// from.
type Hook struct {
	Target    int
	Flags     uint64
	Proc      int
	Sync      int
	Path      string
	Args, Env []string
	Stdio     [3]int
}

// BuildHook makes the program that enters a container with all privileges and
// executes a hook there.
func BuildHook(h *Hook) *Program {
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	b := newBuilder(h.Sync, h.Proc)
	b.Step("start hook")
	b.Call(unix.SYS_PRCTL, boot.Int(unix.PR_SET_DUMPABLE), boot.Int(0))
	b.enter(h.Target, h.Flags, None)
	if h.Flags&unix.CLONE_NEWUSER != 0 {
		b.becomeRoot()
	}
	for i, fd := range h.Stdio {
		b.Call(unix.SYS_DUP3, boot.Int(fd), boot.Int(i), boot.Int(0))
	}
	b.Call(unix.SYS_CLOSE_RANGE, boot.Int(3), boot.Int(^uint32(0)), boot.Int(unix.CLOSE_RANGE_CLOEXEC))
	b.Call(unix.SYS_RT_SIGPROCMASK, boot.Int(2), b.Words(boot.Int(0)), boot.Int(0), boot.Int(8))
	b.Call(unix.SYS_EXECVE, b.Str(h.Path), b.Strs(args), b.Strs(h.Env))
	return b.done([]int{h.Target, h.Proc, h.Sync, h.Stdio[0], h.Stdio[1], h.Stdio[2]}, &finish{})
}

// Sleeper returns the image of a process that waits to be killed.
func Sleeper() (*boot.Image, error) {
	p := boot.New()
	forever := p.Label()
	p.OnFail(forever)
	p.Bind(forever)
	p.Call(unix.SYS_PPOLL, boot.Int(0), boot.Int(0), boot.Int(0), boot.Int(0)).Then(forever).OnErr(forever)
	return p.Image()
}
