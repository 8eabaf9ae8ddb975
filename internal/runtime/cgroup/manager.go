package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"berth/internal/fault"
	"berth/internal/runtime/smallfile"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Manager controls the cgroup of one container in every hierarchy of the host.
type Manager struct {
	host   *Host
	path   string // from the specification; relative means below this process's own cgroup
	groups []group
	// foreign is set when the cgroup turned out to be somebody else's.
	foreign bool
	// shared is set when others may be in the cgroup already.
	shared bool
}

// Share lets Create use a cgroup that has processes already, because somebody
// made it for this container.
func (m *Manager) Share() { m.shared = true }

// Foreign reports whether Create found processes of somebody else.
func (m *Manager) Foreign() bool { return m.foreign }

// group is the container's directory in one hierarchy.
type group struct {
	h   *Hierarchy
	dir string
}

// always are the v1 controllers that every container gets a cgroup in: they
// count what users ask for, or guard devices. The others cost a directory each
// and are used once a limit is asked of them.
var always = [...]string{"memory", "pids", "cpuacct", "devices", "blkio"}

// New returns the manager of the cgroup at path, which is the cgroupsPath of a
// specification: absolute below the root of each hierarchy, otherwise below the
// calling process's own cgroup.
func New(path string) (*Manager, error) {
	host, err := Detect()
	if err != nil {
		return nil, fault.New(fault.Unsupported, "read cgroup layout", "", "%w", err)
	}
	if path == "" || path == "/" || strings.Contains("/"+path+"/", "/../") {
		return nil, fault.New(fault.Invalid, "check", "linux.cgroupsPath", "%q names no cgroup of a container", path)
	}
	m := &Manager{host: host, path: filepath.Clean(path)}
	for i := range host.V1 {
		m.groups = append(m.groups, m.group(&host.V1[i]))
	}
	if host.Unified != nil {
		m.groups = append(m.groups, m.group(host.Unified))
	}
	return m, nil
}

func (m *Manager) group(h *Hierarchy) group {
	if filepath.IsAbs(m.path) {
		return group{h, filepath.Join(h.Mount, m.path)}
	}
	return group{h, filepath.Join(h.Own(), m.path)}
}

// Paths returns the container's directory in each hierarchy, by the
// hierarchy's name, for Restore in another process.
func (m *Manager) Paths() map[string]string {
	out := make(map[string]string, len(m.groups))
	for _, g := range m.groups {
		out[g.h.Name] = g.dir
	}
	return out
}

// Restore returns the manager that Paths was called on.
func Restore(paths map[string]string) (*Manager, error) {
	host, err := Detect()
	if err != nil {
		return nil, fault.New(fault.Unsupported, "read cgroup layout", "", "%w", err)
	}
	m := &Manager{host: host}
	add := func(h *Hierarchy) {
		if dir := paths[h.Name]; dir != "" {
			m.groups = append(m.groups, group{h, dir})
			m.path = dir
		}
	}
	for i := range host.V1 {
		add(&host.V1[i])
	}
	if host.Unified != nil {
		add(host.Unified)
	}
	return m, nil
}

// Sub returns the manager of a cgroup below m's.
func (m *Manager) Sub(name string) (*Manager, error) {
	if name == "" || strings.Contains("/"+name+"/", "/../") {
		return nil, fault.New(fault.Invalid, "open cgroup", name, "is no path below the container's cgroup")
	}
	s := &Manager{host: m.host, path: filepath.Join(m.path, name)}
	for _, g := range m.groups {
		s.groups = append(s.groups, group{g.h, filepath.Join(g.dir, name)})
	}
	return s, nil
}

// View is a hierarchy as the container may see it.
type View struct {
	Name        string
	Controllers []string // nil for v2
	Dir         string   // the container's cgroup on the host
}

// Views lists the hierarchies in which the container has a cgroup of its own.
// On a host with v1 controllers the unified hierarchy is left out: programs
// take its presence for pure v2.
func (m *Manager) Views() []View {
	var out []View
	for _, g := range m.groups {
		if g.h.V2() && !m.host.Pure2() || unix.Access(g.dir, unix.F_OK) != nil {
			continue
		}
		out = append(out, View{g.h.Name, g.h.Controllers, g.dir})
	}
	return out
}

