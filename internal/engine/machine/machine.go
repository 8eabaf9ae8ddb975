// Package machine reads what the host is and what its kernel can do, from the files
// in which the kernel and the distribution say so. Nothing of it depends on what the
// engine does; requests are judged against it, and clients are told of it.
package machine

import (
	"bufio"
	"cmp"
	"os"
	"runtime"
	"strconv"
	"strings"

	"berth/internal/engine/vocabulary"

	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"
)

// Look returns what requests are judged against. What the engine itself offers is left
// for it to fill in.
func Look() vocabulary.Host {
	h := vocabulary.Host{
		CPUs:     runtime.NumCPU(),
		CgroupV2: cgroupV2(),
		AppArmor: read("/sys/module/apparmor/parameters/enabled") == "Y",
		SELinux:  exists("/sys/fs/selinux/enforce"),
	}
	if h.CgroupV2 {
		h.IOWeight = strings.Contains(" "+read("/sys/fs/cgroup/cgroup.controllers")+" ", " io ")
	} else {
		h.IOWeight = exists("/sys/fs/cgroup/blkio/blkio.weight") || exists("/sys/fs/cgroup/blkio/blkio.bfq.weight")
	}
	// As in "0" or "0-1": only the last number counts.
	online := read("/sys/devices/system/node/online")
	if last, err := strconv.Atoi(online[strings.LastIndexAny(online, "-,")+1:]); err == nil {
		h.Nodes = last + 1
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.Memory = int64(uint64(info.Totalram) * uint64(info.Unit))
	}
	return h
}

// cgroupV2 reports whether cgroup v2 alone is in use; a hybrid host counts as v1
// because the controllers are there.
func cgroupV2() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// Boot returns the id of the running boot.
func Boot() string { return read("/proc/sys/kernel/random/boot_id") }

// LastCap returns the highest capability that the kernel knows.
func LastCap() int {
	if n, err := strconv.Atoi(read("/proc/sys/kernel/cap_last_cap")); err == nil {
		return n
	}
	return 40 // CAP_CHECKPOINT_RESTORE, the last one since Linux 5.9
}

// Name returns the host's name.
func Name() string { return read("/proc/sys/kernel/hostname") }

// Kernel returns the release of the kernel.
func Kernel() string { return read("/proc/sys/kernel/osrelease") }

// Describe fills in what clients are told of a machine with cgroup v2 alone, or with v1.
func Describe(info *system.Info, v2 bool) {
	info.Architecture, info.KernelVersion, info.Name = architecture(), Kernel(), Name()
	info.OperatingSystem, info.OSVersion = cmp.Or(osRelease("PRETTY_NAME"), "Linux"), osRelease("VERSION_ID")
	info.CgroupVersion = "1"
	info.SecurityOptions = []string{"name=seccomp,profile=builtin"}
	if v2 {
		info.CgroupVersion = "2"
		info.SecurityOptions = append(info.SecurityOptions, "name=cgroupns")
	}
	limits(info, v2)
}

// limits tells which limits the host's cgroups can hold.
func limits(info *system.Info, v2 bool) {
	has := func(controller, file string) bool { return exists("/sys/fs/cgroup/" + controller + "/" + file) }
	if v2 {
		controllers := " " + read("/sys/fs/cgroup/cgroup.controllers") + " "
		on := func(name string) bool { return strings.Contains(controllers, " "+name+" ") }
		info.MemoryLimit, info.SwapLimit = on("memory"), on("memory") && exists("/proc/swaps")
		info.CPUShares, info.CPUCfsPeriod, info.CPUCfsQuota = on("cpu"), on("cpu"), on("cpu")
		info.CPUSet, info.PidsLimit = on("cpuset"), on("pids")
	} else {
		info.MemoryLimit = has("memory", "memory.limit_in_bytes")
		info.SwapLimit = has("memory", "memory.memsw.limit_in_bytes")
		info.OomKillDisable = has("memory", "memory.oom_control")
		info.CPUShares = has("cpu", "cpu.shares")
		info.CPUCfsPeriod, info.CPUCfsQuota = has("cpu", "cpu.cfs_period_us"), has("cpu", "cpu.cfs_quota_us")
		info.CPUSet, info.PidsLimit = has("cpuset", "cpuset.cpus"), has("pids", "")
	}
	info.IPv4Forwarding = read("/proc/sys/net/ipv4/ip_forward") == "1"
	for _, w := range []struct {
		ok   bool
		text string
	}{
		{info.MemoryLimit, "WARNING: No memory limit support"}, {info.SwapLimit, "WARNING: No swap limit support"},
		{info.CPUShares, "WARNING: No cpu shares support"}, {info.PidsLimit, "WARNING: No pids limit support"},
		{info.IPv4Forwarding, "WARNING: IPv4 forwarding is disabled"},
	} {
		if !w.ok {
			info.Warnings = append(info.Warnings, w.text)
		}
	}
}

// architecture is what uname calls the processor.
func architecture() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return runtime.GOARCH
	}
	return unix.ByteSliceToString(u.Machine[:])
}

// osRelease returns one value of /etc/os-release.
func osRelease(key string) string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), "="); ok && k == key {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

func read(path string) string {
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
