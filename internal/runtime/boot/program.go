// Package boot makes and starts the init of a container: a sealed memfd with a
// few hundred bytes of machine code and the list of system calls which that
// code executes. It exists because every other way to run code between clone
// and the user's execve costs more or is unsafe: a second start of this Go
// program costs hundreds of page faults, and code that runs in the fork of a
// large process exposes that process's memory and executable to the container.
//
// A Program is built in full by the parent, with every path, table and filter
// in it. The init can therefore not be led astray by what it reads inside a
// hostile root file system: it reads nothing, and branches on the results of
// system calls alone. /proc/self/exe of the init is the sealed memfd, which
// nobody can write to and which holds nothing of this program.
package boot

import (
	"encoding/binary"
	"syscall"
)

// Layout of the data segment: header, slots and scratch space in the first
// page, since only these are written to; then constants. Operations have a
// segment of their own, so that the address of everything is known at once.
const (
	writable = 4096 // size of the part that the init writes to
	slotsAt  = 64   // behind the header

	opSize   = 88
	opInd    = 4 // offsets in an operation
	opArgs   = 8
	opDst    = 56
	opErrs   = 64
	opOnErr  = 72
	opNext   = 80
	maxConst = opsBase - dataBase - writable
)

// Operations that are no system call.
const (
	opTest  = 0xffffffff // continue if *a0 & a1 == a2, else OnErr or fail with errno a3
	opStore = 0xfffffffe // *a0 = a1
	opAdd   = 0xfffffffd // *a0 += a1
)

// Arg is an argument of an operation: a number, an address in the image, the
// content of a slot, or the address of an operation.
type Arg struct {
	v        uint64
	indirect bool
	label    *Label
}

// Int is a number.
func Int[T ~int | ~int32 | ~int64 | ~uint | ~uint32 | ~uint64 | ~uintptr](v T) Arg {
	return Arg{v: uint64(v)}
}

// Plus returns the address d bytes behind a.
func (a Arg) Plus(d uint64) Arg { a.v += d; return a }

// Slot is eight bytes that the init writes to, most often a descriptor.
type Slot struct{ addr uint64 }

// Val is the slot's content at the time of the operation.
func (s Slot) Val() Arg { return Arg{v: s.addr, indirect: true} }

// Addr is the slot's address.
func (s Slot) Addr() Arg { return Arg{v: s.addr} }

// Label is a place in the program to jump to.
type Label struct {
	op    int
	bound bool
}

// Addr is the address of the labelled operation.
func (l *Label) Addr() Arg { return Arg{label: l} }

// Op refers to an operation of a program.
type Op struct {
	p  *Program
	at int // offset in the operations
}

// Program is a list of operations under construction. The zero value is not
// usable; call New.
type Program struct {
	ops    []byte // encoded as the machine reads them
	stepOf []uint32
	consts []byte
	strs   map[string]uint64
	rw     uint64 // used bytes of the writable page
	fail   *Label
	steps  []string
	fixes  []fix
	trash  Slot
}

// fix is a place that waits for a label to be bound.
type fix struct {
	inConsts bool
	at       int
	label    *Label
}

// New returns an empty program.
func New() *Program {
	p := &Program{
		ops:    make([]byte, 0, 400*opSize),
		stepOf: make([]uint32, 0, 400),
		consts: make([]byte, 0, 12<<10),
		strs:   make(map[string]uint64, 128),
		rw:     slotsAt,
		steps:  []string{"start"},
	}
	p.trash = p.Slot()
	return p
}

// Step names what the following operations are about; a failure is reported
// with it. The name is that of a field in the configuration where there is one.
func (p *Program) Step(name string) { p.steps = append(p.steps, name) }

// Slot reserves a slot.
func (p *Program) Slot() Slot { return Slot{p.Scratch(8).v} }

// Scratch reserves n bytes that the init may write to, zero at first.
func (p *Program) Scratch(n int) Arg {
	n = (n + 7) &^ 7
	if p.rw+uint64(n) > writable {
		// Large programs are rare (hundreds of mounts); their slots may lie
		// among the constants, which merely costs copied pages.
		return p.Bytes(make([]byte, n))
	}
	a := Arg{v: dataBase + p.rw}
	p.rw += uint64(n)
	return a
}

// Bytes puts b into the image and returns its address, aligned to 8 bytes.
func (p *Program) Bytes(b []byte) Arg {
	for len(p.consts)%8 != 0 {
		p.consts = append(p.consts, 0)
	}
	a := Arg{v: dataBase + writable + uint64(len(p.consts))}
	p.consts = append(p.consts, b...)
	return a
}

// Str puts s, closed by a zero byte, into the image and returns its address.
func (p *Program) Str(s string) Arg {
	if at, ok := p.strs[s]; ok {
		return Arg{v: at}
	}
	at := dataBase + writable + uint64(len(p.consts))
	p.consts = append(append(p.consts, s...), 0)
	p.strs[s] = at
	return Arg{v: at}
}

