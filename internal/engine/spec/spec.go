// Package spec turns a container's record into the runtime specification that
// starts it. It exists apart from the engine because this is where docker's
// promises about a container's insides are kept (which capabilities, which
// mounts in which order, which environment), and because it can be tested
// without starting anything: it reads the host's devices and nothing else.
package spec

import (
	"maps"
	"path"

	"berth/internal/container"
	"berth/internal/container/identity"
	"berth/internal/engine/vocabulary"
	"berth/internal/runtime/config"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultCgroupParent is where containers' cgroups are, below each hierarchy.
const DefaultCgroupParent = "/berth"

// defaultPath is the PATH of a container whose image names none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Namespace says which namespace of a kind a container gets.
type Namespace struct {
	Host bool   // the host's
	Path string // an existing one; "" means a new one
}

// Input is everything that a specification is made from.
type Input struct {
	Record   *container.Record
	Identity identity.Identity
	Hostname string // of the uts namespace, when it is a new one

	Net, IPC, PID, UTS Namespace
	Cgroupns           string // another container's cgroup namespace, for a mode that joins one

	// Files of the data directory that the container sees; "" means none.
	Resolv, Hosts, HostnameFile string
	// ShmSource is a directory to bind as /dev/shm; "" means a fresh tmpfs.
	ShmSource string
	// NoIPC leaves /dev/shm out.
	NoIPC bool
	// Bounded tells that files are counted which the container owns.
	Bounded bool
	// Links are variables that tell of links to other containers; the configured ones
	// replace them.
	Links []string
	// InitFile is the program that becomes process 1 with --init.
	InitFile string

	Host    vocabulary.Host
	LastCap int // number of the last capability of the running kernel
}

// Builder makes specifications and keeps what they have in common.
type Builder struct {
	filters filterCache
}

// Build returns the specification without its seccomp filter; Encode adds it.
func (b *Builder) Build(in Input) (*specs.Spec, error) {
	rec := in.Record
	hc := rec.HostConfig
	caps, err := vocabulary.Capabilities(hc.CapAdd, hc.CapDrop, hc.Privileged, in.LastCap)
	if err != nil {
		return nil, err
	}
	security, err := vocabulary.ParseSecurity(hc.SecurityOpt, in.Host)
	if err != nil {
		return nil, err
	}
	mounts, propagation, err := buildMounts(&in, security)
	if err != nil {
		return nil, err
	}
	devices, rules, err := buildDevices(hc)
	if err != nil {
		return nil, err
	}
	resources, err := buildResources(hc, in.Host)
	if err != nil {
		return nil, err
	}
	resources.Devices = rules
	s := &specs.Spec{
		Version:     specs.Version,
		Process:     buildProcess(&in, caps, security),
		Root:        &specs.Root{Path: "rootfs", Readonly: hc.ReadonlyRootfs},
		Mounts:      mounts,
		Annotations: annotations(&in),
		Linux: &specs.Linux{
			Namespaces:        namespaces(&in),
			Resources:         resources,
			CgroupsPath:       CgroupPath(rec),
			Devices:           devices,
			Sysctl:            hc.Sysctls,
			RootfsPropagation: propagation,
			MaskedPaths:       hc.MaskedPaths,
			ReadonlyPaths:     hc.ReadonlyPaths,
		},
	}
	if !in.UTS.Host && in.UTS.Path == "" {
		s.Hostname, s.Domainname = in.Hostname, rec.Config.Domainname
	}
	return s, nil
}

// wantsInit tells whether the container gets an init: only where process 1 is its
// own.
func wantsInit(in *Input) bool {
	hc := in.Record.HostConfig
	return hc.Init != nil && *hc.Init && hc.PidMode.IsPrivate() && in.InitFile != ""
}

// annotations are what the runtime is told beyond the specification's fields.
func annotations(in *Input) map[string]string {
	given := in.Record.HostConfig.Annotations
	if !wantsInit(in) {
		return given
	}
	all := make(map[string]string, len(given)+1)
	maps.Copy(all, given)
	all[config.BlockSignals] = "init"
	return all
}

// CgroupPath returns the path of a container's cgroup below each hierarchy.
func CgroupPath(rec *container.Record) string {
	parent := rec.HostConfig.CgroupParent
	if parent == "" {
		parent = DefaultCgroupParent
	}
	return path.Join("/", parent, rec.ID)
}

func namespaces(in *Input) []specs.LinuxNamespace {
	ns := make([]specs.LinuxNamespace, 0, 6)
	ns = append(ns, specs.LinuxNamespace{Type: specs.MountNamespace})
	for _, n := range [...]struct {
		kind specs.LinuxNamespaceType
		ns   Namespace
	}{
		{specs.NetworkNamespace, in.Net}, {specs.UTSNamespace, in.UTS},
		{specs.PIDNamespace, in.PID}, {specs.IPCNamespace, in.IPC},
	} {
		if !n.ns.Host {
			ns = append(ns, specs.LinuxNamespace{Type: n.kind, Path: n.ns.Path})
		}
	}
	if in.Record.HostConfig.CgroupnsMode.IsPrivate() || in.Cgroupns != "" {
		ns = append(ns, specs.LinuxNamespace{Type: specs.CgroupNamespace, Path: in.Cgroupns})
	}
	return ns
}
