package cgroup

import (
	"os"

	"berth/internal/fault"
)

// SystemdPath translates a cgroupsPath of the form "slice:prefix:name".
func SystemdPath(path, id string) (string, error) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return "", fault.New(fault.Unsupported, "make cgroup of", id, "systemd does not run on this host").WithHint("leave out --systemd-cgroup")
	}
	return "", fault.New(fault.Unsupported, "make cgroup of", id, "cgroups made by systemd are not supported")
}
