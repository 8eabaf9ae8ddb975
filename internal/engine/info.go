package engine

import (
	"bufio"
	"cmp"
	"context"
	"os"
	"runtime"
	"strings"
	"time"

	"berth/internal/engine/cdi"
	"berth/internal/engine/images"
	"berth/internal/engine/vocabulary"
	"berth/internal/version"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"
)

// Info tells about the engine and its host, with docker's fields.
func (e *Engine) Info(ctx context.Context) (system.Info, error) {
	all, err := e.images.List(ctx)
	if err != nil {
		return system.Info{}, err
	}
	info := system.Info{
		ID:                 e.id,
		Images:             len(all),
		Driver:             images.StorageDriver,
		DriverStatus:       [][2]string{{"Mount API", "fsopen"}, {"Backing", e.cfg.Root}},
		Debug:              e.live().Debug,
		NFd:                countEntries("/proc/self/fd"),
		NGoroutines:        runtime.NumGoroutine(),
		SystemTime:         time.Now().Format(time.RFC3339Nano),
		LoggingDriver:      "json-file",
		CgroupDriver:       "cgroupfs",
		CgroupVersion:      "1",
		NEventsListener:    e.bus.Readers(),
		OSType:             "linux",
		Architecture:       machine(),
		OperatingSystem:    osName(),
		OSVersion:          osRelease("VERSION_ID"),
		KernelVersion:      kernel(),
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     e.reach.Describe(),
		NCPU:               e.host.CPUs,
		MemTotal:           e.host.Memory,
		DockerRootDir:      e.cfg.Root,
		Name:               readTrimmed("/proc/sys/kernel/hostname"),
		Labels:             append([]string{}, e.live().Labels...),
		ServerVersion:      e.version(),
		DefaultRuntime:     "runc",
		Runtimes:           e.runtimes(),
		LiveRestoreEnabled: !e.cfg.StopsContainers,
		SecurityOptions:    securityOptions(e.host.CgroupV2),
		InitBinary:         "docker-init",
		HTTPProxy:          os.Getenv("HTTP_PROXY"), HTTPSProxy: os.Getenv("HTTPS_PROXY"), NoProxy: os.Getenv("NO_PROXY"),
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		CDISpecDirs:     cdi.Dirs,
		Warnings:        []string{},
	}
	if e.host.CgroupV2 {
		info.CgroupVersion = "2"
	}
	info.Swarm.LocalNodeState = "inactive"
	info.Plugins = system.PluginsInfo{
		Volume: []string{"local"}, Network: []string{"bridge", "host", "null"}, Log: vocabulary.LogDrivers,
	}
	if d := e.live().Defaults; d != nil {
		info.LoggingDriver, info.DefaultRuntime = cmp.Or(d.LogDriver, info.LoggingDriver), cmp.Or(d.Runtime, info.DefaultRuntime)
	}
	e.countContainers(&info)
	e.limits(&info)
	return info, nil
}

func (e *Engine) countContainers(info *system.Info) {
	for _, c := range e.containers.All() {
		info.Containers++
		switch c.State().Status {
		case api.StateRunning, api.StateRestarting:
			info.ContainersRunning++
		case api.StatePaused:
			info.ContainersPaused++
		default:
			info.ContainersStopped++
		}
	}
}

// limits tells which limits the host's cgroups can hold.
func (e *Engine) limits(info *system.Info) {
	has := func(controller, file string) bool { return exists("/sys/fs/cgroup/" + controller + "/" + file) }
	if e.host.CgroupV2 {
		controllers := " " + readTrimmed("/sys/fs/cgroup/cgroup.controllers") + " "
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
	info.IPv4Forwarding = readTrimmed("/proc/sys/net/ipv4/ip_forward") == "1"
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

// runtimes lists the built-in runtime under the names that clients know.
func (e *Engine) runtimes() map[string]system.RuntimeWithStatus {
	all := map[string]system.RuntimeWithStatus{}
	for _, name := range []string{"runc", "berth", "io.containerd.runc.v2"} {
		r := system.RuntimeWithStatus{}
		r.Path = e.cfg.RuntimeBinary
		all[name] = r
	}
	for name, path := range e.cfg.Runtimes {
		r := system.RuntimeWithStatus{}
		r.Path = path
		all[name] = r
	}
	return all
}

func securityOptions(v2 bool) []string {
	opts := []string{"name=seccomp,profile=builtin"}
	if v2 {
		opts = append(opts, "name=cgroupns")
	}
	return opts
}

func (e *Engine) version() string {
	if e.cfg.Version != "" {
		return e.cfg.Version
	}
	return version.String()
}

// Version tells about the programs of the engine. The API fills in its versions.
func (e *Engine) Version(context.Context) (system.VersionResponse, error) {
	v := system.VersionResponse{
		Version: e.version(), Os: "linux", Arch: runtime.GOARCH, GoVersion: runtime.Version(),
		GitCommit: e.cfg.Commit, KernelVersion: kernel(),
	}
	v.Platform.Name = "Berth"
	v.Components = []system.ComponentVersion{{
		Name: "Engine", Version: v.Version,
		Details: map[string]string{
			"Arch": v.Arch, "GitCommit": v.GitCommit, "GoVersion": v.GoVersion, "KernelVersion": v.KernelVersion, "Os": v.Os, "Experimental": "false",
		},
	}, {
		Name: "berth-runtime", Version: v.Version, Details: map[string]string{"GitCommit": v.GitCommit},
	}}
	return v, nil
}

func countEntries(dir string) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	return len(entries)
}

func kernel() string { return readTrimmed("/proc/sys/kernel/osrelease") }

// machine is what uname calls the processor.
func machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return runtime.GOARCH
	}
	return unix.ByteSliceToString(u.Machine[:])
}

func osName() string {
	if name := osRelease("PRETTY_NAME"); name != "" {
		return name
	}
	return "Linux"
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
