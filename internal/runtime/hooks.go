package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"berth/internal/fault"
	"berth/internal/runtime/boot"
	"berth/internal/runtime/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxHookOutput bounds how much of a failing hook's output is reported.
const maxHookOutput = 4096

// runHooks runs hooks in the runtime's own namespaces, in order. The first
// failure ends it, unless all are to be tried; then the failures are joined.
func runHooks(ctx context.Context, hooks []specs.Hook, field string, state specs.State, all bool) error {
	var errs []error
	for i, h := range hooks {
		err := hostHook(ctx, h, state)
		if err == nil {
			continue
		}
		err = fault.New(fault.Internal, "run hook", fmt.Sprintf("%s[%d] (%s)", field, i, h.Path), "%w", err)
		if !all {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func hookContext(ctx context.Context, h specs.Hook) (context.Context, context.CancelFunc) {
	if h.Timeout == nil {
		return context.WithCancel(ctx)
	}
	limit := time.Duration(*h.Timeout) * time.Second
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %v", limit))
}

func hostHook(ctx context.Context, h specs.Hook, state specs.State) error {
	ctx, cancel := hookContext(ctx, h)
	defer cancel()
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = h.Env
	if cmd.Env == nil {
		cmd.Env = []string{} // none, not ours
	}
	cmd.Stdin = bytes.NewReader(text)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	err = cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return withOutput(err, out.Bytes())
	}
	return nil
}

func withOutput(err error, out []byte) error {
	if text := strings.TrimSpace(string(out[max(0, len(out)-maxHookOutput):])); text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// createHooks runs the hooks that come between the making of the namespaces
// and the change of the root.
func (k *creation) createHooks(ctx context.Context, s *session) error {
	state := k.c.State()
	state.Status, state.Pid = specs.StateCreating, s.pid
	h := k.opts.Spec.Hooks
	if err := runHooks(ctx, h.Prestart, "hooks.prestart", state, false); err != nil {
		return err
	}
	if err := runHooks(ctx, h.CreateRuntime, "hooks.createRuntime", state, false); err != nil {
		return err
	}
	return k.c.insideHooks(ctx, h.CreateContainer, "hooks.createContainer", state, s.pidfd)
}

// startHooks runs the hooks that come right before the user's program.
func (c *Container) startHooks(ctx context.Context, pidfd *os.File) error {
	spec := c.hookSpec()
	if spec == nil {
		return nil
	}
	state := c.State()
	state.Status, state.Pid = specs.StateCreated, c.st.PID
	return c.insideHooks(ctx, spec.Hooks.StartContainer, "hooks.startContainer", state, pidfd)
}

// poststart runs the hooks behind the start of the user's program.
func (k *creation) poststart(ctx context.Context) error { return k.c.poststart(ctx) }

func (c *Container) poststart(ctx context.Context) error {
	spec := c.hookSpec()
	if spec == nil {
		return nil
	}
	state := c.State()
	state.Status, state.Pid = specs.StateRunning, c.st.PID
	return runHooks(ctx, spec.Hooks.Poststart, "hooks.poststart", state, false)
}

// insideHooks runs hooks in the namespaces of the container, with all
// privileges.
func (c *Container) insideHooks(ctx context.Context, hooks []specs.Hook, field string, state specs.State, pidfd *os.File) error {
	for i, h := range hooks {
		if err := c.insideHook(ctx, h, state, pidfd); err != nil {
			return fault.New(fault.Internal, "run hook", fmt.Sprintf("%s[%d] (%s)", field, i, h.Path), "%w", err)
		}
	}
	return nil
}

func (c *Container) insideHook(ctx context.Context, h specs.Hook, state specs.State, pidfd *os.File) error {
	ctx, cancel := hookContext(ctx, h)
	defer cancel()
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	in, toHook, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	defer toHook.Close()
	fromHook, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer fromHook.Close()
	defer out.Close()

	var r resources
	defer r.close()
	proc, err := r.openProc()
	if err != nil {
		return err
	}
	s, err := newSession(&r)
	if err != nil {
		return err
	}
	defer s.close()
	prog := plan.BuildHook(&plan.Hook{
		Target: int(pidfd.Fd()), Flags: c.st.Namespaces, Proc: proc, Sync: s.child[0], Path: h.Path, Args: h.Args, Env: h.Env,
		Stdio: [3]int{int(in.Fd()), int(out.Fd()), int(out.Fd())},
	})
	stop := context.AfterFunc(ctx, s.kill)
	defer stop()
	if err := s.enter(prog, c.st.Namespaces); err != nil {
		return err
	}
	in.Close()
	out.Close()
	_, werr := toHook.Write(text)
	toHook.Close()
	said, _ := io.ReadAll(io.LimitReader(fromHook, 1<<20))
	return hookResult(ctx, s.pid, said, werr)
}

// enter launches a hook's program and follows it to its execve.
func (s *session) enter(prog *plan.Program, namespaces uint64) error {
	l := boot.Launch{CgroupFD: -1, Inherit: prog.Inherit, Name: "berth-hook"}
	if err := s.start(&l, prog, false); err != nil {
		return err
	}
	if namespaces&unix.CLONE_NEWPID != 0 {
		if err := s.follow(); err != nil {
			return err
		}
	}
	if err := s.serve(func(request) error { return errors.New("a hook asks for nothing") }); err != nil {
		s.kill()
		s.reap()
		return err
	}
	return nil
}

// hookResult waits for a hook.
func hookResult(ctx context.Context, pid int, said []byte, written error) error {
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &ws, 0, nil); err == nil {
			break
		} else if err != unix.EINTR {
			return os.NewSyscallError("wait4", err)
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case ws.Signaled():
		return withOutput(fmt.Errorf("it was ended by %v", ws.Signal()), said)
	case ws.ExitStatus() != 0:
		return withOutput(fmt.Errorf("exit status %d", ws.ExitStatus()), said)
	case written != nil && !errors.Is(written, unix.EPIPE):
		return written
	}
	return nil
}
