package config

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// BlockSignals is the annotation, of any value, of a container whose program starts
// with all signals blocked. It is for programs that take signals by sigwait: the
// kernel drops what the first process of a pid namespace neither handles nor blocks,
// also while it has not come to say that it will.
const BlockSignals = "berth.block-signals"

// Process checks a process.
func Process(p *specs.Process) error {
	if len(p.Args) == 0 {
		return bad("process.args", "is empty")
	}
	if p.Args[0] == "" {
		return bad("process.args[0]", "is empty")
	}
	for i, a := range p.Args {
		if strings.ContainsRune(a, 0) {
			return bad(at("process.args", i, ""), "holds a zero byte")
		}
	}
	for i, e := range p.Env {
		if strings.ContainsRune(e, 0) {
			return bad(at("process.env", i, ""), "holds a zero byte")
		}
	}
	if !filepath.IsAbs(p.Cwd) {
		return bad("process.cwd", "%q is not absolute", p.Cwd)
	}
	if strings.ContainsRune(p.Cwd, 0) {
		return bad("process.cwd", "holds a zero byte")
	}
	if err := user(p.User); err != nil {
		return err
	}
	if p.OOMScoreAdj != nil && (*p.OOMScoreAdj < -1000 || *p.OOMScoreAdj > 1000) {
		return bad("process.oomScoreAdj", "%d is not between -1000 and 1000", *p.OOMScoreAdj)
	}
	for _, check := range []func(*specs.Process) error{rlimits, scheduler, ioPriority, affinity} {
		if err := check(p); err != nil {
			return err
		}
	}
	return nil
}

// user refuses ids that the kernel reads as "leave unchanged" or that older
// tools wrap to root.
func user(u specs.User) error {
	const none = 1<<32 - 1
	if u.UID == none {
		return bad("process.user.uid", "%d is no user id", u.UID)
	}
	if u.GID == none {
		return bad("process.user.gid", "%d is no group id", u.GID)
	}
	for i, g := range u.AdditionalGids {
		if g == none {
			return bad(at("process.user.additionalGids", i, ""), "%d is no group id", g)
		}
	}
	if len(u.AdditionalGids) > 65536 {
		return bad("process.user.additionalGids", "has %d entries; the kernel takes 65536", len(u.AdditionalGids))
	}
	if u.Umask != nil && *u.Umask > 0o777 {
		return bad("process.user.umask", "%o is not between 0 and 777", *u.Umask)
	}
	return nil
}

// Rlimit returns the kernel's number of a resource limit such as RLIMIT_NOFILE.
func Rlimit(name string) (int, bool) {
	names := [...]string{
		"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS",
		"RLIMIT_NPROC", "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING",
		"RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
	}
	for i, n := range names {
		if n == name {
			return i, true
		}
	}
	return 0, false
}

func rlimits(p *specs.Process) error {
	seen := map[string]bool{}
	for i, r := range p.Rlimits {
		if _, ok := Rlimit(r.Type); !ok {
			return bad(at("process.rlimits", i, ".type"), "unknown limit %q", r.Type)
		}
		if seen[r.Type] {
			return bad(at("process.rlimits", i, ".type"), "%s is listed twice", r.Type)
		}
		seen[r.Type] = true
		if r.Soft > r.Hard {
			return bad(at("process.rlimits", i, ".soft"), "%d is above the hard limit %d", r.Soft, r.Hard)
		}
	}
	return nil
}

// SchedPolicy returns the kernel's number of a scheduling policy.
func SchedPolicy(p specs.LinuxSchedulerPolicy) (uint32, bool) {
	switch p {
	case specs.SchedOther:
		return 0, true
	case specs.SchedFIFO:
		return 1, true
	case specs.SchedRR:
		return 2, true
	case specs.SchedBatch:
		return 3, true
	case specs.SchedISO:
		return 4, true
	case specs.SchedIdle:
		return 5, true
	case specs.SchedDeadline:
		return 6, true
	}
	return 0, false
}

// SchedFlag returns the kernel's bit of a scheduler flag.
func SchedFlag(f specs.LinuxSchedulerFlag) (uint64, bool) {
	for i, known := range [...]specs.LinuxSchedulerFlag{
		specs.SchedFlagResetOnFork, specs.SchedFlagReclaim, specs.SchedFlagDLOverrun, specs.SchedFlagKeepPolicy,
		specs.SchedFlagKeepParams, specs.SchedFlagUtilClampMin, specs.SchedFlagUtilClampMax,
	} {
		if f == known {
			return 1 << i, true
		}
	}
	return 0, false
}

