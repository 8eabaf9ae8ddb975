package engine

import (
	"cmp"
	"context"
	"os"
	"runtime"
	"time"

	"berth/internal/engine/cdi"
	"berth/internal/engine/images"
	"berth/internal/engine/machine"
	"berth/internal/engine/vocabulary"
	"berth/internal/version"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/system"
)

// Info tells about the engine and its host, with docker's fields.
func (e *Engine) Info(ctx context.Context) (system.Info, error) {
	all, err := e.images.List(ctx)
	if err != nil {
		return system.Info{}, err
	}
	descriptors, _ := os.ReadDir("/proc/self/fd")
	info := system.Info{
		ID:                 e.id,
		Images:             len(all),
		Driver:             images.StorageDriver,
		DriverStatus:       [][2]string{{"Mount API", "fsopen"}, {"Backing", e.cfg.Root}},
		Debug:              e.live().Debug,
		NFd:                len(descriptors),
		NGoroutines:        runtime.NumGoroutine(),
		SystemTime:         time.Now().Format(time.RFC3339Nano),
		LoggingDriver:      "json-file",
		CgroupDriver:       "cgroupfs",
		NEventsListener:    e.bus.Readers(),
		OSType:             "linux",
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     e.reach.Describe(),
		NCPU:               e.host.CPUs,
		MemTotal:           e.host.Memory,
		DockerRootDir:      e.cfg.Root,
		Labels:             append([]string{}, e.live().Labels...),
		ServerVersion:      e.version(),
		DefaultRuntime:     "runc",
		Runtimes:           e.runtimes(),
		LiveRestoreEnabled: !e.cfg.StopsContainers,
		InitBinary:         "docker-init",
		HTTPProxy:          os.Getenv("HTTP_PROXY"), HTTPSProxy: os.Getenv("HTTPS_PROXY"), NoProxy: os.Getenv("NO_PROXY"),
		FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		CDISpecDirs:     cdi.Dirs,
		Warnings:        []string{},
	}
	info.Swarm.LocalNodeState = "inactive"
	info.Plugins = system.PluginsInfo{
		Volume: []string{"local"}, Network: []string{"bridge", "host", "null"}, Log: vocabulary.LogDrivers,
	}
	if d := e.live().Defaults; d != nil {
		info.LoggingDriver, info.DefaultRuntime = cmp.Or(d.LogDriver, info.LoggingDriver), cmp.Or(d.Runtime, info.DefaultRuntime)
	}
	e.countContainers(&info)
	machine.Describe(&info, e.host.CgroupV2)
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
		GitCommit: e.cfg.Commit, KernelVersion: machine.Kernel(),
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
