package runtime

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/fault"
	"berth/internal/runtime/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Start opens the fence at which a created container waits and returns once
// the user's execve succeeded; a failing executable is an *ExecError.
func (c *Container) Start(ctx context.Context) error {
	switch s := c.status(); s {
	case specs.StateCreated:
	case specs.StateStopped:
		return fault.New(fault.Conflict, "start container", c.id, "cannot start a container that has stopped")
	default:
		return fault.New(fault.Conflict, "start container", c.id, "container is %s already", s)
	}
	fd, err := c.Init.open()
	if err != nil {
		return fault.New(fault.Conflict, "start container", c.id, "cannot start a container that has stopped")
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	defer pidfd.Close()
	if err := c.startHooks(ctx, pidfd); err != nil {
		_ = c.KillAll()
		return err
	}
	if err := c.openFence(fd); err != nil {
		return err
	}
	return c.poststart(ctx)
}

// openFence lets the init go on and waits for its execve: the init holds the
// fifo open until then, or until it failed.
func (c *Container) openFence(pidfd int) error {
	name := filepath.Join(c.dir(), fenceName)
	fence, err := unix.Open(name, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.New(fault.Conflict, "start container", c.id, "cannot start a container that has stopped")
	}
	defer unix.Close(fence)
	// Whoever removes the fence starts the container; nobody else can.
	if err := os.Remove(name); err != nil {
		return fault.New(fault.Conflict, "start container", c.id, "container is started already")
	}
	if _, err := unix.Write(fence, []byte{1}); err != nil {
		return fault.New(fault.Internal, "start container", c.id, "%w", err)
	}
	for {
		p := []unix.PollFd{{Fd: int32(fence)}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			return fault.New(fault.Internal, "start container", c.id, "%w", err)
		}
		if p[0].Revents&unix.POLLERR != 0 {
			break
		}
	}
	return c.lateFailure(pidfd)
}

// lateFailure reads what the init reported behind the fence, if anything.
func (c *Container) lateFailure(pidfd int) error {
	report, err := os.ReadFile(filepath.Join(c.dir(), reportName))
	if err != nil || len(report) < 16 {
		return nil
	}
	addr := binary.NativeEndian.Uint64(report)
	e := &stepError{step: "start", err: unix.Errno(binary.NativeEndian.Uint64(report[8:]))}
	for _, l := range slices.Backward(c.st.Steps) {
		if addr >= l.Addr {
			e.step = l.Step
			break
		}
	}
	failed := stepFault("start container", c.id, e)
	if spec := c.Spec(); e.step == plan.StepExec && spec != nil {
		if root, err := rootOf(c.Init.PID); err == nil {
			failed = diagnose(root, spec.Process, e.err)
			unix.Close(root)
		}
	}
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	return failed
}

// rootOf opens the root directory of a process.
func rootOf(pid int) (int, error) {
	var r resources
	defer r.close()
	proc, err := r.openProc()
	if err != nil {
		return -1, err
	}
	return unix.Openat(proc, itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// explain turns an error of the init into one for the user.
func (k *creation) explain(s *session, err error) error {
	var e *stepError
	if !errors.As(err, &e) {
		return fault.Wrap("create container", k.c.id, err)
	}
	if e.step == plan.StepExec {
		root := k.rootFD
		if root == plan.None {
			if fd, err := rootOf(s.pid); err == nil {
				root = fd
				defer unix.Close(fd)
			}
		}
		return diagnose(root, k.opts.Spec.Process, e.err)
	}
	return stepFault("create container", k.c.id, e)
}

// stepFault classifies a failed step.
func stepFault(op, id string, e *stepError) error {
	f := fault.New(fault.Internal, op, id, "%w", e)
	switch e.err {
	case unix.EINVAL, unix.ENODEV, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.ENOENT:
		f.Kind = fault.Invalid
	case unix.EPERM, unix.EACCES:
		f.Kind = fault.Forbidden
	case unix.ENOSPC, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN:
		f.Kind = fault.Exhausted
	}
	if h := stepHint(e); h != "" {
		return f.WithHint("%s", h)
	}
	return f
}

func stepHint(e *stepError) string {
	mount := strings.HasPrefix(e.step, "mounts[")
	switch {
	case mount && e.err == unix.ENODEV && e.call == "fsopen":
		return "the kernel does not know a file system of this type"
	case mount && e.err == unix.ELOOP:
		return "the mount point is or passes a symbolic link that is not allowed there"
	case mount && (e.err == unix.ENOTDIR || e.err == unix.EINVAL) && e.call == "move_mount":
		return "a directory can't be mounted on a file, nor a file on a directory"
	case mount && e.err == unix.EPERM && e.call == "":
		return "the mount point lies inside of a procfs"
	case strings.HasPrefix(e.step, "process.cwd") && e.err == unix.ELOOP:
		return "the working directory must not lead through a descriptor in /proc"
	case strings.HasPrefix(e.step, "process.cwd") && e.err == unix.EPERM:
		return "the working directory lies outside of the container's root"
	case strings.HasPrefix(e.step, "linux.maskedPaths") && e.err == unix.ENODEV:
		return "what was mounted there is not what hides it"
	}
	return ""
}
