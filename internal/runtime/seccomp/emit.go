package seccomp

import (
	"slices"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Opcodes of classic BPF and offsets in struct seccomp_data.
const (
	opLoad = 0x20 // A = data[k]
	opAnd  = 0x54 // A &= k
	opJA   = 0x05
	opJEQ  = 0x15
	opJGT  = 0x25
	opJGE  = 0x35
	opRet  = 0x06

	offNr   = 0
	offArch = 4
	offArgs = 16
)

func (c *compiler) put(in insn) int {
	c.rev = append(c.rev, in)
	return len(c.rev) - 1
}

// ret returns the place of an instruction that ends the filter with v, within
// reach of a conditional jump from the next instruction.
func (c *compiler) ret(v uint32) int {
	if at, ok := c.rets[v]; ok && len(c.rev)-at < 200 {
		return at
	}
	c.rets[v] = c.put(insn{op: opRet, k: v})
	return c.rets[v]
}

// jump appends a conditional jump; targets out of reach go through a further
// jump.
func (c *compiler) jump(op uint16, k uint32, yes, no int) int {
	// Placing one trampoline moves the other target one further away.
	if len(c.rev)-yes > 254 {
		yes = c.put(insn{op: opJA, k: uint32(len(c.rev) - yes - 1)})
	}
	if len(c.rev)-no > 254 {
		no = c.put(insn{op: opJA, k: uint32(len(c.rev) - no - 1)})
	}
	at := len(c.rev)
	return c.put(insn{op: op, jt: uint8(at - yes - 1), jf: uint8(at - no - 1), k: k})
}

// program emits: choose by architecture, then search by number.
func (c *compiler) program(cfg *specs.LinuxSeccomp, wanted map[specs.Arch]bool) {
	next := c.ret(retKillProcess) // an architecture that was not asked for
	for i := len(archs) - 1; i >= 0; i-- {
		a := archs[i]
		if !wanted[a.scmp] || a.bit != 0 {
			continue
		}
		ranges := c.ranges(cfg, a)
		if a.scmp == specs.ArchX86_64 {
			// x32 shares the architecture and differs by a bit in the number.
			x32 := archs[4]
			if wanted[specs.ArchX32] {
				ranges = append(ranges, c.ranges(cfg, x32)...)
			} else {
				ranges = append(ranges, span{from: x32.bit, direct: true, ret: retKillProcess})
			}
		}
		c.tree(ranges)
		body := c.put(insn{op: opLoad, k: offNr})
		next = c.jump(opJEQ, a.audit, body, next)
	}
	c.put(insn{op: opLoad, k: offArch})
}

// span is a range of numbers, up to the next span's, that are treated alike.
type span struct {
	from   uint32
	rules  []int // indices into compiler.rules
	direct bool  // ret alone decides
	ret    uint32
}

// ranges returns the spans of one architecture in ascending order.
func (c *compiler) ranges(cfg *specs.LinuxSeccomp, a arch) []span {
	byNr := map[uint32][]int{}
	var top uint32
	for i, r := range c.rules {
		for _, name := range cfg.Syscalls[r.index].Names {
			if nr, ok := number(name, a.column); ok {
				if l := byNr[nr]; len(l) == 0 || l[len(l)-1] != i {
					byNr[nr] = append(l, i)
				}
				top = max(top, nr)
			}
		}
	}
	nrs := make([]uint32, 0, len(byNr))
	for nr := range byNr {
		nrs = append(nrs, nr)
	}
	slices.Sort(nrs)
	spans := []span{{from: a.bit, direct: true, ret: c.defaults}}
	push := func(s span) {
		last := &spans[len(spans)-1]
		if last.from == s.from {
			*last = s
		} else if !(last.direct && s.direct && last.ret == s.ret) && !(!s.direct && slices.Equal(last.rules, s.rules)) {
			spans = append(spans, s)
		}
	}
	for i, nr := range nrs {
		if i > 0 && nrs[i-1]+1 != nr || i == 0 && nr > 0 {
			from := uint32(0)
			if i > 0 {
				from = nrs[i-1] + 1
			}
			push(span{from: a.bit | from, direct: true, ret: c.defaults})
		}
		push(c.span(a.bit|nr, byNr[nr]))
	}
	// A call that is newer than the profile does not exist as far as the
	// program is concerned: C libraries fall back on ENOSYS, not on EPERM.
	if len(nrs) > 0 {
		push(span{from: a.bit | (top + 1), direct: true, ret: c.unknown()})
	}
	return spans
}

func (c *compiler) unknown() uint32 {
	switch {
	case c.defaults == retAllow, c.defaults == retLog, c.defaults&0xffff0000 == retTrace:
		return c.defaults
	}
	return retErrno | uint32(syscall.ENOSYS)
}

// span folds rules that decide without looking at arguments.
func (c *compiler) span(from uint32, rules []int) span {
	if r := c.rules[rules[0]]; len(r.args) == 0 {
		same := true
		for _, i := range rules[1:] {
			same = same && len(c.rules[i].args) == 0
		}
		if same {
			return span{from: from, direct: true, ret: r.ret}
		}
	}
	return span{from: from, rules: rules}
}

// tree emits a binary search and returns its first instruction.
func (c *compiler) tree(spans []span) int {
	if len(spans) == 1 {
		s := spans[0]
		if s.direct {
			return c.ret(s.ret)
		}
		return c.chain(s.rules)
	}
	mid := len(spans) / 2
	high := c.tree(spans[mid:])
	low := c.tree(spans[:mid])
	return c.jump(opJGE, spans[mid].from, high, low)
}

// chain emits the rules of one call: those with arguments in the order of the
// specification, the first match decides; then the first without arguments;
// then the default.
func (c *compiler) chain(rules []int) int {
	last := c.defaults
	for _, i := range rules {
		if len(c.rules[i].args) == 0 {
			last = c.rules[i].ret
			break
		}
	}
	next := c.ret(last)
	for _, i := range slices.Backward(rules) {
		r := c.rules[i]
		if len(r.args) == 0 {
			continue
		}
		yes := c.ret(r.ret)
		for _, alternative := range alternatives(r.args) {
			match := yes
			for _, a := range slices.Backward(alternative) {
				match = c.compare(a, match, next)
			}
			next = match
		}
	}
	return next
}

// alternatives splits conditions that must all hold from those on the same
// argument, of which one must: a list that names an argument twice is a list of
// alternatives, as the field's runtimes have always read it.
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	var seen [6]bool
	for _, a := range args {
		if seen[a.Index] {
			out := make([][]specs.LinuxSeccompArg, len(args))
			for i := range args {
				out[len(args)-1-i] = args[i : i+1]
			}
			return out
		}
		seen[a.Index] = true
	}
	return [][]specs.LinuxSeccompArg{args}
}

