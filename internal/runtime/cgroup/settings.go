package cgroup

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// setting is one value for one file.
type setting struct {
	controller string
	file       string
	value      string
	field      string // of the specification, below linux.resources
	optional   bool   // a kernel without the file is no error
	try        bool   // no failure is an error
}

type settingList []setting

func (l *settingList) add(controller, file, value, field string) {
	*l = append(*l, setting{controller: controller, file: file, value: value, field: field})
}

func num[T ~int64 | ~uint64 | ~uint32 | ~uint16](n T) string { return fmt.Sprint(n) }

// limit prints a limit in the way of v2; -1 means none, as in the specification.
// Other negative numbers are left for the kernel to refuse.
func limit(n int64) string {
	if n == -1 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

func invalid(field, format string, args ...any) error {
	return fault.New(fault.Invalid, "check", "linux.resources."+field, format, args...)
}

// settings translates r for this host.
func (m *Manager) settings(r *specs.LinuxResources) ([]setting, error) {
	if r == nil {
		return nil, nil
	}
	var l settingList
	var err error
	if m.host.Pure2() {
		err = l.v2(r)
	} else {
		err = l.v1(r)
	}
	if err != nil {
		return nil, err
	}
	for _, s := range l {
		if !m.host.Pure2() && m.host.v1(s.controller) == nil && s.controller != "unified" {
			return nil, fault.New(fault.Unsupported, "set", "linux.resources."+s.field, "the cgroup controller %q is not mounted on this host", s.controller)
		}
	}
	return l, nil
}

// apply writes the settings.
func (m *Manager) apply(settings []setting) error {
	for _, s := range settings {
		dir := m.unified()
		if !m.host.Pure2() && s.controller != "unified" {
			dir = m.dir(s.controller)
		}
		err := write(dir, s.file, s.value)
		if err == nil || s.try || s.optional && errors.Is(err, unix.ENOENT) {
			continue
		}
		f := fault.New(fault.Internal, "set", "linux.resources."+s.field, "%w", err)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
			f.Kind = fault.Invalid
		case errors.Is(err, unix.ENOENT):
			f.Kind = fault.Unsupported
			return f.WithHint("this host's kernel or cgroup setup lacks %s", s.file)
		case errors.Is(err, unix.EBUSY) && s.controller == "memory":
			f.Kind = fault.Conflict
			return f.WithHint("the container uses more memory than that now")
		}
		return f
	}
	return nil
}

