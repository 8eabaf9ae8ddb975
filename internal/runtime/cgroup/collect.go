package cgroup

import (
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"berth/internal/runtime/smallfile"
)

// Stats reads the counters. What the host does not count is zero.
func (m *Manager) Stats() (*Stats, error) {
	s := &Stats{}
	if m.host.Pure2() {
		m.statsV2(s, m.unified())
	} else {
		m.statsV1(s)
	}
	return s, nil
}

// read returns a file's content, or "" for a file that is not there: counters
// come and go with kernel versions and configurations.
func read(dir, file string) string {
	if dir == "" {
		return ""
	}
	b, err := smallfile.Read(filepath.Join(dir, file), maxFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func readUint(dir, file string) uint64 {
	s := read(dir, file)
	if s == "max" {
		return math.MaxUint64
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// readMap reads lines of "key value".
func readMap(dir, file string) map[string]uint64 {
	text := read(dir, file)
	out := make(map[string]uint64, strings.Count(text, "\n")+1)
	for line := range strings.SplitSeq(text, "\n") {
		if k, v, ok := strings.Cut(line, " "); ok {
			if n, err := strconv.ParseUint(v, 10, 64); err == nil {
				out[k] = n
			}
		}
	}
	return out
}

func (m *Manager) statsV1(s *Stats) {
	const tick = 10_000_000 // nanoseconds of a clock tick, USER_HZ is 100 everywhere
	acct := m.dir("cpuacct")
	s.CPU.Usage = readUint(acct, "cpuacct.usage")
	for _, f := range strings.Fields(read(acct, "cpuacct.usage_percpu")) {
		n, _ := strconv.ParseUint(f, 10, 64)
		s.CPU.PerCPU = append(s.CPU.PerCPU, n)
	}
	stat := readMap(acct, "cpuacct.stat")
	s.CPU.User, s.CPU.Kernel = stat["user"]*tick, stat["system"]*tick
	cpu := readMap(m.dir("cpu"), "cpu.stat")
	s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_time"]

	mem := m.dir("memory")
	s.Memory = MemoryStats{
		Usage:       readUint(mem, "memory.usage_in_bytes"),
		MaxUsage:    readUint(mem, "memory.max_usage_in_bytes"),
		Limit:       unlimited(readUint(mem, "memory.limit_in_bytes")),
		SwapUsage:   readUint(mem, "memory.memsw.usage_in_bytes"),
		SwapLimit:   unlimited(readUint(mem, "memory.memsw.limit_in_bytes")),
		KernelUsage: readUint(mem, "memory.kmem.usage_in_bytes"),
		Failcnt:     readUint(mem, "memory.failcnt"),
		Raw:         readMap(mem, "memory.stat"),
	}
	pids := m.dir("pids")
	s.Pids.Current = readUint(pids, "pids.current")
	if n := readUint(pids, "pids.max"); n != math.MaxUint64 {
		s.Pids.Limit = n
	}
	m.blockIOV1(s)
}

// unlimited maps the page-aligned maximum that v1 shows for "no limit".
func unlimited(n uint64) uint64 {
	if n >= math.MaxInt64&^0xffff {
		return math.MaxUint64
	}
	return n
}

func (m *Manager) blockIOV1(s *Stats) {
	dir := m.dir("blkio")
	count := func(file string, bytes bool) {
		for line := range strings.SplitSeq(read(dir, file), "\n") {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			n, _ := strconv.ParseUint(f[2], 10, 64)
			e := s.device(f[0])
			switch {
			case e == nil:
			case f[1] == "Read" && bytes:
				e.ReadBytes = n
			case f[1] == "Write" && bytes:
				e.WriteBytes = n
			case f[1] == "Read":
				e.ReadOps = n
			case f[1] == "Write":
				e.WriteOps = n
			}
		}
	}
	count("blkio.throttle.io_service_bytes_recursive", true)
	count("blkio.throttle.io_serviced_recursive", false)
}

// device returns the entry of "major:minor", made when it is new.
func (s *Stats) device(id string) *BlockIOEntry {
	a, b, ok := strings.Cut(id, ":")
	major, err1 := strconv.ParseUint(a, 10, 64)
	minor, err2 := strconv.ParseUint(b, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return nil
	}
	for i := range s.BlockIO {
		if e := &s.BlockIO[i]; e.Major == major && e.Minor == minor {
			return e
		}
	}
	s.BlockIO = append(s.BlockIO, BlockIOEntry{Major: major, Minor: minor})
	return &s.BlockIO[len(s.BlockIO)-1]
}

func (m *Manager) statsV2(s *Stats, dir string) {
	const usec = 1000
	cpu := readMap(dir, "cpu.stat")
	s.CPU = CPUStats{
		Usage: cpu["usage_usec"] * usec, User: cpu["user_usec"] * usec, Kernel: cpu["system_usec"] * usec,
		Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"], ThrottledTime: cpu["throttled_usec"] * usec,
	}
	s.Memory = MemoryStats{
		Usage:     readUint(dir, "memory.current"),
		MaxUsage:  readUint(dir, "memory.peak"),
		Limit:     readUint(dir, "memory.max"),
		SwapUsage: readUint(dir, "memory.swap.current"),
		SwapLimit: readUint(dir, "memory.swap.max"),
		Failcnt:   readMap(dir, "memory.events")["max"],
		Raw:       readMap(dir, "memory.stat"),
	}
	s.Memory.KernelUsage = s.Memory.Raw["kernel"]
	s.Pids.Current = readUint(dir, "pids.current")
	if n := readUint(dir, "pids.max"); n != math.MaxUint64 {
		s.Pids.Limit = n
	}
	for line := range strings.SplitSeq(read(dir, "io.stat"), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		e := s.device(f[0])
		if e == nil {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseUint(v, 10, 64)
			switch k {
			case "rbytes":
				e.ReadBytes = n
			case "wbytes":
				e.WriteBytes = n
			case "rios":
				e.ReadOps = n
			case "wios":
				e.WriteOps = n
			}
		}
	}
	m.hugeTLB(s, dir)
}

func (m *Manager) hugeTLB(s *Stats, dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "hugetlb.*.current"))
	for _, f := range files {
		size := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "hugetlb."), ".current")
		if strings.HasSuffix(size, ".rsvd") {
			continue
		}
		if s.HugeTLB == nil {
			s.HugeTLB = map[string]HugeTLBStats{}
		}
		s.HugeTLB[size] = HugeTLBStats{
			Usage:   readUint(dir, "hugetlb."+size+".current"),
			Failcnt: readMap(dir, "hugetlb."+size+".events")["max"],
		}
	}
}

// OOMKills returns how many processes the kernel killed in the cgroup for lack
// of memory.
func (m *Manager) OOMKills() (uint64, error) {
	if m.host.Pure2() {
		return readMap(m.unified(), "memory.events")["oom_kill"], nil
	}
	return readMap(m.dir("memory"), "memory.oom_control")["oom_kill"], nil
}

// PeakMemory returns the most memory that the cgroup used at any time, in bytes;
// 0 where the kernel does not count that.
func (m *Manager) PeakMemory() uint64 {
	if m.host.Pure2() {
		return readUint(m.unified(), "memory.peak")
	}
	return readUint(m.dir("memory"), "memory.max_usage_in_bytes")
}