// compare emits one condition on a 64-bit argument and returns its first
// instruction.
func (c *compiler) compare(a specs.LinuxSeccompArg, yes, no int) int {
	low, high := uint32(offArgs+8*a.Index), uint32(offArgs+8*a.Index+4)
	v, mask := a.Value, ^uint64(0)
	op, equalHigh := uint16(opJEQ), true
	switch a.Op {
	case specs.OpMaskedEqual:
		mask, v = a.Value, a.ValueTwo&a.Value
	case specs.OpNotEqual:
		yes, no = no, yes
	case specs.OpGreaterThan:
		op, equalHigh = opJGT, false
	case specs.OpGreaterEqual:
		op, equalHigh = opJGE, false
	case specs.OpLessThan:
		op, equalHigh = opJGE, false
		yes, no = no, yes
	case specs.OpLessEqual:
		op, equalHigh = opJGT, false
		yes, no = no, yes
	}
	c.jump(op, uint32(v), yes, no)
	at := c.load(low, uint32(mask))
	at = c.jump(opJEQ, uint32(v>>32), at, no)
	if !equalHigh {
		c.jump(opJGT, uint32(v>>32), yes, at)
	}
	return c.load(high, uint32(mask>>32))
}

func (c *compiler) load(off, mask uint32) int {
	if mask != ^uint32(0) {
		c.put(insn{op: opAnd, k: mask})
	}
	return c.put(insn{op: opLoad, k: off})
}
