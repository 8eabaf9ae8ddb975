package vocabulary

import (
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// defaultShm is the size of /dev/shm in bytes.
const defaultShm = 64 << 20

// maskedPaths and readonlyPaths are docker's.
var (
	maskedPaths = [...]string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = [...]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// defaultNetwork is the default bridge, unless only others are named: whoever
// names networks and no mode wants those, and not the bridge beside them.
func (r *Request) defaultNetwork() container.NetworkMode {
	if r.Networking == nil { // steps of builds name no networks
		return network.NetworkBridge
	}
	names := slices.Sorted(maps.Keys(r.Networking.EndpointsConfig))
	for _, name := range names {
		if !container.NetworkMode(name).IsUserDefined() {
			return network.NetworkBridge
		}
	}
	if len(names) > 0 {
		return container.NetworkMode(names[0])
	}
	return network.NetworkBridge
}

// Default writes out what the user left open and docker's clients expect to see
// in inspect. It runs before Check.
func (r *Request) Default() {
	hc := r.HostConfig
	if r.Config.NetworkDisabled && (hc.NetworkMode == "" || hc.NetworkMode == network.NetworkDefault) {
		hc.NetworkMode = network.NetworkNone
	}
	if hc.NetworkMode == "" || hc.NetworkMode == network.NetworkDefault {
		hc.NetworkMode = r.defaultNetwork()
	}
	if hc.RestartPolicy.Name == "" {
		hc.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if hc.LogConfig.Type == "" {
		hc.LogConfig.Type = LogJSONFile
	}
	if hc.LogConfig.Config == nil {
		hc.LogConfig.Config = map[string]string{}
	}
	if hc.IpcMode == "" {
		hc.IpcMode = container.IPCModePrivate
	}
	if hc.CgroupnsMode == "" {
		hc.CgroupnsMode = container.CgroupnsModeHost
		if r.Host.CgroupV2 {
			hc.CgroupnsMode = container.CgroupnsModePrivate
		}
	}
	if hc.ShmSize == 0 {
		hc.ShmSize = defaultShm
	}
	if hc.Runtime == "" {
		hc.Runtime = "runc"
	}
	if hc.Memory > 0 && hc.MemorySwap == 0 {
		hc.MemorySwap = 2 * hc.Memory
	}
	if hc.OomKillDisable == nil && !r.Host.CgroupV2 {
		off := false
		hc.OomKillDisable = &off
	}
	if strings.HasPrefix(string(hc.Cgroup), "/sys/fs/cgroup/") {
		hc.Cgroup = "" // what inspect showed of another container
	}
	r.defaultPaths()
	for p := range hc.PortBindings {
		if r.Config.ExposedPorts == nil {
			r.Config.ExposedPorts = make(network.PortSet)
		}
		r.Config.ExposedPorts[p] = struct{}{}
	}
}

// defaultPaths fills in the masked and read-only paths. An empty list, unlike a
// missing one, means none; privileged containers have none.
func (r *Request) defaultPaths() {
	hc := r.HostConfig
	sec, err := ParseSecurity(hc.SecurityOpt, r.Host)
	open := hc.Privileged || (err == nil && sec.PathsUnconfined)
	if hc.MaskedPaths == nil {
		hc.MaskedPaths = []string{}
		if !open {
			hc.MaskedPaths = append(hc.MaskedPaths, maskedPaths[:]...)
		}
	}
	if hc.ReadonlyPaths == nil {
		hc.ReadonlyPaths = []string{}
		if !open {
			hc.ReadonlyPaths = append(hc.ReadonlyPaths, readonlyPaths[:]...)
		}
	}
}
