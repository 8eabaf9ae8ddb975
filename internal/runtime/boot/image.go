package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"unsafe"
)

// codeOffset is where the machine's code lies in the image, behind the ELF
// header and the program headers.
const codeOffset = 0x100

func machineCode() unsafe.Pointer

// code returns the machine's code. Its end is marked in the text, because the
// size of an assembly function is not known to Go.
var code = sync.OnceValue(func() []byte {
	const mark = 0x6e65697468746562
	text := unsafe.Slice((*byte)(machineCode()), 1024)
	for i := range len(text) - 8 {
		if binary.LittleEndian.Uint64(text[i:]) == mark {
			return text[:i]
		}
	}
	return nil
})

// Image links the program into an ELF executable.
func (p *Program) Image() ([]byte, error) {
	text := code()
	if text == nil {
		return nil, errors.New("boot: machine code not found")
	}
	if p.fail == nil || len(p.ops) == 0 {
		return nil, errors.New("boot: program without operations or failure handler")
	}
	for len(p.consts)%8 != 0 {
		p.consts = append(p.consts, 0)
	}
	opsAt := writable + len(p.consts)
	size := opsAt + len(p.ops)*opSize
	img := make([]byte, dataOffset+size)
	elfHeader(img, codeOffset+len(text), size)
	copy(img[codeOffset:], text)
	data := img[dataOffset:]
	l := linker{base: dataBase + uint64(opsAt), n: len(p.ops)}
	le := binary.LittleEndian
	le.PutUint64(data[0:], l.base)
	le.PutUint64(data[8:], l.addr(p.fail))
	copy(data[writable:], p.consts)
	for _, f := range p.fixes {
		le.PutUint64(data[writable+f.at:], l.addr(f.label))
	}
	for i := range p.ops {
		l.op(data[opsAt+i*opSize:], &p.ops[i], i)
	}
	if l.err != nil {
		return nil, l.err
	}
	return img, nil
}

// linker turns labels into addresses.
type linker struct {
	base uint64
	n    int
	err  error
}

func (l *linker) addr(t *Label) uint64 {
	if !t.bound || t.op > l.n {
		l.err = fmt.Errorf("boot: jump to nowhere (operation %d of %d)", t.op, l.n)
		return 0
	}
	return l.base + uint64(t.op)*opSize
}

func (l *linker) op(b []byte, o *op, i int) {
	le := binary.LittleEndian
	le.PutUint32(b, o.nr)
	var indirect uint32
	for j := range o.n {
		a := &o.args[j]
		v := a.v
		if a.label != nil {
			v = l.addr(a.label)
		}
		if a.indirect {
			indirect |= 1 << j
		}
		le.PutUint64(b[8+8*j:], v)
	}
	le.PutUint32(b[4:], indirect)
	le.PutUint64(b[56:], o.dst)
	le.PutUint64(b[64:], o.errs)
	if o.onErr != nil {
		le.PutUint64(b[72:], l.addr(o.onErr))
	}
	next := l.base + uint64(i+1)*opSize
	if o.next != nil {
		next = l.addr(o.next)
	}
	le.PutUint64(b[80:], next)
}

// elfHeader writes an ELF header with a text, a data and a stack segment.
func elfHeader(b []byte, textSize, dataSize int) {
	const ehsize, phsize = 64, 56
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2) // ET_EXEC
	le.PutUint16(b[18:], elfMachine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], textBase+codeOffset) // entry
	le.PutUint64(b[32:], ehsize)              // program headers
	le.PutUint16(b[52:], ehsize)
	le.PutUint16(b[54:], phsize)
	le.PutUint16(b[56:], 3)
	segment := func(i int, typ, flags uint32, off, addr, size, align uint64) {
		h := b[ehsize+i*phsize:]
		le.PutUint32(h[0:], typ)
		le.PutUint32(h[4:], flags)
		le.PutUint64(h[8:], off)
		le.PutUint64(h[16:], addr)
		le.PutUint64(h[24:], addr)
		le.PutUint64(h[32:], size)
		le.PutUint64(h[40:], size)
		le.PutUint64(h[48:], align)
	}
	const ptLoad, ptStack = 1, 0x6474e551
	const r, w, x = 4, 2, 1
	segment(0, ptLoad, r|x, 0, textBase, uint64(textSize), pageAlign)
	segment(1, ptLoad, r|w, dataOffset, dataBase, uint64(dataSize), pageAlign)
	segment(2, ptStack, r|w, 0, 0, 0, 16)
}

// StepAt returns the step of the operation at an address that the init
// reported, with the number of its system call. ok is false for an address
// that is not in the program.
func (p *Program) StepAt(addr uint64) (step string, nr uint32, ok bool) {
	base := p.opsBase()
	i := (addr - base) / opSize
	if addr < base || i >= uint64(len(p.ops)) {
		return "", 0, false
	}
	return p.steps[p.ops[i].step], p.ops[i].nr, true
}

// opsBase is the address of the first operation.
func (p *Program) opsBase() uint64 {
	return uint64(dataBase) + writable + uint64((len(p.consts)+7)&^7)
}

// Addr is the address of the operation with an index. The program must be
// complete.
func (p *Program) Addr(index int) uint64 { return p.opsBase() + uint64(index)*opSize }

// Steps calls f for every step from the operation with index from on, with the
// address of the step's first operation. The program must be complete.
func (p *Program) Steps(from int, f func(addr uint64, step string)) {
	last := -1
	for i := from; i < len(p.ops); i++ {
		if s := p.ops[i].step; s != last {
			f(p.opsBase()+uint64(i)*opSize, p.steps[s])
			last = s
		}
	}
}
