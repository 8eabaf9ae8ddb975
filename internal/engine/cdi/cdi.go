// Package cdi gives containers devices that vendors describe in files (Container
// Device Interface, github.com/cncf-tags/container-device-interface): what a GPU
// needs of nodes, libraries, hooks and variables is the vendor's knowledge, and
// the engine only carries it out. Files are read at every start, since drivers
// write them anew when they are updated.
package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"gopkg.in/yaml.v3"
)

// Dirs are where specifications are, the standard's own: a later one wins.
var Dirs = []string{"/etc/cdi", "/var/run/cdi"}

// maxFile bounds one specification, in bytes.
const maxFile = 4 << 20

// document is one file. Fields that are not here are refused by name: a device
// that lacks what its vendor asks for does not work.
type document struct {
	Version     string            `json:"cdiVersion"`
	Kind        string            `json:"kind"`
	Annotations map[string]string `json:"annotations"`
	Devices     []device          `json:"devices"`
	Edits       edits             `json:"containerEdits"`
}

type device struct {
	Name        string            `json:"name"`
	Annotations map[string]string `json:"annotations"`
	Edits       edits             `json:"containerEdits"`
}

type edits struct {
	Env            []string `json:"env"`
	DeviceNodes    []node   `json:"deviceNodes"`
	Mounts         []mount  `json:"mounts"`
	Hooks          []hook   `json:"hooks"`
	AdditionalGIDs []uint32 `json:"additionalGids"`
}

type node struct {
	Path        string       `json:"path"`
	HostPath    string       `json:"hostPath"`
	Type        string       `json:"type"`
	Major       int64        `json:"major"`
	Minor       int64        `json:"minor"`
	FileMode    *os.FileMode `json:"fileMode"`
	Permissions string       `json:"permissions"`
	UID         *uint32      `json:"uid"`
	GID         *uint32      `json:"gid"`
}

type mount struct {
	HostPath      string   `json:"hostPath"`
	ContainerPath string   `json:"containerPath"`
	Type          string   `json:"type"`
	Options       []string `json:"options"`
}

