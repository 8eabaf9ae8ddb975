// Package runtime is Berth's OCI runtime as a library: it turns a runtime
// specification into a running, isolated process and controls it afterwards.
// It exists apart from its command line (cmd/berth-runtime) so that the monitor
// can start containers without starting a program for each of them.
//
// The work is split between the caller's process and the container's init. The
// caller validates the specification and compiles it into a small program of
// system calls (package plan); the init, a few hundred bytes of code in a
// sealed memfd (package boot), executes that program inside the new namespaces
// and ends in the user's execve.
package runtime

import (
	"context"
	"os"

	"berth/internal/runtime/cgroup"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Overlay describes a root file system that is mounted inside the container's
// own mount namespace, so that nothing has to be unmounted on the host.
type Overlay struct {
	Lower []string `json:"lower"`           // read-only trees, top first
	Upper string   `json:"upper,omitempty"` // writable tree; "" makes a read-only root
	Work  string   `json:"work,omitempty"`  // overlayfs work directory beside Upper
}

// Stdio holds standard input, output and error of a process. A nil entry is
// /dev/null. The files stay owned by the caller.
type Stdio [3]*os.File

// CreateOptions says what to create and how. ID, Root and Spec are required.
type CreateOptions struct {
	ID     string
	Root   string // state root; the container's state is kept in <Root>/<ID>
	Bundle string // may be "" when Spec.Root.Path is absolute or Overlay is set
	Spec   *specs.Spec
	// SpecJSON is the encoded form of Spec, if the caller has it at hand; it
	// spares encoding Spec again for the state directory.
	SpecJSON []byte
	Overlay  *Overlay // nil: Spec.Root.Path is a directory

	Stdio         Stdio
	ConsoleSocket string // unix socket that receives the pty master; "" keeps it in Process.Console
	PreserveFDs   int    // passes descriptors 3..3+n-1 of this process
	ExtraFiles    []*os.File
	PidFile       string

	NoPivot       bool
	NoNewKeyring  bool
	SystemdCgroup bool
	CloneParent   bool // the new process becomes a child of this process's parent
}

// ExecOptions says what to run in an existing container and how.
type ExecOptions struct {
	Process       *specs.Process
	Stdio         Stdio
	ConsoleSocket string
	PidFile       string
	PreserveFDs   int
	ExtraFiles    []*os.File
	CloneParent   bool
	Cgroup        string // sub-cgroup of the container's cgroup; "" is the container's own
	IgnorePaused  bool   // start although the container is paused
}

// Process is a process that this package started.
type Process struct {
	PID       int
	StartTime uint64   // field 22 of /proc/<pid>/stat: tells a reused pid apart
	PidFD     *os.File // close-on-exec; nil for a process that was loaded from disk
	Console   *os.File // pty master, when the process has a terminal and no ConsoleSocket was given
}

// Container is a created container.
type Container struct {
	Init Process

	id   string
	root string
	st   stateFile
	spec *specs.Spec
	cg   *cgroup.Manager
}

// Stats are the counters of a container's cgroup.
type Stats = cgroup.Stats

// Create makes a container whose init has set everything up and waits at the
// start fence.
func Create(ctx context.Context, opts CreateOptions) (*Container, error) {
	return create(ctx, opts, true)
}

// Run creates and starts a container in one go. It returns once the user's
// execve succeeded; a failing executable is an *ExecError.
func Run(ctx context.Context, opts CreateOptions) (*Container, error) {
	return create(ctx, opts, false)
}

// Load finds the container id below the state root.
func Load(root, id string) (*Container, error) { return load(root, id) }

// List returns the state of every container below the state root, sorted by
// id. A container that vanishes meanwhile is left out.
func List(root string) ([]State, error) { return list(root) }

// State describes a container in a listing.
type State struct {
	specs.State
	Rootfs  string `json:"rootfs"`
	Created string `json:"created"` // RFC 3339, UTC
	Owner   string `json:"owner"`
}
