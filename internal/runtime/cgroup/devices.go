package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Kinds of access to a device, in the kernel's numbers.
const (
	accMknod = 1 << iota
	accRead
	accWrite
	accAll = accMknod | accRead | accWrite
)

// wildcard stands for every major or minor number.
const wildcard = -1

// deviceRule is one exception from a device policy's default.
type deviceRule struct {
	typ          byte // 'c' or 'b'
	major, minor int64
	access       int
}

// devicePolicy is what a list of rules amounts to: everything is allowed or
// denied but for the exceptions.
type devicePolicy struct {
	allow      bool
	exceptions []deviceRule
}

// basicDevices are usable in every container, whatever its rules say: nodes may
// be made, and those that every program expects may be used.
var basicDevices = [...]deviceRule{
	{'c', wildcard, wildcard, accMknod},
	{'b', wildcard, wildcard, accMknod},
	{'c', 1, 3, accAll},          // null
	{'c', 1, 5, accAll},          // zero
	{'c', 1, 7, accAll},          // full
	{'c', 1, 8, accAll},          // random
	{'c', 1, 9, accAll},          // urandom
	{'c', 5, 0, accAll},          // tty
	{'c', 5, 2, accAll},          // ptmx
	{'c', 136, wildcard, accAll}, // pts
}

func parseRule(d *specs.LinuxDeviceCgroup, i int) (all bool, r deviceRule, err error) {
	field := fmt.Sprintf("devices[%d]", i)
	r.major, r.minor = wildcard, wildcard
	if d.Major != nil {
		r.major = *d.Major
	}
	if d.Minor != nil {
		r.minor = *d.Minor
	}
	for _, c := range d.Access {
		switch c {
		case 'r':
			r.access |= accRead
		case 'w':
			r.access |= accWrite
		case 'm':
			r.access |= accMknod
		default:
			return false, r, invalid(field+".access", "%q is not made of r, w and m", d.Access)
		}
	}
	switch d.Type {
	case "", "a":
		// The kernel reads "a" as all devices, whatever numbers follow, and so
		// do the field's runtimes.
		return true, r, nil
	case "c", "u":
		r.typ = 'c'
	case "b":
		r.typ = 'b'
	default:
		return false, r, invalid(field+".type", "%q is not a, b, c or u", d.Type)
	}
	if r.major < wildcard || r.minor < wildcard {
		return false, r, invalid(field, "device numbers can't be negative")
	}
	if r.access == 0 {
		return false, r, invalid(field+".access", "is empty")
	}
	return false, r, nil
}

// newPolicy folds the rules in their order, then the basic devices.
func newPolicy(rules []specs.LinuxDeviceCgroup) (*devicePolicy, error) {
	p := &devicePolicy{}
	for i := range rules {
		all, r, err := parseRule(&rules[i], i)
		if err != nil {
			return nil, err
		}
		if all {
			p.allow, p.exceptions = rules[i].Allow, nil
			continue
		}
		p.add(rules[i].Allow, r)
	}
	for _, r := range basicDevices {
		p.add(true, r)
	}
	return p, nil
}

// add applies one rule. A rule against the default becomes an exception; one
// with the default takes back access from the exceptions it covers.
func (p *devicePolicy) add(allow bool, r deviceRule) {
	if allow != p.allow {
		for i := range p.exceptions {
			e := &p.exceptions[i]
			if e.typ == r.typ && e.major == r.major && e.minor == r.minor {
				e.access |= r.access
				return
			}
		}
		p.exceptions = append(p.exceptions, r)
		return
	}
	for i := range p.exceptions {
		e := &p.exceptions[i]
		if e.typ == r.typ && (r.major == wildcard || r.major == e.major) && (r.minor == wildcard || r.minor == e.minor) {
			e.access &^= r.access
		}
	}
	p.exceptions = slices.DeleteFunc(p.exceptions, func(e deviceRule) bool { return e.access == 0 })
}

// setDevices puts the policy of r in force.
func (m *Manager) setDevices(r *specs.LinuxResources) error {
	var rules []specs.LinuxDeviceCgroup
	if r != nil {
		rules = r.Devices
	}
	p, err := newPolicy(rules)
	if err != nil {
		return err
	}
	dir := m.dir("devices")
	if dir != "" {
		err = p.writeV1(dir)
	} else if m.host.Pure2() {
		err = p.attach(m.unified())
	}
	// Inside of a user namespace the kernel lets nobody change device rules,
	// and lets nobody make device nodes either.
	if errors.Is(err, unix.EPERM) && inUserNamespace() {
		return nil
	}
	if err != nil {
		return fault.New(fault.Internal, "set", "linux.resources.devices", "%w", err)
	}
	return nil
}

func (p *devicePolicy) writeV1(dir string) error {
	reset, file := "devices.deny", "devices.allow"
	if p.allow {
		reset, file = file, reset
	}
	if err := write(dir, reset, "a"); err != nil {
		return err
	}
	name := filepath.Join(dir, file)
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	for _, e := range p.exceptions {
		if _, err := unix.Write(fd, []byte(e.String())); err != nil {
			return &os.PathError{Op: "write " + e.String() + " to", Path: name, Err: err}
		}
	}
	return nil
}

// String is the rule in the form of cgroup v1, such as "c 1:3 rwm".
func (r deviceRule) String() string {
	n := func(v int64) string {
		if v == wildcard {
			return "*"
		}
		return num(v)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%c %s:%s ", r.typ, n(r.major), n(r.minor))
	for i, c := range "rwm" {
		if r.access&[...]int{accRead, accWrite, accMknod}[i] != 0 {
			b.WriteRune(c)
		}
	}
	return b.String()
}