// unified returns the directory in the v2 hierarchy, or "".
func (m *Manager) unified() string {
	if n := len(m.groups); n > 0 && m.groups[n-1].h.V2() {
		return m.groups[n-1].dir
	}
	return ""
}

// dir returns the directory of a v1 controller, or "".
func (m *Manager) dir(controller string) string {
	for _, g := range m.groups {
		if g.h.has(controller) {
			return g.dir
		}
	}
	return ""
}

// wanted reports whether a container with limits r gets a directory in h.
func (m *Manager) wanted(h *Hierarchy, settings []setting) bool {
	if h.V2() {
		return true
	}
	for _, c := range always {
		if h.has(c) {
			return true
		}
	}
	if h.has("freezer") && m.host.Unified == nil {
		return true
	}
	if h.has("name=systemd") {
		// A service manager ends what it finds in the cgroup of a service.
		return unix.Access("/run/systemd/system", unix.F_OK) == nil
	}
	for _, s := range settings {
		if h.has(s.controller) {
			return true
		}
	}
	return false
}

// Create makes the cgroup and sets its limits. A cgroup that has processes
// already is refused, for killing the container would kill them too.
func (m *Manager) Create(r *specs.LinuxResources) error {
	settings, err := m.settings(r)
	if err != nil {
		return err
	}
	for _, g := range m.groups {
		if !m.wanted(g.h, settings) {
			continue
		}
		if err := m.make(g); err != nil {
			return err
		}
	}
	if err := m.apply(settings); err != nil {
		return err
	}
	return m.setDevices(r)
}

// make creates the directory of g with its parents.
func (m *Manager) make(g group) error {
	err := os.Mkdir(g.dir, 0o755)
	if errors.Is(err, unix.ENOENT) {
		if err := m.makeParents(g); err != nil {
			return err
		}
		err = os.Mkdir(g.dir, 0o755)
	}
	if errors.Is(err, unix.EEXIST) {
		if busy, _ := populated(g.dir); busy && !m.shared {
			m.foreign = true
			return fault.New(fault.Conflict, "create cgroup", g.dir, "it has processes already")
		}
		err = nil
	}
	if err != nil {
		return fault.New(fault.Internal, "create cgroup", g.dir, "%w", err)
	}
	if g.h.has("cpuset") {
		return inheritCpuset(g.dir)
	}
	if g.h.V2() && m.host.Pure2() {
		return enable(filepath.Dir(g.dir), g.h.Mount)
	}
	return nil
}

func (m *Manager) makeParents(g group) error {
	parent := filepath.Dir(g.dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fault.New(fault.Internal, "create cgroup", parent, "%w", err)
	}
	if g.h.has("cpuset") {
		return inheritCpuset(parent)
	}
	return nil
}

// inheritCpuset gives an empty cpuset its parent's processors and memory nodes:
// without any, no process can join it.
func inheritCpuset(dir string) error {
	for _, file := range [...]string{"cpuset.cpus", "cpuset.mems"} {
		have, err := smallfile.Read(filepath.Join(dir, file), maxFile)
		if err != nil {
			return fault.New(fault.Internal, "create cgroup", dir, "%w", err)
		}
		if strings.TrimSpace(string(have)) != "" {
			continue
		}
		parent := filepath.Dir(dir)
		if _, err := os.Stat(filepath.Join(parent, file)); err != nil {
			return nil
		}
		if err := inheritCpuset(parent); err != nil {
			return err
		}
		value, err := smallfile.Read(filepath.Join(parent, file), maxFile)
		if err == nil {
			err = write(dir, file, strings.TrimSpace(string(value)))
		}
		if err != nil {
			return fault.New(fault.Internal, "create cgroup", dir, "%w", err)
		}
	}
	return nil
}

