package vocabulary

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"berth/internal/engine/cdi"

	"github.com/moby/moby/api/types/blkiodev"
)

const (
	minMemory     = 6 << 20 // below this not even a shell starts
	minCPUPeriod  = 1000    // microseconds, the kernel's bounds
	maxCPUPeriod  = 1000000
	minCPUQuota   = 1000
	nanosPerCPU   = 1e9
	minCPUShares  = 2
	maxCPUShares  = 262144
	minBlkio      = 10
	maxBlkio      = 1000
	maxSwappiness = 100
)

func checkMemory(r *Request) error {
	m := &r.HostConfig.Resources
	switch {
	case m.Memory < 0 || m.MemoryReservation < 0:
		return invalid("a memory limit cannot be negative")
	case m.Memory > 0 && m.Memory < minMemory:
		return invalid("Minimum memory limit allowed is 6MB")
	case m.Memory == 0 && m.MemorySwap > 0:
		return invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case m.MemorySwap > 0 && m.MemorySwap < m.Memory:
		return invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case m.MemoryReservation > 0 && m.MemoryReservation < minMemory:
		return invalid("Minimum memory reservation allowed is 6MB")
	case m.Memory > 0 && m.MemoryReservation > m.Memory:
		return invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	if s := m.MemorySwappiness; s != nil && *s != -1 {
		if *s < 0 || *s > maxSwappiness {
			return invalid("invalid value: %d, valid memory swappiness range is 0-100", *s)
		}
		if r.Host.CgroupV2 {
			r.warn("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
		}
	}
	if k := m.OomKillDisable; k != nil && *k {
		if r.Host.CgroupV2 {
			r.warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
		} else if m.Memory == 0 {
			r.warn("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
		}
	}
	if p := m.PidsLimit; p != nil && *p < -1 {
		return invalid("invalid value %d for PidsLimit: use -1 or 0 for no limit", *p)
	}
	return nil
}

func checkCPU(r *Request) error {
	c := &r.HostConfig.Resources
	switch {
	case c.NanoCPUs > 0 && (c.CPUPeriod > 0 || c.CPUQuota > 0):
		return invalid("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
	case c.NanoCPUs < 0 || c.NanoCPUs > int64(r.Host.CPUs)*nanosPerCPU:
		return invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", r.Host.CPUs, r.Host.CPUs)
	case c.NanoCPUs > 0 && c.NanoCPUs < nanosPerCPU/100:
		return invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", r.Host.CPUs, r.Host.CPUs)
	case c.CPUShares < 0 || (c.CPUShares > 0 && (c.CPUShares < minCPUShares || c.CPUShares > maxCPUShares)):
		return invalid("invalid value %d for CPU shares: the range is %d to %d", c.CPUShares, minCPUShares, maxCPUShares)
	case c.CPUPeriod != 0 && (c.CPUPeriod < minCPUPeriod || c.CPUPeriod > maxCPUPeriod):
		return invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case c.CPUQuota > 0 && c.CPUQuota < minCPUQuota:
		return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	if c.CPURealtimePeriod != 0 || c.CPURealtimeRuntime != 0 {
		if r.Host.CgroupV2 {
			return unsupported("HostConfig.CPURealtimePeriod and CPURealtimeRuntime", "cgroup v2 has no such limit")
		}
		if c.CPURealtimePeriod != 0 && c.CPURealtimeRuntime > c.CPURealtimePeriod {
			return invalid("cpu real-time runtime cannot be higher than cpu real-time period")
		}
	}
	return nil
}

func checkCpuset(r *Request) error {
	for _, s := range []struct {
		name, value, called string
		have                int
	}{{"cpus", r.HostConfig.CpusetCpus, "CPUs", r.Host.CPUs}, {"mems", r.HostConfig.CpusetMems, "memory nodes", r.Host.Nodes}} {
		top, err := cpusetTop(s.value)
		if err != nil {
			return invalid("Invalid value %s for cpuset %s", s.value, s.name)
		}
		if top >= s.have && s.have > 0 {
			return invalid("Requested %s are not available - requested %s, available: %s", s.called, s.value, upTo(s.have-1))
		}
	}
	return nil
}

// upTo writes the numbers from 0 to last as the kernel does.
func upTo(last int) string {
	if last == 0 {
		return "0"
	}
	return "0-" + strconv.Itoa(last)
}

// cpusetTop returns the highest number of a list like "0-2,7", -1 for "".
func cpusetTop(s string) (int, error) {
	top := -1
	if s == "" {
		return top, nil
	}
	for _, part := range strings.Split(s, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		a, err1 := strconv.ParseUint(lo, 10, 16)
		b, err2 := strconv.ParseUint(hi, 10, 16)
		if err1 != nil || err2 != nil || a > b {
			return 0, strconv.ErrSyntax
		}
		top = max(top, int(b))
	}
	return top, nil
}

func checkCgroupParent(r *Request) error {
	p := r.HostConfig.CgroupParent
	if slices.Contains(strings.Split(p, "/"), "..") {
		return invalid("invalid cgroup parent %q: it must not contain '..'", p)
	}
	if strings.HasSuffix(p, ".slice") {
		return unsupported("HostConfig.CgroupParent "+strconv.Quote(p)+" (a systemd slice)", "this engine manages cgroups itself: give a path")
	}
	return nil
}

func checkBlkio(r *Request) error {
	b := &r.HostConfig.Resources
	if w := b.BlkioWeight; w != 0 && (w < minBlkio || w > maxBlkio) {
		return invalid("Range of blkio weight is from 10 to 1000")
	}
	if (b.BlkioWeight != 0 || len(b.BlkioWeightDevice) > 0) && !r.Host.IOWeight {
		r.warn("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
	}
	for _, d := range b.BlkioWeightDevice {
		if d == nil || !path.IsAbs(d.Path) || d.Weight < minBlkio || d.Weight > maxBlkio {
			return invalid("invalid BlkioWeightDevice: a device path and a weight from 10 to 1000 are needed")
		}
	}
	for _, list := range [][]*blkiodev.ThrottleDevice{b.BlkioDeviceReadBps, b.BlkioDeviceWriteBps, b.BlkioDeviceReadIOps, b.BlkioDeviceWriteIOps} {
		for _, d := range list {
			if d == nil || !path.IsAbs(d.Path) {
				return invalid("invalid throttle device: a device path is needed")
			}
		}
	}
	return nil
}

func checkDevices(r *Request) error {
	for _, d := range r.HostConfig.Devices {
		if !path.IsAbs(d.PathOnHost) {
			return invalid("invalid device %q: the path on the host must be absolute", d.PathOnHost)
		}
		if d.PathInContainer != "" && !path.IsAbs(d.PathInContainer) {
			return invalid("invalid device %q: the path in the container must be absolute", d.PathInContainer)
		}
		if strings.Trim(d.CgroupPermissions, "rwm") != "" {
			return invalid("invalid device permissions %q: use letters of rwm", d.CgroupPermissions)
		}
	}
	return nil
}

// checkDeviceRequests allows devices of the Container Device Interface by name.
func checkDeviceRequests(r *Request) error {
	for _, d := range r.HostConfig.DeviceRequests {
		if d.Driver != "cdi" || len(d.DeviceIDs) == 0 {
			return unsupported("HostConfig.DeviceRequests without the driver cdi", "name the devices: --device vendor.com/class=name")
		}
		for _, id := range d.DeviceIDs {
			if !cdi.Qualified(id) {
				return invalid("invalid CDI device %q: the form is vendor.com/class=name", id)
			}
		}
	}
	return nil
}

// DeviceRule is one line for the device cgroup.
type DeviceRule struct {
	Kind         string // a, b or c
	Major, Minor *int64 // nil means any
	Access       string
}

func checkDeviceRules(r *Request) error {
	for _, s := range r.HostConfig.DeviceCgroupRules {
		if _, err := ParseDeviceRule(s); err != nil {
			return err
		}
	}
	return nil
}

// ParseDeviceRule reads "c 13:* rwm".
func ParseDeviceRule(s string) (DeviceRule, error) {
	wrong := invalid("invalid device cgroup rule format: '%s'", s)
	parts := strings.Fields(s)
	if len(parts) != 3 || !slices.Contains([]string{"a", "b", "c"}, parts[0]) || strings.Trim(parts[2], "rwm") != "" || parts[2] == "" {
		return DeviceRule{}, wrong
	}
	major, minor, ok := strings.Cut(parts[1], ":")
	if !ok {
		return DeviceRule{}, wrong
	}
	rule := DeviceRule{Kind: parts[0], Access: parts[2]}
	for _, n := range []struct {
		text string
		to   **int64
	}{{major, &rule.Major}, {minor, &rule.Minor}} {
		if n.text == "*" {
			continue
		}
		v, err := strconv.ParseUint(n.text, 10, 31)
		if err != nil {
			return DeviceRule{}, wrong
		}
		i := int64(v)
		*n.to = &i
	}
	return rule, nil
}

// rlimits are the limits that setrlimit(2) knows.
var rlimits = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue",
	"nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
}

func checkUlimits(r *Request) error {
	for _, u := range r.HostConfig.Ulimits {
		if u == nil || !slices.Contains(rlimits, u.Name) {
			name := ""
			if u != nil {
				name = u.Name
			}
			return invalid("invalid ulimit type: %s", name)
		}
		if u.Soft > u.Hard && u.Hard != -1 || u.Soft == -1 && u.Hard != -1 {
			return invalid("ulimit soft limit must be less than or equal to hard limit: %s", u)
		}
		if u.Soft < -1 || u.Hard < -1 {
			return invalid("invalid ulimit: %s", u)
		}
	}
	return nil
}
