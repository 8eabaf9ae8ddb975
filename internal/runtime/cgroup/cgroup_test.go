package cgroup

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func ptr[T any](v T) *T { return &v }

func TestHybridLayout(t *testing.T) {
	h := &Host{}
	h.fromMounts([]byte(`25 30 0:21 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
26 25 0:22 / /sys/fs/cgroup/unified rw,nosuid shared:8 - cgroup2 cgroup2 rw,nsdelegate
27 25 0:23 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,name=systemd
28 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct
29 25 0:25 / /sys/fs/cgroup/memory rw shared:11 master:2 - cgroup cgroup rw,memory
30 25 0:26 /part /mnt/elsewhere rw - cgroup cgroup rw,pids
`))
	h.ownPaths([]byte("4:memory:/own/mem\n3:cpu,cpuacct:/\n2:name=systemd:/user\n0::/unified/own\n"))
	if h.Pure2() || h.Unified == nil || h.Unified.Own() != "/sys/fs/cgroup/unified/unified/own" {
		t.Errorf("unified: %+v", h.Unified)
	}
	if len(h.V1) != 3 || h.v1("cpuacct").Name != "cpu,cpuacct" || h.v1("memory").Own() != "/sys/fs/cgroup/memory/own/mem" ||
		h.v1("name=systemd").Own() != "/sys/fs/cgroup/systemd/user" || h.v1("pids") != nil {
		t.Errorf("v1: %+v", h.V1)
	}
}

func TestPathsThatAreNoContainer(t *testing.T) {
	for _, p := range []string{"", "/", "../x", "/a/../../b", "a/.."} {
		if _, err := New(p); err == nil {
			t.Errorf("%q was accepted", p)
		}
	}
}

// policy decides as the kernel would.
func (p *devicePolicy) allows(typ byte, major, minor int64, access int) bool {
	for _, e := range p.exceptions {
		if e.typ != typ || e.major != wildcard && e.major != major || e.minor != wildcard && e.minor != minor {
			continue
		}
		if !p.allow && access&^e.access == 0 {
			return true
		}
		if p.allow && access&e.access != 0 {
			return false
		}
	}
	return p.allow
}

// interpret runs a device program.
func interpret(t *testing.T, prog []bpfInsn, typ, access, major, minor uint32) bool {
	t.Helper()
	var r [11]uint64
	ctx := [3]uint32{typ | access<<16, major, minor}
	for pc := 0; pc < len(prog); pc++ {
		in := prog[pc]
		dst, src := in.regs&0xf, in.regs>>4
		switch in.code {
		case bpfLoadWord:
			r[dst] = uint64(ctx[in.off/4])
		case bpfMov:
			r[dst] = r[src]
		case bpfMovImm:
			r[dst] = uint64(in.imm)
		case bpfAnd32:
			r[dst] = uint64(uint32(r[dst]) & uint32(in.imm))
		case bpfShr:
			r[dst] >>= in.imm
		case bpfJneImm:
			if r[dst] != uint64(in.imm) {
				pc += int(in.off)
			}
		case bpfJne:
			if r[dst] != r[src] {
				pc += int(in.off)
			}
		case 0x05:
			pc += int(in.off)
		case bpfExit:
			return r[0] != 0
		default:
			t.Fatalf("opcode %#x", in.code)
		}
	}
	t.Fatal("the program has no end")
	return false
}

func TestDevicePolicies(t *testing.T) {
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	allow := specs.LinuxDeviceCgroup{Allow: true, Type: "a", Access: "rwm"}
	rule := func(ok bool, typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: ok, Type: typ, Major: &major, Minor: &minor, Access: access}
	}
	type question struct {
		typ          byte
		major, minor int64
		access       int
		want         bool
	}
	for name, c := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		ask   []question
	}{
		"nothing said": {nil, []question{{'c', 1, 3, accRead, true}, {'b', 8, 0, accRead, false}, {'b', 8, 0, accMknod, true}, {'c', 136, 77, accAll, true}}},
		"deny all":     {[]specs.LinuxDeviceCgroup{deny}, []question{{'c', 10, 229, accRead, false}, {'c', 5, 2, accWrite, true}}},
		"privileged":   {[]specs.LinuxDeviceCgroup{deny, allow}, []question{{'b', 8, 0, accAll, true}}},
		"one device": {[]specs.LinuxDeviceCgroup{deny, rule(true, "c", 10, 229, "rw")},
			[]question{{'c', 10, 229, accRead | accWrite, true}, {'c', 10, 229, accMknod, true}, {'c', 10, 228, accRead, false}, {'b', 10, 229, accRead, false}}},
		"read only": {[]specs.LinuxDeviceCgroup{deny, rule(true, "b", 8, 0, "r")},
			[]question{{'b', 8, 0, accRead, true}, {'b', 8, 0, accRead | accWrite, false}, {'b', 8, 0, accWrite, false}}},
		"all but one": {[]specs.LinuxDeviceCgroup{allow, rule(false, "b", 8, 0, "w")},
			[]question{{'b', 8, 0, accRead, true}, {'b', 8, 0, accWrite, false}, {'b', 8, 0, accRead | accWrite, false}, {'b', 8, 1, accWrite, true}}},
		"taken back": {[]specs.LinuxDeviceCgroup{deny, rule(true, "b", 8, 0, "rw"), rule(false, "b", 8, 0, "w")},
			[]question{{'b', 8, 0, accRead, true}, {'b', 8, 0, accWrite, false}}},
	} {
		p, err := newPolicy(c.rules)
		if err != nil {
			t.Fatal(err)
		}
		prog := p.program()
		for _, q := range c.ask {
			if got := p.allows(q.typ, q.major, q.minor, q.access); got != q.want {
				t.Errorf("%s: policy says %v of %+v", name, got, q)
			}
			typ := uint32(unix.BPF_DEVCG_DEV_CHAR)
			if q.typ == 'b' {
				typ = unix.BPF_DEVCG_DEV_BLOCK
			}
			if got := interpret(t, prog, typ, uint32(q.access), uint32(q.major), uint32(q.minor)); got != q.want {
				t.Errorf("%s: program says %v of %+v", name, got, q)
			}
		}
		if os.Geteuid() == 0 {
			fd, err := load(prog)
			if err != nil {
				t.Errorf("%s: the kernel's verifier refuses the program: %v", name, err)
				continue
			}
			unix.Close(fd)
		}
	}
	for want, r := range map[string]specs.LinuxDeviceCgroup{
		"devices[0].access": {Type: "c", Access: "rwx"},
		"devices[0].type":   {Type: "x", Access: "r"},
	} {
		if _, err := newPolicy([]specs.LinuxDeviceCgroup{r}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// The program decides on a real cgroup.
func TestDeviceProgramOnCgroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a cgroup")
	}
	host, err := Detect()
	if err != nil || host.Unified == nil {
		t.Skip("needs the unified cgroup hierarchy")
	}
	dir := host.Unified.Mount + "/berth-test-devices"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	for _, rules := range [][]specs.LinuxDeviceCgroup{nil, {{Allow: true, Access: "rwm"}}} {
		p, _ := newPolicy(rules)
		if err := p.attach(dir); err != nil {
			t.Fatal(err)
		}
		fd, _ := unix.Open(dir, unix.O_DIRECTORY, 0)
		ids, err := attached(fd)
		unix.Close(fd)
		if err != nil || len(ids) != 1 {
			t.Errorf("%d programs are attached, %v", len(ids), err)
		}
	}
}

