package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// codeOffset is where the machine's code lies in the image, behind the ELF
// header and the program headers.
const codeOffset = 0x140

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

// Image is a program linked into an ELF executable. It is kept in the pieces in
// which it was made; between them are zeros.
type Image struct {
	pieces []piece
	size   int
}

type piece struct {
	at   int
	data []byte
}

// Bytes returns the image as one file.
func (m *Image) Bytes() []byte {
	out := make([]byte, m.size)
	for _, p := range m.pieces {
		copy(out[p.at:], p.data)
	}
	return out
}

// write puts the image into an empty file.
func (m *Image) write(fd int) error {
	if err := unix.Ftruncate(fd, int64(m.size)); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	for _, p := range m.pieces {
		for off := 0; off < len(p.data); {
			n, err := unix.Pwrite(fd, p.data[off:], int64(p.at+off))
			if err != nil {
				return os.NewSyscallError("pwrite", err)
			}
			off += n
		}
	}
	return nil
}

// Image links the program. Nothing can be added afterwards.
func (p *Program) Image() (*Image, error) {
	text := code()
	switch {
	case text == nil:
		return nil, errors.New("boot: machine code not found")
	case p.fail == nil || len(p.ops) == 0:
		return nil, errors.New("boot: program without operations or failure handler")
	case len(p.consts) > maxConst:
		return nil, fmt.Errorf("boot: %d bytes of constants, at most %d are possible", len(p.consts), maxConst)
	}
	fixes := append(p.fixes, fix{label: p.fail, at: -1})
	header := make([]byte, 16)
	le := binary.LittleEndian
	le.PutUint64(header, opsBase)
	for _, f := range fixes {
		if !f.label.bound || f.label.op > p.Len() {
			return nil, fmt.Errorf("boot: jump to nowhere (operation %d of %d)", f.label.op, p.Len())
		}
		addr := opsBase + uint64(f.label.op)*opSize
		switch {
		case f.at < 0:
			le.PutUint64(header[8:], addr)
		case f.inConsts:
			le.PutUint64(p.consts[f.at:], addr)
		default:
			le.PutUint64(p.ops[f.at:], addr)
		}
	}
	dataSize := writable + len(p.consts)
	opsAt := (dataOffset + dataSize + pageAlign - 1) &^ (pageAlign - 1)
	first := make([]byte, codeOffset+len(text))
	elfHeader(first, []segment{
		{ptLoad, pfR | pfX, 0, textBase, len(first), pageAlign},
		{ptLoad, pfR | pfW, dataOffset, dataBase, dataSize, pageAlign},
		{ptLoad, pfR, opsAt, opsBase, len(p.ops), pageAlign},
		{ptStack, pfR | pfW, 0, 0, 0, 16},
	})
	copy(first[codeOffset:], text)
	return &Image{
		pieces: []piece{{0, first}, {dataOffset, header}, {dataOffset + writable, p.consts}, {opsAt, p.ops}},
		size:   opsAt + len(p.ops),
	}, nil
}

// Constants of ELF.
const (
	ptLoad  = 1
	ptStack = 0x6474e551

	pfX = 1
	pfW = 2
	pfR = 4
)

// segment is a program header.
type segment struct {
	typ, flags uint32
	offset     int
	addr       uint64
	size       int
	align      uint64
}

func elfHeader(b []byte, segments []segment) {
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
	le.PutUint16(b[56:], uint16(len(segments)))
	for i, s := range segments {
		h := b[ehsize+i*phsize:]
		le.PutUint32(h[0:], s.typ)
		le.PutUint32(h[4:], s.flags)
		le.PutUint64(h[8:], uint64(s.offset))
		le.PutUint64(h[16:], s.addr)
		le.PutUint64(h[24:], s.addr)
		le.PutUint64(h[32:], uint64(s.size))
		le.PutUint64(h[40:], uint64(s.size))
		le.PutUint64(h[48:], s.align)
	}
}

// StepAt returns the step of the operation at an address that the init
// reported, with the number of its system call. ok is false for an address
// that is not in the program.
func (p *Program) StepAt(addr uint64) (step string, nr uint32, ok bool) {
	i := (addr - opsBase) / opSize
	if addr < opsBase || i >= uint64(p.Len()) {
		return "", 0, false
	}
	return p.steps[p.stepOf[i]], binary.LittleEndian.Uint32(p.ops[i*opSize:]), true
}

// Addr is the address of the operation with an index.
func (p *Program) Addr(index int) uint64 { return opsBase + uint64(index)*opSize }

// Steps calls f for every step from the operation with index from on, with the
// address of the step's first operation.
func (p *Program) Steps(from int, f func(addr uint64, step string)) {
	last := -1
	for i := from; i < p.Len(); i++ {
		if s := int(p.stepOf[i]); s != last {
			f(p.Addr(i), p.steps[s])
			last = s
		}
	}
}
