package seccomp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	mobyseccomp "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
)

// call is a system call as a filter sees it.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

const (
	amd64 = 0xc000003e
	i386  = 0x40000003
	arm64 = 0xc00000b7
)

// machine runs a filter in an interpreter of its own.
func machine(t testing.TB, f *Filter) *bpf.VM {
	t.Helper()
	var prog []bpf.Instruction
	for i := 0; i < len(f.Code); i += 8 {
		raw := bpf.RawInstruction{
			Op: binary.NativeEndian.Uint16(f.Code[i:]), Jt: f.Code[i+2], Jf: f.Code[i+3],
			K: binary.NativeEndian.Uint32(f.Code[i+4:]),
		}
		prog = append(prog, raw.Disassemble())
	}
	vm, err := bpf.NewVM(prog)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

// run returns what the filter says of a call. The interpreter reads words as
// networks do.
func run(t testing.TB, vm *bpf.VM, c call) uint32 {
	t.Helper()
	b := make([]byte, 64)
	be := binary.BigEndian
	be.PutUint32(b[0:], c.nr)
	be.PutUint32(b[4:], c.arch)
	for i, a := range c.args {
		be.PutUint32(b[16+8*i:], uint32(a))
		be.PutUint32(b[20+8*i:], uint32(a>>32))
	}
	n, err := vm.Run(b)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func compile(t testing.TB, cfg *specs.LinuxSeccomp) *bpf.VM {
	t.Helper()
	f, err := Compile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return machine(t, f)
}

func TestOperators(t *testing.T) {
	values := []uint64{0, 1, 5, 1<<32 - 1, 1 << 32, 1<<32 + 5, 5 << 32, 1<<63 + 1, ^uint64(0)}
	ops := map[specs.LinuxSeccompOperator]func(a, b, c uint64) bool{
		specs.OpEqualTo:      func(a, b, _ uint64) bool { return a == b },
		specs.OpNotEqual:     func(a, b, _ uint64) bool { return a != b },
		specs.OpLessThan:     func(a, b, _ uint64) bool { return a < b },
		specs.OpLessEqual:    func(a, b, _ uint64) bool { return a <= b },
		specs.OpGreaterThan:  func(a, b, _ uint64) bool { return a > b },
		specs.OpGreaterEqual: func(a, b, _ uint64) bool { return a >= b },
		specs.OpMaskedEqual:  func(a, b, c uint64) bool { return a&b == c&b },
	}
	for op, holds := range ops {
		for _, v := range values {
			for _, two := range values[:4] {
				vm := compile(t, &specs.LinuxSeccomp{
					DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
					Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActLog,
						Args: []specs.LinuxSeccompArg{{Index: 3, Op: op, Value: v, ValueTwo: two}}}},
				})
				for _, a := range values {
					want := uint32(retAllow)
					if holds(a, v, two) {
						want = retLog
					}
					if got := run(t, vm, call{arch: amd64, args: [6]uint64{3: a}}); got != want {
						t.Errorf("%#x %s %#x (%#x): %#x, want %#x", a, op, v, two, got, want)
					}
				}
			}
		}
	}
}

