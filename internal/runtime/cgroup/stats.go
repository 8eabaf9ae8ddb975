// Package cgroup makes, limits, measures and removes the control groups of a
// container on cgroup v1, hybrid and v2 hosts. It exists because the general
// libraries of the field cost more at start than the whole of a container's
// creation may take here.
package cgroup

// Stats are the counters of one container's cgroup. Times are nanoseconds,
// sizes bytes.
type Stats struct {
	CPU     CPUStats
	Memory  MemoryStats
	Pids    PidsStats
	BlockIO []BlockIOEntry
	HugeTLB map[string]HugeTLBStats // by page size, as in "2MB"
}

// CPUStats counts processor time.
type CPUStats struct {
	Usage, User, Kernel       uint64
	PerCPU                    []uint64
	Periods, ThrottledPeriods uint64
	ThrottledTime             uint64
}

// MemoryStats counts memory. Limit is math.MaxUint64 when there is none.
type MemoryStats struct {
	Usage, MaxUsage, Limit uint64
	SwapUsage, SwapLimit   uint64
	KernelUsage            uint64
	Failcnt                uint64
	Raw                    map[string]uint64 // memory.stat as it is
}

// PidsStats counts tasks. Limit is 0 when there is none.
type PidsStats struct{ Current, Limit uint64 }

// BlockIOEntry is the traffic of one device.
type BlockIOEntry struct {
	Major, Minor                             uint64
	ReadBytes, WriteBytes, ReadOps, WriteOps uint64
}

// HugeTLBStats counts huge pages of one size.
type HugeTLBStats struct{ Usage, MaxUsage, Failcnt uint64 }