// enable turns on every controller for the children of dir, from the root down.
// A controller that can't be enabled shows later, when a limit needs it.
func enable(dir, root string) error {
	if !strings.HasPrefix(dir, root) {
		return nil
	}
	if dir != root {
		if err := enable(filepath.Dir(dir), root); err != nil {
			return err
		}
	}
	have, err := smallfile.Read(filepath.Join(dir, "cgroup.controllers"), maxFile)
	if err != nil {
		return fault.New(fault.Internal, "enable cgroup controllers", dir, "%w", err)
	}
	on, _ := smallfile.Read(filepath.Join(dir, "cgroup.subtree_control"), maxFile)
	missing := ""
	for _, c := range strings.Fields(string(have)) {
		if !strings.Contains(" "+strings.TrimSpace(string(on))+" ", " "+c+" ") {
			missing += " +" + c
		}
	}
	if missing == "" || write(dir, "cgroup.subtree_control", missing[1:]) == nil {
		return nil
	}
	for _, c := range strings.Fields(missing) {
		_ = write(dir, "cgroup.subtree_control", c) // one refused controller must not hinder the others
	}
	return nil
}

// Entry holds what a new process needs to be in the cgroup from its start. The
// descriptors are close-on-exec; Close releases them.
type Entry struct {
	Unified int   // directory for CLONE_INTO_CGROUP, or -1
	Tasks   []int // v1 files: a single-threaded process joins by writing "0"
}

// Close closes the descriptors.
func (e *Entry) Close() {
	if e.Unified >= 0 {
		unix.Close(e.Unified)
	}
	for _, fd := range e.Tasks {
		unix.Close(fd)
	}
	e.Unified, e.Tasks = -1, nil
}

// Enter opens the cgroup for a process that is about to be made. A process
// moves itself by its own hand, because moving another takes a lock over all
// forks and exits of the machine that waits for a grace period of RCU. The
// descriptors are numbered from least on.
func (m *Manager) Enter(least int) (*Entry, error) {
	e := &Entry{Unified: -1}
	for _, g := range m.groups {
		name, flags := g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC
		if !g.h.V2() {
			name, flags = filepath.Join(g.dir, "tasks"), unix.O_WRONLY|unix.O_CLOEXEC
		}
		fd, err := unix.Open(name, flags, 0)
		if err == unix.ENOENT {
			continue // the container needs no cgroup in this hierarchy
		}
		if err == nil && fd < least {
			var high int
			high, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, least)
			unix.Close(fd)
			fd = high
		}
		if err != nil {
			e.Close()
			return nil, fault.New(fault.Internal, "open cgroup", name, "%w", err)
		}
		if g.h.V2() {
			e.Unified = fd
		} else {
			e.Tasks = append(e.Tasks, fd)
		}
	}
	return e, nil
}

// Update changes limits; what r leaves unset stays as it is.
func (m *Manager) Update(r *specs.LinuxResources) error {
	settings, err := m.settings(r)
	if err != nil {
		return err
	}
	for _, g := range m.groups {
		if !m.wanted(g.h, settings) {
			continue
		}
		if _, err := os.Stat(g.dir); err == nil {
			continue
		}
		if err := m.make(g); err != nil {
			return err
		}
		if err := m.move(g); err != nil {
			return err
		}
	}
	if err := m.apply(settings); err != nil {
		return err
	}
	if len(r.Devices) == 0 {
		return nil
	}
	return m.setDevices(r)
}

// move brings all processes of the container into g, until no new one appears
// outside of it.
func (m *Manager) move(g group) error {
	moved := map[int]bool{}
	for range 100 {
		pids, err := m.Pids()
		if err != nil {
			return err
		}
		fresh := false
		for _, pid := range pids {
			if moved[pid] {
				continue
			}
			fresh, moved[pid] = true, true
			err := write(g.dir, "cgroup.procs", fmt.Sprint(pid))
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fault.New(fault.Internal, "move process to cgroup", g.dir, "%w", err)
			}
		}
		if !fresh {
			return nil
		}
	}
	return nil
}

// write writes a value to a file of a cgroup in one system call.
func write(dir, file, value string) error {
	name := filepath.Join(dir, file)
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	for {
		if _, err = unix.Write(fd, []byte(value)); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return &os.PathError{Op: "write " + value + " to", Path: name, Err: err}
	}
	return nil
}