func TestActionsAndCombinations(t *testing.T) {
	errno := func(n uint) *uint { return &n }
	arg := func(i uint, v uint64) specs.LinuxSeccompArg {
		return specs.LinuxSeccompArg{Index: i, Op: specs.OpEqualTo, Value: v}
	}
	vm := compile(t, &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno, DefaultErrnoRet: errno(7),
		Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read", "no_such_call"}, Action: specs.ActAllow},
			{Names: []string{"write"}, Action: specs.ActErrno},
			{Names: []string{"open"}, Action: specs.ActErrno, ErrnoRet: errno(2)},
			{Names: []string{"close"}, Action: specs.ActTrap},
			{Names: []string{"stat"}, Action: specs.ActKill},
			{Names: []string{"fstat"}, Action: specs.ActKillProcess},
			{Names: []string{"lstat"}, Action: specs.ActTrace, ErrnoRet: errno(9)},
			{Names: []string{"poll"}, Action: specs.ActLog},
			// All conditions of a rule must hold.
			{Names: []string{"mmap"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 1), arg(1, 2)}},
			// Of several rules one suffices; the one without conditions comes last.
			{Names: []string{"mprotect"}, Action: specs.ActLog},
			{Names: []string{"mprotect"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 1)}},
			{Names: []string{"mprotect"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{arg(0, 2)}},
			// Conditions on one argument are alternatives.
			{Names: []string{"munmap"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg(0, 1), arg(0, 2)}},
			{Names: []string{"ioctl"}, Action: specs.ActAllow},
		},
	})
	const dflt = retErrno | 7
	for name, c := range map[string]struct {
		call call
		want uint32
	}{
		"allow":           {call{amd64, 0, [6]uint64{}}, retAllow},
		"errno":           {call{amd64, 1, [6]uint64{}}, retErrno | 1},
		"errno 2":         {call{amd64, 2, [6]uint64{}}, retErrno | 2},
		"trap":            {call{amd64, 3, [6]uint64{}}, retTrap},
		"kill":            {call{amd64, 4, [6]uint64{}}, retKillThread},
		"kill process":    {call{amd64, 5, [6]uint64{}}, retKillProcess},
		"trace":           {call{amd64, 6, [6]uint64{}}, retTrace | 9},
		"log":             {call{amd64, 7, [6]uint64{}}, retLog},
		"default":         {call{amd64, 8, [6]uint64{}}, dflt},
		"both hold":       {call{amd64, 9, [6]uint64{1, 2}}, retAllow},
		"one holds":       {call{amd64, 9, [6]uint64{1, 3}}, dflt},
		"first rule":      {call{amd64, 10, [6]uint64{1}}, retAllow},
		"second rule":     {call{amd64, 10, [6]uint64{2}}, retTrap},
		"no condition":    {call{amd64, 10, [6]uint64{3}}, retLog},
		"alternative 1":   {call{amd64, 11, [6]uint64{1}}, retAllow},
		"alternative 2":   {call{amd64, 11, [6]uint64{2}}, retAllow},
		"no alternative":  {call{amd64, 11, [6]uint64{3}}, dflt},
		"i386 read":       {call{i386, 3, [6]uint64{}}, retAllow},
		"i386 ioctl":      {call{i386, 54, [6]uint64{}}, retAllow},
		"i386 restart":    {call{i386, 0, [6]uint64{}}, dflt},
		"x32 read":        {call{amd64, 0x40000000, [6]uint64{}}, retAllow},
		"x32 ioctl":       {call{amd64, 0x40000000 + 514, [6]uint64{}}, retAllow},
		"x32 64-bit call": {call{amd64, 0x40000000 + 16, [6]uint64{}}, dflt},
		"newer call":      {call{amd64, 4000, [6]uint64{}}, retErrno | 38},
		"foreign arch":    {call{arm64, 0, [6]uint64{}}, retKillProcess},
	} {
		if got := run(t, vm, c.call); got != c.want {
			t.Errorf("%s: %#x, want %#x", name, got, c.want)
		}
	}
	vm = compile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64}})
	if got := run(t, vm, call{arch: amd64, nr: 0x40000000}); got != retKillProcess {
		t.Errorf("x32 without being asked for: %#x", got)
	}
}

// verdict is the specification read naively: the reference for the compiler.
func verdict(t testing.TB, cfg *specs.LinuxSeccomp, name string, args [6]uint64) uint32 {
	dflt, err := action(cfg.DefaultAction, cfg.DefaultErrnoRet, "")
	if err != nil {
		t.Fatal(err)
	}
	plain, havePlain := uint32(0), false
	for _, s := range cfg.Syscalls {
		if !slices.Contains(s.Names, name) {
			continue
		}
		ret, _ := action(s.Action, s.ErrnoRet, "")
		if len(s.Args) == 0 {
			if !havePlain {
				plain, havePlain = ret, true
			}
			continue
		}
		for _, alternative := range alternatives(s.Args) {
			all := true
			for _, a := range alternative {
				v := args[a.Index]
				switch a.Op {
				case specs.OpEqualTo:
					all = all && v == a.Value
				case specs.OpNotEqual:
					all = all && v != a.Value
				case specs.OpLessThan:
					all = all && v < a.Value
				case specs.OpLessEqual:
					all = all && v <= a.Value
				case specs.OpGreaterThan:
					all = all && v > a.Value
				case specs.OpGreaterEqual:
					all = all && v >= a.Value
				case specs.OpMaskedEqual:
					all = all && v&a.Value == a.ValueTwo&a.Value
				}
			}
			if all {
				return ret
			}
		}
	}
	if havePlain {
		return plain
	}
	return dflt
}

// The default profile, for every call, with the arguments that it looks at.
func TestDefaultProfileAgainstReference(t *testing.T) {
	cfg, err := mobyseccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := Compile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(f.Code)/8)
	vm := machine(t, f)
	interesting := []uint64{0, 1, 8, 0x20000, 0x20008, 0xffffffff, 38, 39, 40, 41, 0x7e020000, 0x10000000}
	for _, s := range cfg.Syscalls {
		for _, a := range s.Args {
			interesting = append(interesting, a.Value, a.Value+1, a.ValueTwo)
		}
	}
	top := map[int]int16{}
	for _, e := range table {
		for column := range 3 {
			if slices.ContainsFunc(cfg.Syscalls, func(s specs.LinuxSyscall) bool { return slices.Contains(s.Names, e.name) }) {
				top[column] = max(top[column], e.nr[column])
			}
		}
	}
	for _, e := range table {
		for column, arch := range map[int]uint32{0: amd64, 1: i386} {
			if e.nr[column] < 0 || e.nr[column] > top[column] {
				continue
			}
			for _, v := range interesting {
				c := call{arch: arch, nr: uint32(e.nr[column]), args: [6]uint64{v, v, v}}
				if got, want := run(t, vm, c), verdict(t, cfg, e.name, c.args); got != want {
					t.Fatalf("%s(%#x) on %#x: %#x, want %#x", e.name, v, arch, got, want)
				}
			}
		}
	}
}

