package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"berth/internal/fault"
	"berth/internal/runtime/boot"
	"berth/internal/runtime/plan"
	"berth/internal/runtime/smallfile"

	"golang.org/x/sys/unix"
)

// program compiles the init's program.
func (k *creation) program() (*plan.Program, error) {
	in := &k.input
	// A process that enters a pid namespace is not in it, only its children
	// are; and what is made in a user namespace is made after entering it.
	// The root of a new user namespace would lose its capabilities by the exec
	// of the init, for its ids are not mapped at that time.
	second := k.made&unix.CLONE_NEWUSER != 0
	for _, j := range in.Joins {
		second = second || j.Type == unix.CLONE_NEWPID || j.Type == unix.CLONE_NEWUSER
	}
	if second {
		in.Second, in.First, in.Joins = true, in.Joins, nil
		in.Clone, in.Cgroup = k.made, k.entry.Unified
	}
	prog, err := plan.Build(in)
	if err != nil {
		return nil, err
	}
	for _, l := range prog.Late() {
		k.c.st.Steps = append(k.c.st.Steps, lateStep(l))
	}
	return prog, nil
}

// launch starts the init.
func (k *creation) launch() (*session, error) {
	s, err := newSession(&k.resources)
	if err != nil {
		return nil, err
	}
	k.input.Sync, k.input.Go = s.child[0], s.child[1]
	prog, err := k.program()
	if err != nil {
		s.close()
		return nil, err
	}
	l := boot.Launch{Flags: k.made, CgroupFD: k.entry.Unified, Inherit: prog.Inherit, Name: "berth-init"}
	if k.input.Second {
		l.Flags, l.CgroupFD = 0, -1
	}
	if err := s.start(&l, prog, k.opts.CloneParent); err != nil {
		s.close()
		return nil, fault.Wrap("create container", k.c.id, err)
	}
	return s, nil
}

// settle follows the init from its start to the fence or the user's program.
func (k *creation) settle(ctx context.Context, s *session) error {
	if k.input.Second {
		if err := s.follow(); err != nil {
			return k.explain(s, err)
		}
	}
	if err := k.record(s); err != nil {
		return err
	}
	s.release()
	err := s.serve(func(req request) error { return k.answer(ctx, s, req) })
	if err != nil {
		return k.explain(s, err)
	}
	if k.wait {
		return nil
	}
	return k.poststart(ctx)
}

// record writes down which process the container is. Not before that may the
// user's program run.
func (k *creation) record(s *session) error {
	c := k.c
	_, start, err := procStat(s.pid)
	if err != nil {
		return fault.New(fault.Internal, "create container", c.id, "the init is gone: %w", err)
	}
	c.Init = Process{PID: s.pid, StartTime: start}
	c.st = stateFile{
		Version: k.opts.Spec.Version, ID: c.id, PID: s.pid, StartTime: start,
		Bundle: k.opts.Bundle, Rootfs: k.rootPath(), Created: time.Now().UTC(), UID: os.Getuid(),
		Annotations: k.opts.Spec.Annotations, Cgroups: c.cg.Paths(),
		Namespaces: c.st.Namespaces, Steps: c.st.Steps, Unit: c.st.Unit, Slice: c.st.Slice,
	}
	if err := c.save(); err != nil {
		return err
	}
	return writePidFile(k.opts.PidFile, s.pid)
}

// answer serves one request of the init.
func (k *creation) answer(ctx context.Context, s *session, req request) error {
	switch req.kind {
	case plan.ReqStarted:
		return k.adjust(s.pid)
	case plan.ReqTarget:
		return k.makeTarget(s.prog.Targets[req.number])
	case plan.ReqCopyUp:
		return k.copyUp(s.prog.Targets[req.number], req.fd)
	case plan.ReqConsole:
		return s.takeConsole(req.fd, k.opts.ConsoleSocket)
	case plan.ReqHooks:
		return k.createHooks(ctx, s)
	case plan.ReqListener:
		return k.sendListener(s, int(req.number))
	case plan.ReqStart:
		return k.c.startHooks(ctx, s.pidfd)
	}
	return fault.New(fault.Internal, "create container", k.c.id, "unknown request %d of the init", req.kind)
}

// writePidFile writes a pid so that a reader never sees a part of it.
func writePidFile(name string, pid int) error {
	if name == "" {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(name), "."+filepath.Base(name))
	err := smallfile.Write(tmp, []byte(strconv.Itoa(pid)), 0o644)
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		return fault.New(fault.Internal, "write", name, "%w", err)
	}
	return nil
}
