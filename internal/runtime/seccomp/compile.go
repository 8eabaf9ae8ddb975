// Package seccomp compiles the seccomp section of a runtime specification into
// a classic BPF program for the kernel. It exists because the usual compiler is
// a C library; it also finds a system call by binary search, where a chain of
// comparisons costs up to 400 instructions.
//
//go:generate go run gen/main.go
package seccomp

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sort"
	"syscall"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Filter is a compiled filter.
type Filter struct {
	Code   []byte // struct sock_filter, 8 bytes an instruction, native byte order
	Flags  uint32 // SECCOMP_FILTER_FLAG_* for seccomp(2)
	Notify bool   // some call is passed to a listener
}

// Return values of a filter, from linux/seccomp.h.
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retNotify      = 0x7fc00000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
)

// Flags of seccomp(2).
const (
	flagLog          = 1 << 1
	flagSpecAllow    = 1 << 2
	flagNewListener  = 1 << 3
	flagWaitKillable = 1 << 5
)

// maxInstructions is the kernel's BPF_MAXINSNS.
const maxInstructions = 4096

type entry struct {
	name string
	nr   [5]int16 // amd64, 386, arm64, arm, x32
}

type arch struct {
	scmp   specs.Arch
	audit  uint32
	column int
	bit    uint32 // added to every number
}

var archs = [...]arch{
	{specs.ArchX86_64, 0xc000003e, 0, 0},
	{specs.ArchX86, 0x40000003, 1, 0},
	{specs.ArchAARCH64, 0xc00000b7, 2, 0},
	{specs.ArchARM, 0x40000028, 3, 0},
	{specs.ArchX32, 0xc000003e, 4, 0x40000000},
}

func native() specs.Arch {
	switch runtime.GOARCH {
	case "arm64":
		return specs.ArchAARCH64
	default:
		return specs.ArchX86_64
	}
}

func number(name string, column int) (uint32, bool) {
	i := sort.Search(len(table), func(i int) bool { return table[i].name >= name })
	if i == len(table) || table[i].name != name || table[i].nr[column] < 0 {
		return 0, false
	}
	return uint32(table[i].nr[column]), true
}

func invalid(field, format string, args ...any) error {
	return fault.New(fault.Invalid, "check", "linux.seccomp"+field, format, args...)
}

// rule is one entry of the syscalls list with its action encoded.
type rule struct {
	index int
	ret   uint32
	args  []specs.LinuxSeccompArg
}

// compiler holds the program under construction, last instruction first: every
// jump goes forward, so its target is always there already.
type compiler struct {
	rev      []insn
	rets     map[uint32]int
	rules    []rule
	defaults uint32
}

type insn struct {
	op     uint16
	jt, jf uint8
	k      uint32
}

// Compile translates cfg. Names of system calls that no supported architecture
// has are skipped, as the specification asks; everything else that can't be
// translated is an error that names the field.
func Compile(cfg *specs.LinuxSeccomp) (*Filter, error) {
	f := &Filter{}
	c := &compiler{rets: map[uint32]int{}}
	var err error
	if c.defaults, err = action(cfg.DefaultAction, cfg.DefaultErrnoRet, ".defaultAction"); err != nil {
		return nil, err
	}
	if c.defaults == retNotify {
		return nil, invalid(".defaultAction", "SCMP_ACT_NOTIFY can't be the default action")
	}
	for i, s := range cfg.Syscalls {
		ret, err := action(s.Action, s.ErrnoRet, fmt.Sprintf(".syscalls[%d].action", i))
		if err != nil {
			return nil, err
		}
		if err := checkArgs(s.Args, i); err != nil {
			return nil, err
		}
		if ret == retNotify {
			if slices.Contains(s.Names, "write") {
				return nil, invalid(fmt.Sprintf(".syscalls[%d].names", i), "SCMP_ACT_NOTIFY is not possible for write")
			}
			f.Notify = true
		}
		c.rules = append(c.rules, rule{i, ret, s.Args})
	}
	if f.Flags, err = flags(cfg, f.Notify); err != nil {
		return nil, err
	}
	wanted, err := wantedArchs(cfg)
	if err != nil {
		return nil, err
	}
	c.program(cfg, wanted)
	if len(c.rev) > maxInstructions {
		return nil, invalid("", "the filter has %d instructions; the kernel takes %d", len(c.rev), maxInstructions)
	}
	f.Code = c.encode()
	return f, nil
}