// Words puts 64-bit words into the image and returns their address. The words
// may be addresses or labels, not the contents of slots.
func (p *Program) Words(words ...Arg) Arg {
	at := p.Bytes(nil)
	for _, w := range words {
		v := w.v
		if w.label != nil {
			v = p.address(w.label, true, len(p.consts))
		}
		p.consts = binary.LittleEndian.AppendUint64(p.consts, v)
	}
	return at
}

// address returns the address of a label, or notes that it is to be put at a
// place once it is known.
func (p *Program) address(l *Label, inConsts bool, at int) uint64 {
	if !l.bound {
		p.fixes = append(p.fixes, fix{inConsts, at, l})
		return 0
	}
	return opsBase + uint64(l.op)*opSize
}

// Strs puts a null-terminated vector of strings into the image, as execve
// wants it, and returns its address.
func (p *Program) Strs(list []string) Arg {
	words := make([]Arg, len(list)+1)
	for i, s := range list {
		words[i] = p.Str(s)
	}
	return p.Words(words...)
}

// Call appends a system call with up to six arguments.
func (p *Program) Call(nr uintptr, args ...Arg) Op {
	return p.add(uint32(nr), args)
}

// Test appends a comparison: continue if the eight bytes at a, masked, equal
// want; else go where OnErr says or fail with errno.
func (p *Program) Test(a Arg, mask, want uint64, errno syscall.Errno) Op {
	return p.add(opTest, []Arg{a, {v: mask}, {v: want}, {v: uint64(errno)}})
}

// Store appends an assignment of eight bytes.
func (p *Program) Store(to, value Arg) Op { return p.add(opStore, []Arg{to, value}) }

// Add appends an addition to eight bytes.
func (p *Program) Add(to, value Arg) Op { return p.add(opAdd, []Arg{to, value}) }

// Goto appends a jump.
func (p *Program) Goto(l *Label) { p.Store(p.trash.Addr(), Int(0)).Then(l) }

func (p *Program) add(nr uint32, args []Arg) Op {
	at := len(p.ops)
	p.ops = append(p.ops, zeroOp[:]...)
	o := p.ops[at:]
	le := binary.LittleEndian
	le.PutUint32(o, nr)
	indirect := uint32(0)
	for i, a := range args {
		v := a.v
		if a.label != nil {
			v = p.address(a.label, false, at+opArgs+8*i)
		}
		if a.indirect {
			indirect |= 1 << i
		}
		le.PutUint64(o[opArgs+8*i:], v)
	}
	le.PutUint32(o[opInd:], indirect)
	le.PutUint64(o[opDst:], p.trash.addr)
	le.PutUint64(o[opNext:], opsBase+uint64(at)+opSize)
	p.stepOf = append(p.stepOf, uint32(len(p.steps)-1))
	return Op{p, at}
}

var zeroOp [opSize]byte

// Label returns a place to be bound later.
func (p *Program) Label() *Label { return &Label{} }

// Bind puts l before the operation that is appended next.
func (p *Program) Bind(l *Label) { l.op, l.bound = p.Len(), true }

// OnFail makes l the place where a failed operation continues. Report holds
// what to report.
func (p *Program) OnFail(l *Label) { p.fail = l }

// SetFail appends an operation that changes the place where failed operations
// continue.
func (p *Program) SetFail(l *Label) { p.Store(Arg{v: dataBase + 8}, l.Addr()) }

// Report is the address of the 16 bytes that describe a failure: the address
// of the failed operation and its errno.
func (p *Program) Report() Arg { return Arg{v: dataBase + 16} }

func (o Op) put(offset int, v uint64) Op {
	binary.LittleEndian.PutUint64(o.p.ops[o.at+offset:], v)
	return o
}

// Into stores the result in s.
func (o Op) Into(s Slot) Op { return o.put(opDst, s.addr) }

// Then continues at l after success.
func (o Op) Then(l *Label) Op { return o.put(opNext, o.p.address(l, false, o.at+opNext)) }

// OnErr continues at l after one of the errors; without errors, after any.
func (o Op) OnErr(l *Label, errs ...syscall.Errno) Op {
	mask := uint64(0)
	for _, errno := range errs {
		mask |= 1 << min(uint64(errno), 63)
	}
	if len(errs) == 0 {
		mask = ^uint64(0)
	}
	o.put(opErrs, mask)
	return o.put(opOnErr, o.p.address(l, false, o.at+opOnErr))
}

// Ignore continues with the next operation after one of the errors; without
// errors, after any.
func (o Op) Ignore(errs ...syscall.Errno) Op {
	return o.OnErr(&Label{op: o.at/opSize + 1, bound: true}, errs...)
}

// Len returns the number of operations so far.
func (p *Program) Len() int { return len(p.ops) / opSize }

// BindAt puts l before the operation with the given index, which may be
// appended later.
func (p *Program) BindAt(l *Label, index int) { l.op, l.bound = index, true }
