package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"berth/internal/fault"
	"berth/internal/monitor/proto"
	"berth/internal/runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runner is an OCI runtime: the built-in one, or a foreign one behind its
// command line.
type runner interface {
	// start runs a container and returns once its program runs.
	start(l launch) (launched, error)
	// exec runs a further process and returns once its program runs.
	exec(id string, process *specs.Process, stdio runtime.Stdio) (launched, error)
	// load finds a process of a start that a killed worker had under way; pid 0
	// says that its program never ran.
	load(id string) (pid int)
	signal(id string, signal unix.Signal) error // of the container's process
	killAll(id string) error
	pause(id string) error
	resume(id string) error
	update(id string, r *specs.LinuxResources) error
	pids(id string) ([]int, error)
	stats(id string) (*runtime.Stats, error)
	oomCount(id string) (uint64, error)
	// remove frees what the runtime has of a container, running or not.
	// errNothing says that it knew of none.
	remove(id string) error
}

var errNothing = errors.New("the runtime does not know the container")

// removeFromRuntime frees what a container's runtime has of it. A worker that
// was killed while it did the same, or while it made the container, may have
// left cgroups that the runtime knows nothing of.
func removeFromRuntime(c *container) {
	if c.runner == nil {
		return
	}
	switch err := c.runner.remove(c.id); {
	case err == errNothing:
		sweepCgroup(c.record.Cgroup)
	case err != nil:
		warn("remove %s: %v", c.id, err)
	}
}

// launch is what a runner starts.
type launch struct {
	id, dir  string
	spec     *specs.Spec
	specJSON []byte
	overlay  *runtime.Overlay
	stdio    runtime.Stdio
}

// launched is what came of it. The descriptors belong to the caller.
type launched struct {
	pid       int
	startTime uint64
	pidfd     int
	console   int // -1: none
}

// runnerFor returns the runner of a container.
func (w *Worker) runnerFor(r *record) runner {
	if r.Runtime == "" {
		return builtin{root: w.runDir + "/runtime"}
	}
	return &foreign{path: r.Runtime, args: r.RuntimeArgs, root: w.dir + "/foreign", dirs: w.dir + "/containers"}
}

// builtin is Berth's own runtime, called as a library.
type builtin struct{ root string }

func (b builtin) start(l launch) (launched, error) {
	c, err := runtime.Run(context.Background(), runtime.CreateOptions{
		ID: l.id, Root: b.root, Spec: l.spec, SpecJSON: l.specJSON, Overlay: l.overlay,
		Stdio: l.stdio, CloneParent: true,
	})
	if err != nil {
		return launched{}, err
	}
	return own(&c.Init)
}

func (b builtin) exec(id string, process *specs.Process, stdio runtime.Stdio) (launched, error) {
	c, err := runtime.Load(b.root, id)
	if err != nil {
		return launched{}, err
	}
	p, err := c.Exec(context.Background(), runtime.ExecOptions{Process: process, Stdio: stdio, CloneParent: true})
	if err != nil {
		return launched{}, err
	}
	return own(p)
}

// own takes the descriptors out of a process.
func own(p *runtime.Process) (launched, error) {
	l := launched{pid: p.PID, startTime: p.StartTime, console: -1}
	var err error
	if l.pidfd, err = take(p.PidFD); err != nil {
		return l, err
	}
	if l.console, err = take(p.Console); err != nil {
		return l, err
	}
	if l.console >= 0 {
		err = unix.SetNonblock(l.console, true)
	}
	return l, err
}

// take returns a descriptor of its own for a file, which it closes; -1 for
// none.
func take(file *os.File) (int, error) {
	if file == nil {
		return -1, nil
	}
	defer file.Close()
	fd, err := unix.FcntlInt(uintptr(proto.FD(file)), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, fault.New(fault.Exhausted, "keep descriptor", file.Name(), "%w", err)
	}
	return fd, nil
}

// initExe is what the kernel calls the program of an init that has not executed
// the user's yet.
const initExe = "/memfd:berth-init"

func (b builtin) load(id string) int {
	c, err := runtime.Load(b.root, id)
	if err != nil {
		return 0
	}
	state := c.State()
	exe, err := os.Readlink("/proc/" + strconv.Itoa(state.Pid) + "/exe")
	if state.Status != specs.StateRunning || err != nil || strings.HasPrefix(exe, initExe) {
		return 0
	}
	return state.Pid
}

// with calls use with the container.
func (b builtin) with(id string, use func(*runtime.Container) error) error {
	c, err := runtime.Load(b.root, id)
	if err != nil {
		return err
	}
	return use(c)
}

func (b builtin) signal(id string, signal unix.Signal) error {
	return b.with(id, func(c *runtime.Container) error { return c.Signal(signal) })
}

func (b builtin) killAll(id string) error {
	return b.with(id, (*runtime.Container).KillAll)
}

func (b builtin) pause(id string) error  { return b.with(id, (*runtime.Container).Pause) }
func (b builtin) resume(id string) error { return b.with(id, (*runtime.Container).Resume) }

func (b builtin) update(id string, r *specs.LinuxResources) error {
	return b.with(id, func(c *runtime.Container) error { return c.Update(r) })
}

func (b builtin) pids(id string) (pids []int, err error) {
	err = b.with(id, func(c *runtime.Container) error {
		pids, err = c.Pids()
		return err
	})
	return pids, err
}

func (b builtin) stats(id string) (stats *runtime.Stats, err error) {
	err = b.with(id, func(c *runtime.Container) error {
		stats, err = c.Stats()
		return err
	})
	return stats, err
}

func (b builtin) oomCount(id string) (n uint64, err error) {
	err = b.with(id, func(c *runtime.Container) error {
		n, err = c.OOMCount()
		return err
	})
	return n, err
}

// remove also clears what a killed worker left of a container that was only
// half made or half removed.
func (b builtin) remove(id string) error {
	err := b.with(id, func(c *runtime.Container) error { return c.Delete(context.Background(), true) })
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	if err := os.RemoveAll(filepath.Join(b.root, id)); err != nil {
		return fault.New(fault.Internal, "remove container", id, "%w", err)
	}
	return errNothing
}
