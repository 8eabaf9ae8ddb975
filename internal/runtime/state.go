package runtime

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/fault"
	"berth/internal/runtime/cgroup"
	"berth/internal/runtime/config"
	"berth/internal/runtime/plan"
	"berth/internal/runtime/smallfile"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Files in a container's state directory.
const (
	stateName  = "state.json"
	configName = "config.json" // the specification as it was given
	fenceName  = "fence"       // fifo; there while the container waits to be started
	reportName = "report"      // failures behind the fence
)

// maxState bounds what is read from a state directory.
const maxState = 64 << 20

// stateFile is what other processes need to control a container.
type stateFile struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid"`
	StartTime   uint64            `json:"startTime"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	UID         int               `json:"uid"` // of whoever created it
	Annotations map[string]string `json:"annotations,omitempty"`
	Cgroups     map[string]string `json:"cgroups,omitempty"`
	Namespaces  uint64            `json:"namespaces"`      // CLONE_NEW* that differ from the host's
	Unit        string            `json:"unit,omitempty"`  // scope that systemd made
	Slice       string            `json:"slice,omitempty"` // where it lies
	Steps       []lateStep        `json:"steps,omitempty"`
}

// lateStep names the operations behind the fence, for whoever starts the
// container.
type lateStep plan.Late

// checkID refuses ids that could leave the state root.
func checkID(id string) error {
	ok := id != "" && id != "." && id != ".." && len(id) <= 1024
	for _, c := range []byte(id) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_+-.", c) >= 0)
	}
	if !ok {
		return fault.New(fault.Invalid, "check", "container id", "%q is not made of letters, digits and _ + - .", id)
	}
	return nil
}

func (c *Container) dir() string { return filepath.Join(c.root, c.id) }

// save writes the state so that a reader sees all of it or none.
func (c *Container) save() error {
	name := filepath.Join(c.dir(), stateName)
	if err := smallfile.Write(name+".new", c.st.encode(), 0o600); err != nil {
		return fault.New(fault.Internal, "save state of", c.id, "%w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fault.New(fault.Internal, "save state of", c.id, "%w", err)
	}
	return nil
}

func load(root, id string) (*Container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	c := &Container{id: id, root: root}
	text, err := smallfile.Read(filepath.Join(c.dir(), stateName), maxState)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "load container", id, "container does not exist")
	}
	if err == nil {
		err = json.Unmarshal(text, &c.st)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "load container", id, "%w", err)
	}
	c.Init = Process{PID: c.st.PID, StartTime: c.st.StartTime}
	if c.cg, err = cgroup.Restore(c.st.Cgroups); err != nil {
		return nil, err
	}
	return c, nil
}

func list(root string) ([]State, error) {
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.Internal, "list containers in", root, "%w", err)
	}
	var out []State
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if c, err := load(root, e.Name()); err == nil {
			out = append(out, c.describe())
		}
	}
	slices.SortFunc(out, func(a, b State) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

func (c *Container) describe() State {
	owner := strconv.Itoa(c.st.UID)
	if u, err := user.LookupId(owner); err == nil {
		owner = u.Username
	}
	return State{
		State:   c.State(),
		Rootfs:  c.st.Rootfs,
		Created: c.st.Created.UTC().Format(time.RFC3339Nano),
		Owner:   owner,
	}
}

// ID returns the container's id.
func (c *Container) ID() string { return c.id }

// Spec returns the specification that the container was created from, or nil
// if it can't be read any more.
func (c *Container) Spec() *specs.Spec {
	if c.spec == nil {
		text, err := smallfile.Read(filepath.Join(c.dir(), configName), maxState)
		if err != nil {
			return nil
		}
		if c.spec, err = config.Parse(text); err != nil {
			return nil
		}
	}
	return c.spec
}

// statusPaused is what the field's runtimes say of a frozen container; the
// specification lets a runtime define further values.
const statusPaused specs.ContainerState = "paused"

// State returns the container's state as the runtime specification defines it.
// A stopped container has no pid.
func (c *Container) State() specs.State {
	s := specs.State{
		Version: c.st.Version, ID: c.id, Bundle: c.st.Bundle, Annotations: c.st.Annotations,
		Status: c.status(),
	}
	if s.Status != specs.StateStopped {
		s.Pid = c.st.PID
	}
	return s
}

func (c *Container) status() specs.ContainerState {
	if !c.Init.alive() {
		return specs.StateStopped
	}
	if frozen, err := c.cg.Frozen(); err == nil && frozen {
		return statusPaused
	}
	if unix.Access(filepath.Join(c.dir(), fenceName), unix.F_OK) == nil {
		return specs.StateCreated
	}
	return specs.StateRunning
}

// alive reports whether the process is there and has not ended; a pid that the
// kernel has given to another process meanwhile does not count.
func (p *Process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	state, start, err := procStat(p.PID)
	return err == nil && start == p.StartTime && state != 'Z' && state != 'X'
}

// procStat returns state and start time of a process, fields 3 and 22 of its
// stat file.
func procStat(pid int) (state byte, start uint64, err error) {
	text, err := smallfile.Read("/proc/"+strconv.Itoa(pid)+"/stat", 4096)
	if err != nil {
		return 0, 0, err
	}
	// The command's name may hold anything, even parentheses.
	i := bytes.LastIndexByte(text, ')')
	f := bytes.Fields(text[i+1:])
	if i < 0 || len(f) < 20 || len(f[0]) != 1 {
		return 0, 0, errors.New("malformed stat of process " + strconv.Itoa(pid))
	}
	start, err = strconv.ParseUint(string(f[19]), 10, 64)
	return f[0][0], start, err
}

// open returns a pidfd of the process, which is certain to be it.
func (p *Process) open() (int, error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return -1, err
	}
	if !p.alive() {
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// noHooks reports whether the specification certainly has no hooks.
func (c *Container) noHooks() bool {
	text, err := smallfile.Read(filepath.Join(c.dir(), configName), maxState)
	return err == nil && !bytes.Contains(text, []byte(`"hooks"`))
}
