package spec

import (
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	nanoPeriod  = 100_000 // microseconds, the period that --cpus is counted in
	nanosPerCPU = 1_000_000_000
)

// buildResources returns the limits; the zero value of each field is "no limit".
func buildResources(hc *container.HostConfig, host vocabulary.Host) (*specs.LinuxResources, error) {
	r := &specs.LinuxResources{Memory: memory(hc, host), CPU: cpu(hc)}
	if hc.PidsLimit != nil && *hc.PidsLimit > 0 {
		r.Pids = &specs.LinuxPids{Limit: hc.PidsLimit}
	}
	var err error
	r.BlockIO, err = blockIO(hc)
	return r, err
}

func memory(hc *container.HostConfig, host vocabulary.Host) *specs.LinuxMemory {
	m, set := &specs.LinuxMemory{}, false
	positive := func(to **int64, v int64) {
		if v != 0 {
			*to, set = &v, true
		}
	}
	positive(&m.Limit, hc.Memory)
	positive(&m.Reservation, hc.MemoryReservation)
	positive(&m.Swap, hc.MemorySwap)
	if s := hc.MemorySwappiness; s != nil && *s >= 0 && !host.CgroupV2 {
		v := uint64(*s)
		m.Swappiness, set = &v, true
	}
	if k := hc.OomKillDisable; k != nil && *k && !host.CgroupV2 {
		m.DisableOOMKiller, set = k, true
	}
	if !set {
		return nil
	}
	return m
}

func cpu(hc *container.HostConfig) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: hc.CpusetCpus, Mems: hc.CpusetMems}
	set := c.Cpus != "" || c.Mems != ""
	unsigned := func(to **uint64, v int64) {
		if v > 0 {
			u := uint64(v)
			*to, set = &u, true
		}
	}
	signed := func(to **int64, v int64) {
		if v != 0 {
			*to, set = &v, true
		}
	}
	period, quota := hc.CPUPeriod, hc.CPUQuota
	if hc.NanoCPUs > 0 {
		period, quota = nanoPeriod, hc.NanoCPUs*nanoPeriod/nanosPerCPU
	}
	unsigned(&c.Shares, hc.CPUShares)
	unsigned(&c.Period, period)
	signed(&c.Quota, quota)
	unsigned(&c.RealtimePeriod, hc.CPURealtimePeriod)
	signed(&c.RealtimeRuntime, hc.CPURealtimeRuntime)
	if !set {
		return nil
	}
	return c
}

func blockIO(hc *container.HostConfig) (*specs.LinuxBlockIO, error) {
	b, set := &specs.LinuxBlockIO{}, false
	if hc.BlkioWeight > 0 {
		w := hc.BlkioWeight
		b.Weight, set = &w, true
	}
	for _, d := range hc.BlkioWeightDevice {
		major, minor, err := blockDevice(d.Path)
		if err != nil {
			return nil, err
		}
		w := d.Weight
		dev := specs.LinuxWeightDevice{Weight: &w}
		dev.Major, dev.Minor = major, minor
		b.WeightDevice, set = append(b.WeightDevice, dev), true
	}
	for _, t := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{hc.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice}, {hc.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{hc.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice}, {hc.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			major, minor, err := blockDevice(d.Path)
			if err != nil {
				return nil, err
			}
			dev := specs.LinuxThrottleDevice{Rate: d.Rate}
			dev.Major, dev.Minor = major, minor
			*t.to, set = append(*t.to, dev), true
		}
	}
	if !set {
		return nil, nil
	}
	return b, nil
}

func blockDevice(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, fault.New(fault.Invalid, "", "", "block device %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, fault.New(fault.Invalid, "", "", "%s is not a block device", path)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}

// Resources returns the limits of a host configuration, to be changed on a
// running container. A pids limit of zero or less lifts the limit.
func Resources(hc *container.HostConfig, host vocabulary.Host) (*specs.LinuxResources, error) {
	r, err := buildResources(hc, host)
	if err == nil && hc.PidsLimit != nil && *hc.PidsLimit <= 0 {
		none := int64(-1)
		r.Pids = &specs.LinuxPids{Limit: &none}
	}
	return r, err
}
