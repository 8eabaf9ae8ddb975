package solve

import (
	"context"
	"fmt"
	"io"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/graph"
)

// Executor runs programs in roots that it isolates as containers are.
//
// It may mount only at the targets of Step.Mounts and of Places: the solver makes
// these before and removes what it made of them afterwards. Nothing of the step
// may be left when Run returns: no process, no mount, no cgroup. When ctx ends
// all processes are killed and Run returns within a second.
type Executor interface {
	Run(ctx context.Context, step Step) (Exit, error)
}

// Places are where an executor may mount besides Step.Mounts: directories end in
// a slash.
var Places = []string{"/proc/", "/sys/", "/dev/", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"}

// Exit is how a program ended.
type Exit struct {
	Code      int // 128 and the signal's number for one that was killed
	OOMKilled bool
}

// Step is a program to run.
type Step struct {
	ID       string   // unique among all steps, fit for a container's name
	Lower    []string // trees below the root, top first
	Upper    string   // receives what changes
	Work     string   // overlayfs' own
	Args     []string
	Env      []string
	Dir      string
	User     string // as USER has it; resolved in the root
	Hostname string // "" is the executor's choice
	Network  string // "" the default, "none", "host"
	Hosts    []string
	Insecure bool // all capabilities, devices, no filter of system calls
	Platform ocispec.Platform
	Mounts   []Mount
	Limits   graph.Limits
	Stdout   io.Writer
	Stderr   io.Writer
}

// MountKind says what a Mount is.
type MountKind string

// The kinds of mounts that an executor makes.
const (
	// OverlayMount stacks Lower, under Upper if that is not "".
	OverlayMount MountKind = "overlay"
	// BindMount shows Path, a directory, file or socket of this machine that
	// nothing inside a container can exchange.
	BindMount MountKind = "bind"
	// TmpfsMount is empty and holds Size bytes, 0 for the default.
	TmpfsMount MountKind = "tmpfs"
	// DataMount is a file with Data that is never on a disk.
	DataMount MountKind = "data"
)

// Mount is one mount of a step.
type Mount struct {
	Kind        MountKind
	Target      string // absolute, clean
	ReadOnly    bool
	Lower       []string // top first; two or more unless Upper is set
	Upper, Work string
	Path        string
	Size        int64
	Data        []byte
	UID, GID    uint32 // of Data
	Mode        uint32 // of Data
}

// StepError is a program that failed.
type StepError struct {
	Name   string // of the step
	Text   string // the instruction
	Args   []string
	Env    []string // without secrets
	Dir    string
	User   string
	Lines  graph.Lines
	Exit   Exit
	Tail   string  // the last lines of its output
	Failed *Failed // with Job.KeepFailed
}

// Error says which program failed and how, as docker's builder says it.
func (e *StepError) Error() string {
	words := strings.Join(e.Args, " ")
	if e.Exit.OOMKilled {
		return fmt.Sprintf("process %q did not complete successfully: it used more memory than it may (exit code: %d)", words, e.Exit.Code)
	}
	return fmt.Sprintf("process %q did not complete successfully: exit code: %d", words, e.Exit.Code)
}

// Failed is what a failed step left: the step itself, ready to be run again with
// other arguments in the root as it was.
type Failed struct {
	Step    Step
	Release func() // removes it; must be called
}
