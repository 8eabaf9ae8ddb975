// Package systemd asks the service manager for the cgroup of a container, on
// hosts where the service manager wants to be the only one who makes cgroups.
// It exists because the general D-Bus library costs more at start than the
// whole of a container's creation may take here.
package systemd

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"berth/internal/fault"
)

// patience is how long the service manager may take.
const patience = 30 * time.Second

// sockets are where it listens: its own, and the system bus.
var sockets = []string{"/run/systemd/private", "/run/dbus/system_bus_socket", "/var/run/dbus/system_bus_socket"}

// Property is a property of a unit. Values are string, bool, uint64 or []uint32.
type Property struct {
	Name  string
	Value any
}

// Running reports whether systemd is this host's service manager.
func Running() bool {
	st, err := os.Stat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// Unit is a scope to be made.
type Unit struct {
	Name  string // such as berth-<id>.scope
	Slice string
}

// ParseUnit reads a cgroupsPath of the form "slice:prefix:name". Empty parts,
// or an empty path, mean system.slice, berth, and the container's id.
func ParseUnit(cgroupsPath, id string) (Unit, error) {
	if cgroupsPath == "" {
		cgroupsPath = "::"
	}
	parts := strings.Split(cgroupsPath, ":")
	if len(parts) != 3 {
		return Unit{}, fault.New(fault.Invalid, "check", "linux.cgroupsPath", "%q is not of the form slice:prefix:name, which --systemd-cgroup needs", cgroupsPath)
	}
	slice, prefix, name := parts[0], parts[1], parts[2]
	if slice == "" {
		slice = "system.slice"
	}
	if name == "" {
		name = id
		if prefix == "" {
			prefix = "berth"
		}
	}
	if slice != "-.slice" && (!strings.HasSuffix(slice, ".slice") || strings.ContainsAny(slice, "/\x00") || strings.HasPrefix(slice, "-")) {
		return Unit{}, fault.New(fault.Invalid, "check", "linux.cgroupsPath", "%q is no slice", slice)
	}
	unit := name + ".scope"
	if prefix != "" {
		unit = prefix + "-" + unit
	}
	for _, c := range []byte(unit) {
		if c <= ' ' || c == '/' || c >= 0x7f {
			return Unit{}, fault.New(fault.Invalid, "check", "linux.cgroupsPath", "%q is no name of a unit", unit)
		}
	}
	return Unit{Name: unit, Slice: slice}, nil
}

// Path is the cgroup of the unit below the root of a hierarchy.
func (u Unit) Path() string {
	dir := "/"
	if u.Slice != "-.slice" {
		// a-b.slice lies in a.slice.
		parts := strings.Split(strings.TrimSuffix(u.Slice, ".slice"), "-")
		for i := range parts {
			dir = path.Join(dir, strings.Join(parts[:i+1], "-")+".slice")
		}
	}
	return path.Join(dir, u.Name)
}

// Start makes the scope with a process in it, which keeps it until others are
// there, and returns once the process was moved.
func (u Unit) Start(pid int, properties []Property) error {
	all := append([]Property{
		{"Description", "container " + strings.TrimSuffix(u.Name, ".scope")},
		{"Slice", u.Slice},
		{"PIDs", []uint32{uint32(pid)}},
		{"Delegate", true},
		{"DefaultDependencies", false},
		{"MemoryAccounting", true},
		{"CPUAccounting", true},
		{"IOAccounting", true},
		{"TasksAccounting", true},
		{"CollectMode", "inactive-or-failed"},
	}, properties...)
	var b body
	b.str(u.Name)
	b.str("replace")
	b.properties(all)
	b.array(8, func() {}) // no further units
	if err := u.manage("StartTransientUnit", "ssa(sv)a(sa(sv))", b.b); err != nil {
		return err
	}
	return u.await(pid)
}

// Set changes properties of the scope, so that the service manager does not
// undo what was written to its cgroup.
func (u Unit) Set(properties []Property) error {
	if len(properties) == 0 {
		return nil
	}
	var b body
	b.str(u.Name)
	b.boolean(true) // until the next boot
	b.properties(properties)
	return u.manage("SetUnitProperties", "sba(sv)", b.b)
}

func (e *body) properties(list []Property) {
	e.array(8, func() {
		for _, p := range list {
			e.property(p)
		}
	})
}

// manage calls a method of the service manager.
func (u Unit) manage(method, signature string, args []byte) error {
	var errs []error
	for i, socket := range sockets {
		c, err := dial(socket, patience)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defer c.close()
		destination := ""
		if i > 0 { // through the bus
			destination = "org.freedesktop.systemd1"
			if err := c.call("/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", "org.freedesktop.DBus", "", nil); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		err = c.call("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", method, destination, signature, args)
		if err != nil {
			return fault.New(fault.Internal, "ask systemd for", u.Name, "%s: %w", method, err)
		}
		return nil
	}
	return fault.New(fault.Unavailable, "ask systemd for", u.Name, "%w", errors.Join(errs...))
}

// await waits until the process is in the scope's cgroup: the call returns when
// the job is queued.
func (u Unit) await(pid int) error {
	wait := time.Millisecond
	for end := time.Now().Add(patience); time.Now().Before(end); {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			return fault.New(fault.Internal, "make scope", u.Name, "%w", err)
		}
		if strings.Contains(string(text), u.Path()+"\n") {
			return nil
		}
		time.Sleep(wait)
		wait = min(2*wait, 50*time.Millisecond)
	}
	return fault.New(fault.Internal, "make scope", u.Name, "systemd did not move a process into it within %v", patience)
}
