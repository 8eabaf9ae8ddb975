package runtime

import (
	"context"
	"errors"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
)

type stateFile struct{}

var errSoon = errors.New("body follows")

func create(context.Context, CreateOptions, bool) (*Container, error) { return nil, errSoon }
func load(root, id string) (*Container, error)                        { return nil, errSoon }
func list(root string) ([]State, error)                               { return nil, errSoon }

// ID returns the container's id.
func (c *Container) ID() string { return c.id }

// Start opens the fence at which a created container waits and returns once
// the user's execve succeeded; a failing executable is an *ExecError.
func (c *Container) Start(ctx context.Context) error { return errSoon }

// Exec runs a further process in the container. It returns once its execve
// succeeded; a failing executable is an *ExecError.
func (c *Container) Exec(ctx context.Context, opts ExecOptions) (*Process, error) {
	return nil, errSoon
}

// Signal sends a signal to the container's init.
func (c *Container) Signal(sig syscall.Signal) error { return errSoon }

// KillAll kills every process of the container and returns when none is left.
func (c *Container) KillAll() error { return errSoon }

// Delete removes a stopped container with its cgroup and state; force kills it
// first. Deleting what is gone already is no error with force.
func (c *Container) Delete(ctx context.Context, force bool) error { return errSoon }

// Pause freezes every process of the container.
func (c *Container) Pause() error { return errSoon }

// Resume thaws a paused container.
func (c *Container) Resume() error { return errSoon }

// Update changes the container's resource limits; unset fields stay.
func (c *Container) Update(r *specs.LinuxResources) error { return errSoon }

// Pids returns the host pids of all processes in the container.
func (c *Container) Pids() ([]int, error) { return nil, errSoon }

// Stats reads the container's counters.
func (c *Container) Stats() (*Stats, error) { return nil, errSoon }

// OOMCount returns how many processes the kernel killed for lack of memory in
// the container's cgroup.
func (c *Container) OOMCount() (uint64, error) { return 0, errSoon }

// State returns the container's state as the runtime specification defines it.
func (c *Container) State() specs.State { return specs.State{} }
