package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func bad(field, format string, args ...any) error {
	return fault.New(fault.Invalid, "check", field, format, args...)
}

// at names the i-th element of a list.
func at(list string, i int, field string) string {
	return fmt.Sprintf("%s[%d]%s", list, i, field)
}

// Namespaces tells how a container stands to each namespace.
type Namespaces map[specs.LinuxNamespaceType]string

// New reports whether the container gets a namespace of its own of this type.
func (n Namespaces) New(t specs.LinuxNamespaceType) bool { p, ok := n[t]; return ok && p == "" }

// Separate reports whether the container's namespace differs from ours, so far
// as the configuration tells.
func (n Namespaces) Separate(t specs.LinuxNamespaceType) bool { _, ok := n[t]; return ok }

// NamespacesOf collects the namespaces of s: the path to join, or "" for a new
// one.
func NamespacesOf(s *specs.Spec) Namespaces {
	n := Namespaces{}
	if s.Linux != nil {
		for _, ns := range s.Linux.Namespaces {
			n[ns.Type] = ns.Path
		}
	}
	return n
}

// Validate checks everything that can be known without touching the host.
// needRoot says whether the specification must name the root directory.
func Validate(s *specs.Spec, needRoot bool) error {
	checks := []func(*specs.Spec) error{
		version, namespaces, names, mappings, mounts, hooks, linuxPaths, devices, sysctls, timeOffsets, refused, numa,
	}
	for _, check := range checks {
		if err := check(s); err != nil {
			return err
		}
	}
	if needRoot {
		if s.Root == nil || s.Root.Path == "" {
			return bad("root.path", "is empty")
		}
		if strings.ContainsRune(s.Root.Path, 0) {
			return bad("root.path", "holds a zero byte")
		}
	}
	if s.Process == nil {
		return bad("process", "is missing")
	}
	return Process(s.Process)
}

func version(s *specs.Spec) error {
	if s.Version == "" {
		return bad("ociVersion", "is missing")
	}
	major, _, ok := strings.Cut(s.Version, ".")
	if !ok || major != "1" {
		return bad("ociVersion", "%q is not a version 1", s.Version)
	}
	return nil
}

func namespaces(s *specs.Spec) error {
	if s.Linux == nil {
		return nil
	}
	seen := map[specs.LinuxNamespaceType]bool{}
	for i, ns := range s.Linux.Namespaces {
		switch ns.Type {
		case specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace,
			specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace, specs.TimeNamespace:
		default:
			return bad(at("linux.namespaces", i, ".type"), "unknown namespace type %q", ns.Type)
		}
		if seen[ns.Type] {
			return bad(at("linux.namespaces", i, ".type"), "%q is listed twice", ns.Type)
		}
		seen[ns.Type] = true
		if ns.Path != "" && !filepath.IsAbs(ns.Path) {
			return bad(at("linux.namespaces", i, ".path"), "%q is not absolute", ns.Path)
		}
	}
	return nil
}

func names(s *specs.Spec) error {
	ns := NamespacesOf(s)
	for _, n := range [...]struct{ field, value string }{{"hostname", s.Hostname}, {"domainname", s.Domainname}} {
		switch {
		case n.value == "":
		case !ns.Separate(specs.UTSNamespace):
			return bad(n.field, "needs a uts namespace in linux.namespaces")
		case len(n.value) > 64:
			return bad(n.field, "is longer than 64 bytes")
		}
	}
	return nil
}

func mappings(s *specs.Spec) error {
	if s.Linux == nil {
		return nil
	}
	own := NamespacesOf(s).New(specs.UserNamespace)
	for _, m := range [...]struct {
		field string
		list  []specs.LinuxIDMapping
	}{{"linux.uidMappings", s.Linux.UIDMappings}, {"linux.gidMappings", s.Linux.GIDMappings}} {
		switch {
		case own && len(m.list) == 0:
			return bad(m.field, "is empty; a new user namespace needs it")
		case len(m.list) > 0 && !NamespacesOf(s).Separate(specs.UserNamespace):
			return bad(m.field, "needs a user namespace in linux.namespaces")
		}
		if err := checkMappings(m.field, m.list); err != nil {
			return err
		}
	}
	return nil
}

func checkMappings(field string, list []specs.LinuxIDMapping) error {
	for i, m := range list {
		if m.Size == 0 {
			return bad(at(field, i, ".size"), "is zero")
		}
		if uint64(m.ContainerID)+uint64(m.Size) > 1<<32 || uint64(m.HostID)+uint64(m.Size) > 1<<32 {
			return bad(at(field, i, ".size"), "reaches beyond the largest id")
		}
	}
	return nil
}

func mounts(s *specs.Spec) error {
	own := NamespacesOf(s).New(specs.MountNamespace)
	for i, m := range s.Mounts {
		switch {
		case m.Destination == "":
			return bad(at("mounts", i, ".destination"), "is empty")
		case strings.ContainsRune(m.Destination+m.Source, 0):
			return bad(at("mounts", i, ""), "holds a zero byte")
		case !own:
			return bad(at("mounts", i, ""), "needs a new mount namespace in linux.namespaces")
		case (len(m.UIDMappings) > 0) != (len(m.GIDMappings) > 0):
			return bad(at("mounts", i, ""), "uidMappings and gidMappings need each other")
		}
		if err := checkMappings(at("mounts", i, ".uidMappings"), m.UIDMappings); err != nil {
			return err
		}
		if err := checkMappings(at("mounts", i, ".gidMappings"), m.GIDMappings); err != nil {
			return err
		}
	}
	return nil
}