type hook struct {
	Name    string   `json:"hookName"`
	Path    string   `json:"path"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
	Timeout *int     `json:"timeout"`
}

// Qualified reports whether a name is that of a device: vendor/class=name.
func Qualified(name string) bool {
	kind, dev, ok := strings.Cut(name, "=")
	vendor, class, slash := strings.Cut(kind, "/")
	return ok && slash && vendor != "" && class != "" && dev != "" && !strings.ContainsAny(name, " \t\n\x00") && !strings.HasPrefix(name, "/")
}

// Apply adds the named devices to a specification.
func Apply(s *specs.Spec, dirs, names []string) error {
	if len(names) == 0 {
		return nil
	}
	docs, broken, err := load(dirs)
	if err != nil {
		return err
	}
	general := map[*document]bool{}
	var missing []string
	for _, name := range names {
		kind, dev, _ := strings.Cut(name, "=")
		d, found := find(docs, kind, dev)
		if d == nil {
			missing = append(missing, name)
			continue
		}
		if !general[d] {
			general[d] = true
			if err := d.Edits.apply(s); err != nil {
				return err
			}
		}
		if err := found.Edits.apply(s); err != nil {
			return err
		}
	}
	if len(missing) == 0 {
		return nil
	}
	e := fault.New(fault.Invalid, "", "", "unresolvable CDI devices %s", strings.Join(missing, ", "))
	if broken != nil {
		return e.WithHint("a specification could not be read: %v", broken)
	}
	return e.WithHint("specifications are looked for in %s", strings.Join(dirs, " and "))
}

// find returns the last document that has a device, and the device.
func find(docs []*document, kind, name string) (*document, *device) {
	for _, d := range slices.Backward(docs) {
		if d.Kind != kind {
			continue
		}
		for i := range d.Devices {
			if d.Devices[i].Name == name {
				return d, &d.Devices[i]
			}
		}
	}
	return nil, nil
}

// load reads all specifications. One that can't be read is told about only when a
// device is missing.
func load(dirs []string) (docs []*document, broken, err error) {
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, fault.Wrap("read CDI specifications", dir, err)
		}
		for _, entry := range entries {
			switch filepath.Ext(entry.Name()) {
			case ".json", ".yaml", ".yml":
			default:
				continue
			}
			d, err := read(filepath.Join(dir, entry.Name()))
			if err != nil {
				broken = errors.Join(broken, err)
				continue
			}
			docs = append(docs, d)
		}
	}
	return docs, broken, nil
}

func read(path string) (*document, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fault.New(fault.Invalid, "read CDI specification", path, "not a file of at most %d bytes", maxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var any map[string]any
	if err := yaml.Unmarshal(text, &any); err != nil { // JSON is YAML
		return nil, fault.New(fault.Invalid, "read CDI specification", path, "%w", err)
	}
	if text, err = json.Marshal(any); err != nil {
		return nil, fault.New(fault.Invalid, "read CDI specification", path, "%w", err)
	}
	d := &document{}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(d); err != nil {
		return nil, fault.New(fault.Invalid, "read CDI specification", path, "%w", err)
	}
	return d, nil
}

func (e *edits) apply(s *specs.Spec) error {
	for _, v := range e.Env {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return fault.New(fault.Invalid, "apply CDI edits", v, "not a variable")
		}
		s.Process.Env = slices.DeleteFunc(s.Process.Env, func(have string) bool { return strings.HasPrefix(have, name+"=") })
		s.Process.Env = append(s.Process.Env, v)
	}
	for _, n := range e.DeviceNodes {
		if err := n.apply(s); err != nil {
			return err
		}
	}
	for _, m := range e.Mounts {
		if !filepath.IsAbs(m.HostPath) || !filepath.IsAbs(m.ContainerPath) {
			return fault.New(fault.Invalid, "apply CDI edits", m.ContainerPath, "a mount needs two absolute paths")
		}
		typ, options := m.Type, m.Options
		if typ == "" {
			typ = "bind"
		}
		if typ == "bind" && !slices.Contains(options, "bind") && !slices.Contains(options, "rbind") {
			options = append([]string{"rbind"}, options...)
		}
		s.Mounts = append(s.Mounts, specs.Mount{Source: m.HostPath, Destination: m.ContainerPath, Type: typ, Options: options})
	}
	for _, h := range e.Hooks {
		if err := h.apply(s); err != nil {
			return err
		}
	}
	for _, gid := range e.AdditionalGIDs {
		if gid != 0 && !slices.Contains(s.Process.User.AdditionalGids, gid) {
			s.Process.User.AdditionalGids = append(s.Process.User.AdditionalGids, gid)
		}
	}
	return nil
}

func (n node) apply(s *specs.Spec) error {
	host := n.HostPath
	if host == "" {
		host = n.Path
	}
	if !filepath.IsAbs(n.Path) {
		return fault.New(fault.Invalid, "apply CDI edits", n.Path, "a device node needs an absolute path")
	}
	d := specs.LinuxDevice{Path: n.Path, Type: n.Type, Major: n.Major, Minor: n.Minor, FileMode: n.FileMode, UID: n.UID, GID: n.GID}
	if d.Type == "" || d.Major == 0 && d.Type != "p" {
		var st unix.Stat_t
		if err := unix.Stat(host, &st); err != nil {
			return fault.New(fault.Invalid, "apply CDI edits", host, "%w", err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR:
			d.Type = "c"
		case unix.S_IFBLK:
			d.Type = "b"
		default:
			return fault.New(fault.Invalid, "apply CDI edits", host, "not a device")
		}
		d.Major, d.Minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
		if d.FileMode == nil {
			mode := os.FileMode(st.Mode & 0o777)
			d.FileMode = &mode
		}
		if d.UID == nil {
			d.UID = &st.Uid
		}
		if d.GID == nil {
			d.GID = &st.Gid
		}
	}
	access := n.Permissions
	if access == "" {
		access = "rwm"
	}
	s.Linux.Devices = append(slices.DeleteFunc(s.Linux.Devices, func(have specs.LinuxDevice) bool { return have.Path == d.Path }), d)
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
		specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: access})
	return nil
}

func (h hook) apply(s *specs.Spec) error {
	if s.Hooks == nil {
		s.Hooks = &specs.Hooks{}
	}
	one := specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout}
	switch h.Name {
	case "prestart":
		s.Hooks.Prestart = append(s.Hooks.Prestart, one) //nolint:staticcheck // vendors use it
	case "createRuntime":
		s.Hooks.CreateRuntime = append(s.Hooks.CreateRuntime, one)
	case "createContainer":
		s.Hooks.CreateContainer = append(s.Hooks.CreateContainer, one)
	case "startContainer":
		s.Hooks.StartContainer = append(s.Hooks.StartContainer, one)
	case "poststart":
		s.Hooks.Poststart = append(s.Hooks.Poststart, one)
	case "poststop":
		s.Hooks.Poststop = append(s.Hooks.Poststop, one)
	default:
		return fault.New(fault.Invalid, "apply CDI edits", h.Name, "no such hook")
	}
	return nil
}
