package runtime

import (
	"context"
	"errors"
	"os"

	"berth/internal/fault"
	"berth/internal/runtime/boot"
	"berth/internal/runtime/cgroup"
	"berth/internal/runtime/config"
	"berth/internal/runtime/plan"
	"berth/internal/runtime/seccomp"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// execution is one further process on its way into a container.
type execution struct {
	resources
	c      *Container
	opts   *ExecOptions
	input  plan.Exec
	entry  *cgroup.Entry
	target *os.File
	spec   *specs.Spec
}

// Exec runs a further process in the container. It returns once its execve
// succeeded; a failing executable is an *ExecError.
func (c *Container) Exec(ctx context.Context, opts ExecOptions) (*Process, error) {
	e := &execution{c: c, opts: &opts}
	if n := opts.PreserveFDs + len(opts.ExtraFiles); n > 0 {
		e.base = 3 + n
	}
	defer func() {
		e.close()
		if e.entry != nil {
			e.entry.Close()
		}
		if e.target != nil {
			e.target.Close()
		}
	}()
	if err := e.check(); err != nil {
		return nil, err
	}
	if err := e.prepare(); err != nil {
		return nil, err
	}
	return e.run(ctx)
}

// check refuses what can't work.
func (e *execution) check() error {
	c := e.c
	if e.opts.Process == nil {
		return fault.New(fault.Invalid, "exec in", c.id, "no process is given")
	}
	switch s := c.status(); {
	case s == specs.StateStopped:
		return fault.New(fault.Conflict, "exec in", c.id, "cannot exec in a stopped container")
	case s == statusPaused && !e.opts.IgnorePaused:
		return fault.New(fault.Conflict, "exec in", c.id, "cannot exec in a paused container").WithHint("resume it first")
	}
	if err := config.Process(e.opts.Process); err != nil {
		return err
	}
	if err := checkModules(&specs.Spec{Process: e.opts.Process}); err != nil {
		return err
	}
	if e.spec = c.Spec(); e.spec == nil {
		return fault.New(fault.Internal, "exec in", c.id, "its configuration can't be read")
	}
	fd, err := c.Init.open()
	if err != nil {
		return fault.New(fault.Conflict, "exec in", c.id, "cannot exec in a stopped container")
	}
	e.target = os.NewFile(uintptr(fd), "pidfd")
	return nil
}

func (e *execution) prepare() error {
	in, opts := &e.input, e.opts
	userNS := e.c.st.Namespaces&unix.CLONE_NEWUSER != 0
	p, err := e.process(opts.Process, opts.Stdio, opts.PreserveFDs, opts.ExtraFiles, userNS)
	if err != nil {
		return err
	}
	if in.Proc, err = e.openProc(); err != nil {
		return err
	}
	root, err := rootOf(e.c.Init.PID)
	if err == nil {
		e.keep(root)
		p.Env = withHome(opts.Process, root)
	} else {
		p.Env = withHome(opts.Process, -1)
	}
	if l := e.spec.Linux; l != nil && l.Seccomp != nil {
		if p.Filter, err = seccomp.Cached(l.Seccomp); err != nil {
			return err
		}
	}
	p.Keyring = "_ses." + e.c.id
	if a := opts.Process.ExecCPUAffinity; a != nil {
		in.Initial = a.Initial
	}
	in.Process, in.Target, in.Flags = *p, int(e.target.Fd()), e.c.st.Namespaces
	in.Started = userNS
	return e.joinCgroup()
}

// joinCgroup opens the cgroup that the process goes to.
func (e *execution) joinCgroup() error {
	cg := e.c.cg
	var err error
	if e.opts.Cgroup != "" {
		if cg, err = cg.Sub(e.opts.Cgroup); err != nil {
			return err
		}
		if !cg.Exists() {
			return fault.New(fault.NotFound, "exec in", e.c.id, "it has no cgroup %s", e.opts.Cgroup)
		}
	}
	if e.entry, err = cg.Enter(e.base); err != nil {
		return err
	}
	e.input.Tasks, e.input.Cgroup = e.entry.Tasks, plan.None
	return nil
}

func (e *execution) run(ctx context.Context) (*Process, error) {
	s, err := newSession(&e.resources)
	if err != nil {
		return nil, err
	}
	defer s.close()
	e.input.Sync = s.child[0]
	second := e.input.Flags&unix.CLONE_NEWPID != 0
	l := boot.Launch{CgroupFD: e.entry.Unified, Name: "berth-init"}
	if second {
		e.input.Cgroup, l.CgroupFD = e.entry.Unified, -1
	}
	prog, err := plan.BuildExec(&e.input)
	if err != nil {
		return nil, err
	}
	l.Inherit = prog.Inherit
	if err := s.start(&l, prog, e.opts.CloneParent); err != nil {
		return nil, fault.Wrap("exec in", e.c.id, err)
	}
	stop := context.AfterFunc(ctx, s.kill)
	defer stop()
	if second {
		err = s.follow()
	}
	var start uint64
	if err == nil {
		_, start, err = procStat(s.pid)
	}
	if err == nil {
		err = writePidFile(e.opts.PidFile, s.pid)
	}
	if err == nil {
		err = s.serve(func(req request) error { return e.answer(s, req) })
	}
	if err != nil {
		err = e.explain(s, err)
		s.kill()
		s.reap()
		if ctx.Err() != nil {
			err = fault.New(fault.Canceled, "exec in", e.c.id, "%w", context.Cause(ctx))
		}
		return nil, err
	}
	p := &Process{PID: s.pid, StartTime: start, PidFD: s.take(nil), Console: s.console}
	s.console = nil
	return p, nil
}

func (e *execution) answer(s *session, req request) error {
	switch req.kind {
	case plan.ReqStarted:
		return setLimits(e.input.Proc, s.pid, e.opts.Process)
	case plan.ReqConsole:
		return s.takeConsole(req.fd, e.opts.ConsoleSocket)
	case plan.ReqListener:
		return e.c.passListener(s, int(req.number), e.spec)
	}
	return fault.New(fault.Internal, "exec in", e.c.id, "unknown request %d", req.kind)
}

func (e *execution) explain(s *session, err error) error {
	var step *stepError
	if !errors.As(err, &step) {
		return fault.Wrap("exec in", e.c.id, err)
	}
	if step.step == plan.StepExec {
		root, rerr := rootOf(e.c.Init.PID)
		if rerr == nil {
			defer unix.Close(root)
		}
		return diagnose(root, e.opts.Process, step.err)
	}
	return stepFault("exec in", e.c.id, step)
}
