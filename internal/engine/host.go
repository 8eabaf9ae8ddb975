package engine

import (
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"berth/internal/engine/vocabulary"

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

func readTrimmed(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