// Random profiles, large enough that jumps need trampolines.
func TestRandomProfilesAgainstReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActLog, specs.ActTrap, specs.ActKillProcess}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpGreaterEqual, specs.OpMaskedEqual}
	for range 30 {
		cfg := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64}}
		for range 150 {
			s := specs.LinuxSyscall{Action: actions[rng.IntN(len(actions))]}
			for range 1 + rng.IntN(3) {
				s.Names = append(s.Names, table[rng.IntN(len(table))].name)
			}
			for range rng.IntN(3) {
				s.Args = append(s.Args, specs.LinuxSeccompArg{
					Index: uint(rng.IntN(6)), Op: ops[rng.IntN(len(ops))], Value: uint64(rng.IntN(3)) << (32 * rng.IntN(2)), ValueTwo: uint64(rng.IntN(3)),
				})
			}
			cfg.Syscalls = append(cfg.Syscalls, s)
		}
		vm := compile(t, cfg)
		for range 2000 {
			e := table[rng.IntN(len(table))]
			if e.nr[0] < 0 {
				continue
			}
			c := call{arch: amd64, nr: uint32(e.nr[0])}
			for i := range c.args {
				c.args[i] = uint64(rng.IntN(3)) << (32 * rng.IntN(2))
			}
			if got, want := run(t, vm, c), verdict(t, cfg, e.name, c.args); got != want {
				t.Fatalf("%s%v: %#x, want %#x", e.name, c.args, got, want)
			}
		}
	}
}

func TestCompileErrorsNameTheField(t *testing.T) {
	big := uint(1 << 16)
	for want, cfg := range map[string]*specs.LinuxSeccomp{
		"linux.seccomp.defaultAction":             {DefaultAction: "X"},
		"linux.seccomp.architectures[0]":          {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"X"}},
		"linux.seccomp.flags[0]":                  {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}},
		"linux.seccomp.syscalls[0].action":        {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: "X"}}},
		"linux.seccomp.syscalls[0].args[0].op":    {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActLog, Args: []specs.LinuxSeccompArg{{Op: "X"}}}}},
		"linux.seccomp.syscalls[0].args[0].index": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActLog, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
		"linux.seccomp.listenerPath":              {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActNotify}}},
		"linux.seccomp.syscalls[0].names":         {DefaultAction: specs.ActAllow, ListenerPath: "/x", Syscalls: []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActNotify}}},
		"errno 65536":                             {DefaultAction: specs.ActErrno, DefaultErrnoRet: &big},
	} {
		if _, err := Compile(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestTooLargeFilterIsRefused(t *testing.T) {
	cfg := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64}}
	for i := range 2000 {
		cfg.Syscalls = append(cfg.Syscalls, specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActLog,
			Args: []specs.LinuxSeccompArg{{Op: specs.OpEqualTo, Value: uint64(i)}}})
	}
	if _, err := Compile(cfg); err == nil || !strings.Contains(err.Error(), "4096") {
		t.Errorf("got %v", err)
	}
}

func TestTableIsSorted(t *testing.T) {
	if !slices.IsSortedFunc(table[:], func(a, b entry) int { return strings.Compare(a.name, b.name) }) {
		t.Error("binary search needs order")
	}
	if Name(0) != "read" && Name(0) != "io_setup" {
		t.Error(Name(0))
	}
}

func TestCacheTellsProfilesApart(t *testing.T) {
	a := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActLog}}}
	b := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActTrap}}}
	fa, _ := Cached(a)
	fb, _ := Cached(b)
	if again, _ := Cached(a); again != fa || fa == fb {
		t.Error("the cache confuses profiles")
	}
	for i := range 3 * maxCached {
		Cached(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{fmt.Sprint(i)}, Action: specs.ActLog}}})
	}
	if len(cache.filters) > maxCached {
		t.Errorf("%d filters are kept", len(cache.filters))
	}
}

func BenchmarkCompileDefault(b *testing.B) {
	cfg, err := mobyseccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Compile(cfg); err != nil {
			b.Fatal(err)
		}
	}
}