func wantedArchs(cfg *specs.LinuxSeccomp) (map[specs.Arch]bool, error) {
	wanted := map[specs.Arch]bool{native(): true}
	for i, a := range cfg.Architectures {
		known := slices.ContainsFunc(archs[:], func(k arch) bool { return k.scmp == a })
		switch {
		case known:
			wanted[a] = true
		case !knownName(a):
			return nil, invalid(fmt.Sprintf(".architectures[%d]", i), "unknown architecture %q", a)
		}
	}
	return wanted, nil
}

// knownName reports whether a is an architecture of the specification. One that
// this machine can't execute needs no filter.
func knownName(a specs.Arch) bool {
	switch a {
	case specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64,
		specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X,
		specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K,
		specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}

func action(a specs.LinuxSeccompAction, errno *uint, field string) (uint32, error) {
	data := uint32(syscall.EPERM)
	if errno != nil {
		if *errno > 0xffff {
			return 0, invalid(field, "errno %d is out of range", *errno)
		}
		data = uint32(*errno)
		if a != specs.ActErrno && a != specs.ActTrace {
			return 0, invalid(field, "%s takes no errno", a)
		}
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return retKillThread, nil
	case specs.ActKillProcess:
		return retKillProcess, nil
	case specs.ActTrap:
		return retTrap, nil
	case specs.ActErrno:
		return retErrno | data, nil
	case specs.ActTrace:
		return retTrace | data, nil
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActLog:
		return retLog, nil
	case specs.ActNotify:
		return retNotify, nil
	}
	return 0, invalid(field, "unknown action %q", a)
}

func checkArgs(args []specs.LinuxSeccompArg, i int) error {
	for j, a := range args {
		field := fmt.Sprintf(".syscalls[%d].args[%d]", i, j)
		if a.Index > 5 {
			return invalid(field+".index", "%d is not between 0 and 5", a.Index)
		}
		switch a.Op {
		case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
			specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		default:
			return invalid(field+".op", "unknown operator %q", a.Op)
		}
	}
	return nil
}

func flags(cfg *specs.LinuxSeccomp, notify bool) (uint32, error) {
	var out uint32
	for i, f := range cfg.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			out |= flagLog
		case specs.LinuxSeccompFlagSpecAllow:
			out |= flagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			if notify {
				out |= flagWaitKillable
			}
		case "SECCOMP_FILTER_FLAG_TSYNC": // the init has one thread: always in sync
		default:
			return 0, invalid(fmt.Sprintf(".flags[%d]", i), "unknown flag %q", f)
		}
	}
	if notify {
		if cfg.ListenerPath == "" {
			return 0, invalid(".listenerPath", "SCMP_ACT_NOTIFY needs a listener")
		}
		out |= flagNewListener
	} else if cfg.ListenerPath == "" && cfg.ListenerMetadata != "" {
		return 0, invalid(".listenerMetadata", "is set without listenerPath")
	}
	return out, nil
}

func (c *compiler) encode() []byte {
	out := make([]byte, 0, 8*len(c.rev))
	for i := len(c.rev) - 1; i >= 0; i-- {
		in := c.rev[i]
		out = binary.NativeEndian.AppendUint16(out, in.op)
		out = append(out, in.jt, in.jf)
		out = binary.NativeEndian.AppendUint32(out, in.k)
	}
	return out
}

// Name returns the name of a system call of the native architecture.
func Name(nr uint32) string {
	column := 0
	if native() == specs.ArchAARCH64 {
		column = 2
	}
	for i := range table {
		if table[i].nr[column] == int16(nr) {
			return table[i].name
		}
	}
	return fmt.Sprintf("system call %d", nr)
}