func find(l []setting, file string) string {
	for _, s := range slices.Backward(l) {
		if s.file == file {
			return s.value
		}
	}
	return ""
}

func TestSettings(t *testing.T) {
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 20)), Swap: ptr(int64(3 << 20)), Reservation: ptr(int64(1 << 19))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Cpus: "0-1", Burst: ptr(uint64(7))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(-1))},
		BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(500)), ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{
			{LinuxBlockIODevice: specs.LinuxBlockIODevice{Major: 8}, Rate: 9}}},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 5}},
	}
	var v1, v2 settingList
	if err := v1.v1(r); err != nil {
		t.Fatal(err)
	}
	if err := v2.v2(r); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"memory.limit_in_bytes": "1048576", "memory.memsw.limit_in_bytes": "3145728", "memory.soft_limit_in_bytes": "524288",
		"cpu.shares": "1024", "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000", "cpuset.cpus": "0-1", "pids.max": "max",
		"blkio.throttle.read_bps_device": "8:0 9", "hugetlb.2MB.limit_in_bytes": "5", "cpu.cfs_burst_us": "7",
	} {
		if got := find(v1, file); got != want {
			t.Errorf("v1 %s is %q, want %q", file, got, want)
		}
	}
	for file, want := range map[string]string{
		"memory.max": "1048576", "memory.swap.max": "2097152", "memory.low": "524288", "cpu.weight": "100",
		"cpu.max": "50000 100000", "cpuset.cpus": "0-1", "pids.max": "max", "io.weight": "default 4950",
		"io.max": "8:0 rbps=9", "hugetlb.2MB.max": "5", "cpu.max.burst": "7",
	} {
		if got := find(v2, file); got != want {
			t.Errorf("v2 %s is %q, want %q", file, got, want)
		}
	}
	for want, bad := range map[string]*specs.LinuxResources{
		"memory.swap":       {Memory: &specs.LinuxMemory{Limit: ptr(int64(5)), Swap: ptr(int64(4))}},
		"unified[../x]":     {Unified: map[string]string{"../x": "1"}},
		"resources.network": {Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}},
	} {
		var l settingList
		if err := l.v2(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestWeightMeetsItsAnchors(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d shares are weight %d, want %d", shares, got, want)
		}
	}
	last := uint64(0)
	for s := uint64(2); s < 300000; s += 97 {
		w := Weight(s)
		if w < last {
			t.Fatalf("the weight falls at %d", s)
		}
		last = w
	}
}

func TestUnlimited(t *testing.T) {
	if unlimited(9223372036854771712) != math.MaxUint64 || unlimited(1<<30) != 1<<30 {
		t.Error("the kernel's largest limit is none")
	}
}

func TestForeignProcessesAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes cgroups")
	}
	m, err := New("/berth-test-foreign")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Create(nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Delete() })
	again, _ := New("/berth-test-foreign/sub")
	if err := again.Create(nil); err != nil {
		t.Fatal(err)
	}
	if pids, err := m.Pids(); err != nil || len(pids) != 0 {
		t.Errorf("pids: %v, %v", pids, err)
	}
	if !m.Exists() {
		t.Error("it does not exist")
	}
	restored, err := Restore(m.Paths())
	if err != nil || !restored.Exists() {
		t.Errorf("restored: %v", err)
	}
	if err := m.Delete(); err != nil {
		t.Fatal(err)
	}
	if m.Exists() || again.Exists() {
		t.Error("it still exists")
	}
	if err := m.Delete(); err != nil {
		t.Errorf("deleting what is gone: %v", err)
	}
}