func (l *settingList) v1(r *specs.LinuxResources) error {
	if r.Memory != nil {
		l.v1Memory(r.Memory)
	}
	if c := r.CPU; c != nil {
		l.v1CPU(c)
	}
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit != 0 {
		l.add("pids", "pids.max", limit(*r.Pids.Limit), "pids.limit")
	}
	if r.BlockIO != nil {
		l.v1BlockIO(r.BlockIO)
	}
	for i, h := range r.HugepageLimits {
		l.add("hugetlb", "hugetlb."+h.Pagesize+".limit_in_bytes", num(h.Limit), fmt.Sprintf("hugepageLimits[%d]", i))
	}
	if n := r.Network; n != nil {
		if n.ClassID != nil {
			l.add("net_cls", "net_cls.classid", num(*n.ClassID), "network.classID")
		}
		for i, p := range n.Priorities {
			l.add("net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority), fmt.Sprintf("network.priorities[%d]", i))
		}
	}
	l.rdma(r)
	if len(r.Unified) > 0 {
		return fault.New(fault.Unsupported, "set", "linux.resources.unified", "this host has cgroup v1 controllers")
	}
	return nil
}

func (l *settingList) v1Memory(m *specs.LinuxMemory) {
	var lim, swap *int64
	if m.Limit != nil && *m.Limit != 0 {
		lim = m.Limit
	}
	if m.Swap != nil && *m.Swap != 0 {
		swap = m.Swap
	} else if lim != nil && *lim == -1 {
		swap = lim
	}
	// The kernel insists on limit <= memory+swap at every moment, so which has
	// to be set first depends on what there is now: try both ways.
	if lim != nil && swap != nil {
		l.add("memory", "memory.limit_in_bytes", num(*lim), "memory.limit")
		(*l)[len(*l)-1].try = true
	}
	if swap != nil {
		l.add("memory", "memory.memsw.limit_in_bytes", num(*swap), "memory.swap")
		// Without swap accounting "no limit" is what there is anyway.
		(*l)[len(*l)-1].optional = *swap == -1
	}
	if lim != nil {
		l.add("memory", "memory.limit_in_bytes", num(*lim), "memory.limit")
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		l.add("memory", "memory.soft_limit_in_bytes", num(*m.Reservation), "memory.reservation")
	}
	if m.Swappiness != nil {
		l.add("memory", "memory.swappiness", num(*m.Swappiness), "memory.swappiness")
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		l.add("memory", "memory.oom_control", "1", "memory.disableOOMKiller")
	}
}

func (l *settingList) v1CPU(c *specs.LinuxCPU) {
	if c.Shares != nil && *c.Shares != 0 {
		l.add("cpu", "cpu.shares", num(*c.Shares), "cpu.shares")
	}
	if c.Period != nil && *c.Period != 0 {
		l.add("cpu", "cpu.cfs_period_us", num(*c.Period), "cpu.period")
	}
	if c.Quota != nil && *c.Quota != 0 {
		l.add("cpu", "cpu.cfs_quota_us", num(*c.Quota), "cpu.quota")
	}
	if c.Burst != nil {
		l.add("cpu", "cpu.cfs_burst_us", num(*c.Burst), "cpu.burst")
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		l.add("cpu", "cpu.rt_period_us", num(*c.RealtimePeriod), "cpu.realtimePeriod")
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		l.add("cpu", "cpu.rt_runtime_us", num(*c.RealtimeRuntime), "cpu.realtimeRuntime")
	}
	if c.Idle != nil {
		l.add("cpu", "cpu.idle", num(*c.Idle), "cpu.idle")
	}
	l.cpuset(c)
}

func (l *settingList) cpuset(c *specs.LinuxCPU) {
	if c.Cpus != "" {
		l.add("cpuset", "cpuset.cpus", c.Cpus, "cpu.cpus")
	}
	if c.Mems != "" {
		l.add("cpuset", "cpuset.mems", c.Mems, "cpu.mems")
	}
}

func (l *settingList) v1BlockIO(b *specs.LinuxBlockIO) {
	if b.Weight != nil && *b.Weight != 0 {
		l.add("blkio", blkioFile("weight"), num(*b.Weight), "blockIO.weight")
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		l.add("blkio", "blkio.leaf_weight", num(*b.LeafWeight), "blockIO.leafWeight")
	}
	for i, d := range b.WeightDevice {
		field := fmt.Sprintf("blockIO.weightDevice[%d]", i)
		if d.Weight != nil {
			l.add("blkio", blkioFile("weight_device"), fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight), field)
		}
		if d.LeafWeight != nil {
			l.add("blkio", "blkio.leaf_weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.LeafWeight), field)
		}
	}
	throttle := func(list []specs.LinuxThrottleDevice, file, field string) {
		for i, d := range list {
			l.add("blkio", "blkio.throttle."+file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate), fmt.Sprintf("blockIO.%s[%d]", field, i))
		}
	}
	throttle(b.ThrottleReadBpsDevice, "read_bps_device", "throttleReadBpsDevice")
	throttle(b.ThrottleWriteBpsDevice, "write_bps_device", "throttleWriteBpsDevice")
	throttle(b.ThrottleReadIOPSDevice, "read_iops_device", "throttleReadIOPSDevice")
	throttle(b.ThrottleWriteIOPSDevice, "write_iops_device", "throttleWriteIOPSDevice")
}

// blkioFile names a weight file, which is another one under the BFQ scheduler.
func blkioFile(name string) string {
	if h, err := Detect(); err == nil {
		if blk := h.v1("blkio"); blk != nil {
			if _, err := os.Stat(filepath.Join(blk.Mount, "blkio."+name)); err != nil {
				return "blkio.bfq." + name
			}
		}
	}
	return "blkio." + name
}

func (l *settingList) rdma(r *specs.LinuxResources) {
	for dev, d := range r.Rdma {
		v := dev
		if d.HcaHandles != nil {
			v += " hca_handle=" + num(*d.HcaHandles)
		}
		if d.HcaObjects != nil {
			v += " hca_object=" + num(*d.HcaObjects)
		}
		l.add("rdma", "rdma.max", v, "rdma["+dev+"]")
	}
}