func hooks(s *specs.Spec) error {
	if s.Hooks == nil {
		return nil
	}
	for _, h := range [...]struct {
		field string
		list  []specs.Hook
	}{
		{"hooks.prestart", s.Hooks.Prestart}, {"hooks.createRuntime", s.Hooks.CreateRuntime},
		{"hooks.createContainer", s.Hooks.CreateContainer}, {"hooks.startContainer", s.Hooks.StartContainer},
		{"hooks.poststart", s.Hooks.Poststart}, {"hooks.poststop", s.Hooks.Poststop},
	} {
		for i, hook := range h.list {
			if !filepath.IsAbs(hook.Path) {
				return bad(at(h.field, i, ".path"), "%q is not absolute", hook.Path)
			}
			if hook.Timeout != nil && *hook.Timeout <= 0 {
				return bad(at(h.field, i, ".timeout"), "%d is not positive", *hook.Timeout)
			}
		}
	}
	return nil
}

func linuxPaths(s *specs.Spec) error {
	if s.Linux == nil {
		return nil
	}
	own := NamespacesOf(s).New(specs.MountNamespace)
	for _, p := range [...]struct {
		field string
		list  []string
	}{{"linux.maskedPaths", s.Linux.MaskedPaths}, {"linux.readonlyPaths", s.Linux.ReadonlyPaths}} {
		for i, path := range p.list {
			if !filepath.IsAbs(path) {
				return bad(at(p.field, i, ""), "%q is not absolute", path)
			}
			if !own {
				return bad(at(p.field, i, ""), "needs a new mount namespace in linux.namespaces")
			}
		}
	}
	switch s.Linux.RootfsPropagation {
	case "", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable":
	default:
		return bad("linux.rootfsPropagation", "unknown propagation %q", s.Linux.RootfsPropagation)
	}
	return nil
}

func devices(s *specs.Spec) error {
	if s.Linux == nil {
		return nil
	}
	for i, d := range s.Linux.Devices {
		if !filepath.IsAbs(d.Path) {
			return bad(at("linux.devices", i, ".path"), "%q is not absolute", d.Path)
		}
		switch d.Type {
		case "c", "b", "u":
			if d.Major < 0 || d.Minor < 0 {
				return bad(at("linux.devices", i, ""), "device numbers can't be negative")
			}
		case "p":
		default:
			return bad(at("linux.devices", i, ".type"), "%q is not b, c, u or p", d.Type)
		}
	}
	return nil
}

// ipcSysctls are those that belong to an ipc namespace besides fs.mqueue.*.
var ipcSysctls = [...]string{
	"kernel.auto_msgmni", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.msg_next_id",
	"kernel.sem", "kernel.sem_next_id", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
	"kernel.shm_next_id", "kernel.shm_rmid_forced",
}

func sysctls(s *specs.Spec) error {
	if s.Linux == nil {
		return nil
	}
	ns := NamespacesOf(s)
	for key := range s.Linux.Sysctl {
		field := "linux.sysctl[" + key + "]"
		name := strings.ReplaceAll(key, "/", ".")
		var need specs.LinuxNamespaceType
		switch {
		case slices.Contains(strings.Split(key, "/"), ".."), strings.ContainsRune(key, 0):
			return bad(field, "is no name of a kernel parameter")
		case slices.Contains(ipcSysctls[:], name), strings.HasPrefix(name, "fs.mqueue."):
			need = specs.IPCNamespace
		case strings.HasPrefix(name, "net."):
			need = specs.NetworkNamespace
		case name == "kernel.domainname", name == "kernel.hostname":
			need = specs.UTSNamespace
		default:
			return bad(field, "is a parameter of the whole machine, not of a container")
		}
		if !ns.Separate(need) {
			return bad(field, "needs a %s namespace in linux.namespaces", need)
		}
		if name == "kernel.hostname" && s.Hostname != "" {
			return bad(field, "contradicts hostname")
		}
	}
	return nil
}

func timeOffsets(s *specs.Spec) error {
	if s.Linux == nil {
		return nil
	}
	for clock, o := range s.Linux.TimeOffsets {
		field := "linux.timeOffsets[" + clock + "]"
		switch {
		case clock != "monotonic" && clock != "boottime":
			return bad(field, "is neither monotonic nor boottime")
		case !NamespacesOf(s).New(specs.TimeNamespace):
			return bad(field, "needs a new time namespace in linux.namespaces")
		case o.Nanosecs > 999_999_999:
			return bad(field+".nanosecs", "%d is a second or more", o.Nanosecs)
		}
	}
	return nil
}

// refused names what this runtime does not offer, so that nothing is ignored
// silently.
func refused(s *specs.Spec) error {
	if s.Linux == nil {
		return nil
	}
	no := func(field, why string) error { return fault.New(fault.Unsupported, "check", field, "%s", why) }
	if s.Linux.IntelRdt != nil {
		return no("linux.intelRdt", "resource director technology is not supported")
	}
	for name := range s.Linux.NetDevices {
		return no("linux.netDevices["+name+"]", "moving network devices is not supported; give the container a network namespace by path")
	}
	if p := s.Linux.Personality; p != nil {
		if p.Domain != specs.PerLinux && p.Domain != specs.PerLinux32 {
			return bad("linux.personality.domain", "unknown domain %q", p.Domain)
		}
		if len(p.Flags) > 0 {
			return no("linux.personality.flags", "the specification defines none")
		}
	}
	return nil
}
