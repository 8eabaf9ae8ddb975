package spec

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"berth/internal/engine/vocabulary"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// buildDevices returns the device nodes to make and the rules of the device
// cgroup. The runtime adds the few that every container has.
func buildDevices(hc *container.HostConfig) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	if hc.Privileged {
		devices, err := hostDevices()
		if err != nil {
			return nil, nil, err
		}
		for _, d := range hc.Devices {
			extra, _, err := mapDevice(d)
			if err != nil {
				return nil, nil, err
			}
			devices = addDevices(devices, extra)
		}
		return devices, []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, nil
	}
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	var devices []specs.LinuxDevice
	for _, d := range hc.Devices {
		nodes, allow, err := mapDevice(d)
		if err != nil {
			return nil, nil, err
		}
		devices = addDevices(devices, nodes)
		rules = append(rules, allow...)
	}
	for _, text := range hc.DeviceCgroupRules {
		r, err := vocabulary.ParseDeviceRule(text)
		if err != nil {
			return nil, nil, err
		}
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: r.Kind, Major: r.Major, Minor: r.Minor, Access: r.Access})
	}
	return devices, rules, nil
}

// addDevices appends nodes; a later one replaces an earlier one of its path.
func addDevices(all, more []specs.LinuxDevice) []specs.LinuxDevice {
	for _, d := range more {
		at := slices.IndexFunc(all, func(have specs.LinuxDevice) bool { return have.Path == d.Path })
		if at >= 0 {
			all[at] = d
		} else {
			all = append(all, d)
		}
	}
	return all
}

// mapDevice maps one device of the host, or all those in a directory.
func mapDevice(d container.DeviceMapping) ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	access := d.CgroupPermissions
	if access == "" {
		access = "rwm"
	}
	inside := d.PathInContainer
	if inside == "" {
		inside = d.PathOnHost
	}
	wrap := func(err error) error {
		return fault.New(fault.Invalid, "", "", "error gathering device information while adding custom device %q: %w", d.PathOnHost, err)
	}
	info, err := os.Stat(d.PathOnHost) // a link to a device is followed, as its user expects
	if err != nil {
		if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, nil, wrap(err)
	}
	var nodes []specs.LinuxDevice
	if info.IsDir() {
		dir, err := filepath.EvalSymlinks(d.PathOnHost) // a walk does not follow the link that it begins at
		if err == nil {
			nodes, err = devicesBelow(dir, inside)
		}
		if err != nil {
			return nil, nil, wrap(err)
		}
	} else if dev, ok := node(d.PathOnHost, inside); ok {
		nodes = append(nodes, dev)
	}
	if len(nodes) == 0 {
		return nil, nil, wrap(errors.New("not a device node"))
	}
	rules := make([]specs.LinuxDeviceCgroup, 0, len(nodes))
	for _, n := range nodes {
		major, minor := n.Major, n.Minor
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: n.Type, Major: &major, Minor: &minor, Access: access})
	}
	return nodes, rules, nil
}

// notDevices are directories below /dev which hold something else, or what each
// container has of its own.
var notDevices = []string{"/dev/pts", "/dev/shm", "/dev/fd", "/dev/mqueue", "/dev/.lxc", "/dev/.lxd-mounts", "/dev/.udev", "/dev/console"}

// hostDevices returns all devices of the host, for privileged containers.
func hostDevices() ([]specs.LinuxDevice, error) {
	list, err := devicesBelow("/dev", "/dev")
	return list, fault.Wrap("list devices", "/dev", err)
}

// devicesBelow lists the device nodes in a directory tree. Entries that vanish
// while it is read do not matter.
func devicesBelow(dir, inside string) ([]specs.LinuxDevice, error) {
	var out []specs.LinuxDevice
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && p != dir {
				return nil
			}
			return err
		}
		if slices.Contains(notDevices, p) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 {
			return nil
		}
		if d, ok := node(p, path.Join(inside, strings.TrimPrefix(p, dir))); ok {
			out = append(out, d)
		}
		return nil
	})
	return out, err
}

// node describes a device node of the host under the path it gets inside.
func node(host, inside string) (specs.LinuxDevice, bool) {
	var st unix.Stat_t
	if unix.Stat(host, &st) != nil {
		return specs.LinuxDevice{}, false
	}
	kind := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		kind = "c"
	case unix.S_IFBLK:
		kind = "b"
	default:
		return specs.LinuxDevice{}, false
	}
	mode := os.FileMode(st.Mode & 0o777)
	return specs.LinuxDevice{
		Path: inside, Type: kind, FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
		Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
	}, true
}
