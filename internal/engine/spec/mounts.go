package spec

import (
	"slices"
	"strconv"
	"strings"

	"berth/internal/container/reaper"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"
	"berth/internal/runtime/plan"
	"berth/internal/volume"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// buildMounts returns the mounts in the order in which they must be made, and
// the propagation of the root which they need.
func buildMounts(in *Input, security vocabulary.Security) ([]specs.Mount, string, error) {
	user := userMounts(in)
	base := baseMounts(in, security)
	all := make([]specs.Mount, 0, len(base)+len(user))
	for _, m := range base {
		if !hidden(m.Destination, user) {
			all = append(all, m)
		}
	}
	propagation := ""
	for _, m := range user {
		if m.Type == mount.TypeTmpfs {
			all = append(all, specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: m.Options})
			continue
		}
		if m.Type == mount.TypeImage {
			all = append(all, imageMount(m))
			continue
		}
		p, err := rootPropagation(m)
		if err != nil && m.Implied {
			p, m.Propagation, err = "", "", nil
		}
		if err != nil {
			return nil, "", err
		}
		if p == "rshared" || propagation == "" {
			propagation = p
		}
		all = append(all, specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: bindOptions(m)})
	}
	return all, propagation, nil
}

// baseMounts are docker's.
func baseMounts(in *Input, security vocabulary.Security) []specs.Mount {
	hc := in.Record.HostConfig
	access := "ro"
	if hc.Privileged {
		access = "rw"
	}
	cgroupAccess := access
	if security.WritableCgroups {
		cgroupAccess = "rw"
	}
	m := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{cgroupAccess, "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}
	switch {
	case in.NoIPC:
	case in.ShmSource != "":
		m = append(m, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: in.ShmSource, Options: []string{"rbind", "rprivate"}})
	default:
		m = append(m, specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(hc.ShmSize, 10)}})
	}
	return m
}

// hidden reports whether a mount of the user's takes the place of a default one.
func hidden(dst string, user []volume.Mount) bool {
	for _, m := range user {
		if m.Destination == dst || (m.Destination == "/dev" && strings.HasPrefix(dst, "/dev/")) {
			return true
		}
	}
	return false
}

// userMounts adds the engine's three files to the record's mounts and sorts: a
// mount point comes before what is mounted below it.
func userMounts(in *Input) []volume.Mount {
	all := slices.Clone(in.Record.Mounts)
	for _, f := range [...]struct{ source, dst string }{
		{in.Resolv, "/etc/resolv.conf"}, {in.HostnameFile, "/etc/hostname"}, {in.Hosts, "/etc/hosts"},
	} {
		taken := slices.ContainsFunc(all, func(m volume.Mount) bool { return m.Destination == f.dst })
		if f.source != "" && !taken {
			all = append(all, volume.Mount{Type: mount.TypeBind, Source: f.source, Destination: f.dst, ReadOnly: in.Record.HostConfig.ReadonlyRootfs})
		}
	}
	if wantsInit(in) {
		all = append(all, volume.Mount{Type: mount.TypeBind, Source: in.InitFile, Destination: reaper.Path, ReadOnly: true})
	}
	slices.SortStableFunc(all, func(a, b volume.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	return all
}

// imageMount is an overlay of the image's layers that nobody writes to.
func imageMount(m volume.Mount) specs.Mount {
	opts := make([]string, 0, len(m.Lower)+2)
	opts = append(opts, "ro")
	if m.Subpath != "" {
		opts = append(opts, plan.SubdirOption+m.Subpath)
	}
	for _, dir := range m.Lower {
		opts = append(opts, "lowerdir+="+dir)
	}
	return specs.Mount{Destination: m.Destination, Type: "overlay", Source: "overlay", Options: opts}
}

func bindOptions(m volume.Mount) []string {
	opts := make([]string, 0, 4)
	if m.Subpath != "" {
		opts = append(opts, plan.SubdirOption+m.Subpath)
	}
	if m.NonRecursive {
		opts = append(opts, "bind")
	} else {
		opts = append(opts, "rbind")
	}
	p := m.Propagation
	if p == "" {
		p = mount.PropagationRPrivate
	}
	opts = append(opts, string(p))
	if m.ReadOnly {
		// The recursive form also reaches what is mounted below the source.
		if m.ReadOnlyShallow || m.NonRecursive {
			opts = append(opts, "ro")
		} else {
			opts = append(opts, "rro")
		}
	}
	return opts
}

// rootPropagation checks that the host's mount allows the propagation which a
// bind asks for, and returns what the container's root needs for it.
func rootPropagation(m volume.Mount) (string, error) {
	switch m.Propagation {
	case mount.PropagationShared, mount.PropagationRShared:
		return "rshared", needPropagation(m, "shared:")
	case mount.PropagationSlave, mount.PropagationRSlave:
		return "rslave", needPropagation(m, "shared:", "master:")
	}
	return "", nil
}

func needPropagation(m volume.Mount, any ...string) error {
	infos, err := mountinfo.GetMounts(mountinfo.ParentsFilter(m.Source))
	if err != nil {
		return fault.Wrap("read mounts of", m.Source, err)
	}
	var nearest *mountinfo.Info
	for _, i := range infos {
		if nearest == nil || len(i.Mountpoint) >= len(nearest.Mountpoint) {
			nearest = i
		}
	}
	if nearest != nil {
		for _, want := range any {
			if strings.Contains(nearest.Optional, want) {
				return nil
			}
		}
	}
	return fault.New(fault.Invalid, "", "", "path %s is mounted, but its mount does not propagate: %s is not possible", m.Source, m.Propagation).
		WithHint("make the mount shared on the host: mount --make-rshared")
}
