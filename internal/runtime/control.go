package runtime

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"berth/internal/fault"
	"berth/internal/runtime/cgroup"
	"berth/internal/runtime/systemd"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// dying is how long a killed process may take to end.
const dying = 10 * time.Second

// Signal sends a signal to the container's init.
func (c *Container) Signal(sig syscall.Signal) error {
	if sig == syscall.SIGKILL && c.st.Namespaces&unix.CLONE_NEWPID == 0 {
		// Without a pid namespace the other processes would live on.
		return c.KillAll()
	}
	fd, err := c.Init.open()
	if err == nil {
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
		unix.Close(fd)
	}
	if errors.Is(err, unix.ESRCH) {
		return fault.New(fault.Conflict, "signal container", c.id, "container not running")
	}
	if err != nil {
		return fault.New(fault.Internal, "signal container", c.id, "%w", err)
	}
	if sig == syscall.SIGKILL {
		if frozen, _ := c.cg.Frozen(); frozen {
			return c.cg.Thaw() // a frozen process of cgroup v1 does not die
		}
	}
	return nil
}

// KillAll kills every process of the container and returns when none is left.
func (c *Container) KillAll() error {
	if err := c.cg.Kill(); err != nil {
		return err
	}
	return c.killInit()
}

// killInit kills the init and waits until it is dead.
func (c *Container) killInit() error {
	fd, err := c.Init.open()
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
		return fault.New(fault.Internal, "kill container", c.id, "%w", err)
	}
	if !awaitExit(fd, dying) {
		return fault.New(fault.Internal, "kill container", c.id, "the init is still there after %v", dying)
	}
	return nil
}

// awaitExit waits until the process of a pidfd has ended.
func awaitExit(pidfd int, limit time.Duration) bool {
	end := time.Now().Add(limit)
	for {
		left := time.Until(end)
		if left < 0 {
			return false
		}
		p := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, int(left.Milliseconds())+1)
		if err == unix.EINTR {
			continue
		}
		return err == nil && n == 1
	}
}

// Delete removes a stopped container with its cgroup and state; force kills it
// first.
func (c *Container) Delete(ctx context.Context, force bool) error {
	if status := c.status(); status != specs.StateStopped {
		// A container that was never started has nothing to lose.
		if !force && status != specs.StateCreated {
			return fault.New(fault.Conflict, "delete container", c.id, "container is %s", status).WithHint("stop it first, or use force")
		}
	}
	if err := c.KillAll(); err != nil {
		return err
	}
	if err := c.cg.Delete(); err != nil {
		return err
	}
	var hooks error
	if spec := c.hookSpec(); spec != nil {
		state := c.State()
		state.Status = specs.StateStopped
		hooks = runHooks(ctx, spec.Hooks.Poststop, "hooks.poststop", state, true)
	}
	// A listing that runs meanwhile must not find half of a container.
	for _, name := range [...]string{stateName, configName, fenceName, reportName} {
		_ = unix.Unlink(filepath.Join(c.dir(), name))
	}
	if unix.Rmdir(c.dir()) == nil {
		return hooks
	}
	if err := os.RemoveAll(c.dir()); err != nil {
		return fault.New(fault.Internal, "delete container", c.id, "%w", err)
	}
	return hooks
}

// hookSpec returns the specification if it has hooks. The file is not parsed
// when the word does not occur in it: most containers have none.
func (c *Container) hookSpec() *specs.Spec {
	if c.spec == nil {
		if c.noHooks() {
			return nil
		}
	}
	if spec := c.Spec(); spec != nil && spec.Hooks != nil {
		return spec
	}
	return nil
}

// Pause freezes every process of the container.
func (c *Container) Pause() error {
	switch s := c.status(); s {
	case specs.StateRunning, specs.StateCreated:
		return c.cg.Freeze()
	default:
		return fault.New(fault.Conflict, "pause container", c.id, "container is %s", s)
	}
}

// Resume thaws a paused container.
func (c *Container) Resume() error {
	if s := c.status(); s != statusPaused {
		return fault.New(fault.Conflict, "resume container", c.id, "container is %s, not paused", s)
	}
	return c.cg.Thaw()
}

// Update changes the container's resource limits; unset fields stay.
func (c *Container) Update(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	if s := c.status(); s == specs.StateStopped {
		return fault.New(fault.Conflict, "update container", c.id, "container is stopped")
	}
	if c.st.Unit != "" {
		unit := systemd.Unit{Name: c.st.Unit, Slice: c.st.Slice}
		if err := unit.Set(systemd.Properties(r, cgroup.Weight)); err != nil {
			return err
		}
	}
	return c.cg.Update(r)
}

// Pids returns the host pids of all processes in the container.
func (c *Container) Pids() ([]int, error) {
	pids, err := c.cg.Pids()
	if err != nil {
		return nil, fault.New(fault.Internal, "list processes of", c.id, "%w", err)
	}
	return pids, nil
}

// Stats reads the container's counters.
func (c *Container) Stats() (*Stats, error) {
	if s := c.status(); s == specs.StateStopped {
		return nil, fault.New(fault.Conflict, "read counters of", c.id, "container is stopped")
	}
	return c.cg.Stats()
}

// OOMCount returns how many processes the kernel killed for lack of memory in
// the container's cgroup.
func (c *Container) OOMCount() (uint64, error) { return c.cg.OOMKills() }
