package engine

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"berth/internal/container/reaper"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// lookAtHost collects what requests are judged against. Nothing of it changes
// while the machine is up.
func (e *Engine) lookAtHost() {
	e.boot = readTrimmed("/proc/sys/kernel/random/boot_id")
	e.lastCap = 40
	if n, err := strconv.Atoi(readTrimmed("/proc/sys/kernel/cap_last_cap")); err == nil {
		e.lastCap = n
	}
	e.host = vocabulary.Host{
		CPUs:     runtime.NumCPU(),
		CgroupV2: cgroupV2(),
		Runtimes: slices.Sorted(maps.Keys(e.cfg.Runtimes)),
		AppArmor: readTrimmed("/sys/module/apparmor/parameters/enabled") == "Y",
		SELinux:  exists("/sys/fs/selinux/enforce"),
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		e.host.Memory = int64(uint64(info.Totalram) * uint64(info.Unit))
	}
}

// cgroupV2 reports whether cgroup v2 alone is in use; a hybrid host counts as v1
// because the controllers are there.
func cgroupV2() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// initPath is the file of the init that --init puts into containers. It is below
// the data root because nothing may be executed from /run on many hosts.
func (e *Engine) initPath() string { return filepath.Join(e.cfg.Root, "init") }

// writeInit makes sure that the init's file is there and is this version's.
func (e *Engine) writeInit() error {
	image, err := reaper.Image()
	if err != nil {
		return fault.Wrap("make the init of containers", "", err)
	}
	if have, err := os.ReadFile(e.initPath()); err != nil || !bytes.Equal(have, image) {
		if err := writeFile(e.initPath(), image, 0o755); fault.Is(err, fault.Forbidden) || fault.Is(err, fault.Exhausted) {
			e.log.Error("containers cannot have an init", "error", err)
			return nil
		} else if err != nil {
			return err
		}
	}
	e.host.Init = true
	return nil
}