func scheduler(p *specs.Process) error {
	s := p.Scheduler
	if s == nil {
		return nil
	}
	if _, ok := SchedPolicy(s.Policy); !ok {
		return bad("process.scheduler.policy", "unknown policy %q", s.Policy)
	}
	if s.Nice < -20 || s.Nice > 19 {
		return bad("process.scheduler.nice", "%d is not between -20 and 19", s.Nice)
	}
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	if s.Priority != 0 && !realtime {
		return bad("process.scheduler.priority", "is for SCHED_FIFO and SCHED_RR, not for %s", s.Policy)
	}
	if s.Policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0) {
		return bad("process.scheduler", "runtime, deadline and period are for SCHED_DEADLINE, not for %s", s.Policy)
	}
	for i, f := range s.Flags {
		if _, ok := SchedFlag(f); !ok {
			return bad(at("process.scheduler.flags", i, ""), "unknown flag %q", f)
		}
	}
	return nil
}

// IOPrioClass returns the kernel's number of an I/O scheduling class.
func IOPrioClass(c specs.IOPriorityClass) (int, bool) {
	switch c {
	case specs.IOPRIO_CLASS_RT:
		return 1, true
	case specs.IOPRIO_CLASS_BE:
		return 2, true
	case specs.IOPRIO_CLASS_IDLE:
		return 3, true
	}
	return 0, false
}

func ioPriority(p *specs.Process) error {
	if p.IOPriority == nil {
		return nil
	}
	if _, ok := IOPrioClass(p.IOPriority.Class); !ok {
		return bad("process.ioPriority.class", "unknown class %q", p.IOPriority.Class)
	}
	if n := p.IOPriority.Priority; n < 0 || n > 7 {
		return bad("process.ioPriority.priority", "%d is not between 0 and 7", n)
	}
	return nil
}

func affinity(p *specs.Process) error {
	if p.ExecCPUAffinity == nil {
		return nil
	}
	for _, l := range [...]struct{ field, list string }{
		{"initial", p.ExecCPUAffinity.Initial}, {"final", p.ExecCPUAffinity.Final},
	} {
		if _, err := Bits(l.list, 8192); err != nil {
			return bad("process.execCPUAffinity."+l.field, "%v", err)
		}
	}
	return nil
}

func numa(s *specs.Spec) error {
	if s.Linux == nil || s.Linux.MemoryPolicy == nil {
		return nil
	}
	p := s.Linux.MemoryPolicy
	if _, ok := MemoryMode(p.Mode); !ok {
		return bad("linux.memoryPolicy.mode", "unknown mode %q", p.Mode)
	}
	for i, f := range p.Flags {
		if _, ok := MemoryFlag(f); !ok {
			return bad(at("linux.memoryPolicy.flags", i, ""), "unknown flag %q", f)
		}
	}
	if _, err := Bits(p.Nodes, 1024); err != nil {
		return bad("linux.memoryPolicy.nodes", "%v", err)
	}
	return nil
}

// MemoryMode returns the kernel's number of a memory policy.
func MemoryMode(m specs.MemoryPolicyModeType) (int, bool) {
	for i, known := range [...]specs.MemoryPolicyModeType{
		specs.MpolDefault, specs.MpolPreferred, specs.MpolBind, specs.MpolInterleave,
		specs.MpolLocal, specs.MpolPreferredMany, specs.MpolWeightedInterleave,
	} {
		if m == known {
			return i, true
		}
	}
	return 0, false
}

// MemoryFlag returns the kernel's bit of a memory policy flag.
func MemoryFlag(f specs.MemoryPolicyFlagType) (int, bool) {
	switch f {
	case specs.MpolFStaticNodes:
		return 1 << 15, true
	case specs.MpolFRelativeNodes:
		return 1 << 14, true
	case specs.MpolFNumaBalancing:
		return 1 << 13, true
	}
	return 0, false
}

// Bits parses a list such as "0-3,7" into a bit set of 64-bit words. An empty
// list is nil.
func Bits(list string, limit int) ([]uint64, error) {
	if list == "" {
		return nil, nil
	}
	out := make([]uint64, limit/64)
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || a < 0 || b < a || b >= limit {
			return nil, fmt.Errorf("%q is not a list of numbers below %d", list, limit)
		}
		for n := a; n <= b; n++ {
			out[n/64] |= 1 << (n % 64)
		}
	}
	return out, nil
}