func (l *settingList) v2(r *specs.LinuxResources) error {
	if r.Memory != nil {
		if err := l.v2Memory(r.Memory); err != nil {
			return err
		}
	}
	if c := r.CPU; c != nil {
		l.v2CPU(c)
	}
	if r.Pids != nil && r.Pids.Limit != nil && *r.Pids.Limit != 0 {
		l.add("pids", "pids.max", limit(*r.Pids.Limit), "pids.limit")
	}
	if r.BlockIO != nil {
		l.v2BlockIO(r.BlockIO)
	}
	for i, h := range r.HugepageLimits {
		field := fmt.Sprintf("hugepageLimits[%d]", i)
		l.add("hugetlb", "hugetlb."+h.Pagesize+".max", num(h.Limit), field)
		l.add("hugetlb", "hugetlb."+h.Pagesize+".rsvd.max", num(h.Limit), field)
		(*l)[len(*l)-1].optional = true
	}
	if n := r.Network; n != nil && (n.ClassID != nil || len(n.Priorities) > 0) {
		return fault.New(fault.Unsupported, "set", "linux.resources.network", "cgroup v2 has no network classes")
	}
	l.rdma(r)
	for file, value := range r.Unified {
		if strings.Contains(file, "/") || !strings.Contains(file, ".") {
			return invalid("unified["+file+"]", "is no file of a cgroup")
		}
		controller, _, _ := strings.Cut(file, ".")
		l.add(controller, file, value, "unified["+file+"]")
	}
	return nil
}

func (l *settingList) v2Memory(m *specs.LinuxMemory) error {
	var lim, swap int64
	if m.Limit != nil {
		lim = *m.Limit
	}
	if m.Swap != nil {
		swap = *m.Swap
	}
	switch {
	case swap == 0 && lim == -1:
		swap = -1
	case swap > 0 && lim > 0:
		if swap < lim {
			return invalid("memory.swap", "%d is less than memory.limit %d; it counts memory and swap together", swap, lim)
		}
		swap -= lim
		l.add("memory", "memory.swap.max", num(swap), "memory.swap")
		swap = 0
	case swap > 0 && lim == 0:
		return invalid("memory.swap", "needs memory.limit on cgroup v2")
	}
	if swap != 0 {
		l.add("memory", "memory.swap.max", limit(swap), "memory.swap")
		(*l)[len(*l)-1].optional = swap == -1
	}
	if lim != 0 {
		l.add("memory", "memory.max", limit(lim), "memory.limit")
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		l.add("memory", "memory.low", limit(*m.Reservation), "memory.reservation")
	}
	return nil
}

func (l *settingList) v2CPU(c *specs.LinuxCPU) {
	if c.Idle != nil {
		l.add("cpu", "cpu.idle", num(*c.Idle), "cpu.idle")
	}
	if c.Shares != nil && *c.Shares != 0 {
		l.add("cpu", "cpu.weight", num(Weight(*c.Shares)), "cpu.shares")
	}
	quota, period := "max", ""
	if c.Quota != nil && *c.Quota > 0 {
		quota = num(*c.Quota)
	}
	if c.Period != nil && *c.Period != 0 {
		period = " " + num(*c.Period)
	}
	if c.Quota != nil && *c.Quota != 0 || period != "" {
		l.add("cpu", "cpu.max", quota+period, "cpu.quota")
	}
	if c.Burst != nil {
		l.add("cpu", "cpu.max.burst", num(*c.Burst), "cpu.burst")
	}
	l.cpuset(c)
}

// Weight converts cpu.shares (2..262144, default 1024) to cpu.weight (1..10000,
// default 100) by the quadratic in log space that meets all three points.
func Weight(shares uint64) uint64 {
	if shares <= 2 {
		return 1
	}
	if shares >= 262144 {
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (l *settingList) v2BlockIO(b *specs.LinuxBlockIO) {
	if b.Weight != nil && *b.Weight != 0 {
		// blkio.weight is 10..1000, io.weight 1..10000.
		w := 1 + (uint64(max(*b.Weight, 10))-10)*9999/990
		l.add("io", "io.weight", "default "+num(w), "blockIO.weight")
	}
	for i, d := range b.WeightDevice {
		if d.Weight != nil {
			l.add("io", "io.bfq.weight", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight), fmt.Sprintf("blockIO.weightDevice[%d]", i))
		}
	}
	throttle := func(list []specs.LinuxThrottleDevice, key, field string) {
		for i, d := range list {
			v := num(d.Rate)
			if d.Rate == 0 {
				v = "max"
			}
			l.add("io", "io.max", fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, key, v), fmt.Sprintf("blockIO.%s[%d]", field, i))
		}
	}
	throttle(b.ThrottleReadBpsDevice, "rbps", "throttleReadBpsDevice")
	throttle(b.ThrottleWriteBpsDevice, "wbps", "throttleWriteBpsDevice")
	throttle(b.ThrottleReadIOPSDevice, "riops", "throttleReadIOPSDevice")
	throttle(b.ThrottleWriteIOPSDevice, "wiops", "throttleWriteIOPSDevice")
}
