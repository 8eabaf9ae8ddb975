package runtime

import (
	"encoding/binary"
	"errors"
	"io"
	goruntime "runtime"
)

// executable is what matters about an ELF file here. The standard library's
// reader brings debuggers' formats and decompressors into every start.
type executable struct {
	machine uint16
	loader  string // program interpreter, "" for a static executable
}

var errDamaged = errors.New("the header is damaged")

// readELF reads the header of an ELF file.
func readELF(f io.ReaderAt) (*executable, error) {
	var h [64]byte
	if n, err := f.ReadAt(h[:], 0); err != nil && (err != io.EOF || n < 52) {
		return nil, errDamaged
	}
	var order binary.ByteOrder = binary.LittleEndian
	if h[5] == 2 {
		order = binary.BigEndian
	}
	wide := h[4] == 2
	if h[4] != 1 && !wide || h[5] != 1 && h[5] != 2 {
		return nil, errDamaged
	}
	e := &executable{machine: order.Uint16(h[18:])}
	phoff, phsize, phnum := uint64(order.Uint32(h[28:])), order.Uint16(h[42:]), order.Uint16(h[44:])
	if wide {
		phoff, phsize, phnum = order.Uint64(h[32:]), order.Uint16(h[54:]), order.Uint16(h[56:])
	}
	for i := range int64(phnum) {
		var p [56]byte
		if n, err := f.ReadAt(p[:], int64(phoff)+i*int64(phsize)); err != nil && n < 32 || phoff > 1<<40 {
			return nil, errDamaged
		}
		const interpreter = 3
		if order.Uint32(p[0:]) != interpreter {
			continue
		}
		off, size := uint64(order.Uint32(p[4:])), uint64(order.Uint32(p[16:]))
		if wide {
			off, size = order.Uint64(p[8:]), order.Uint64(p[32:])
		}
		if size == 0 || size > 4096 || off > 1<<40 {
			return nil, errDamaged
		}
		text := make([]byte, size)
		if n, err := f.ReadAt(text, int64(off)); err != nil && n < len(text) {
			return nil, errDamaged
		}
		e.loader = string(text[:len(text)-1])
	}
	return e, nil
}

// machines names the platforms that images are made for by their ELF number.
var machines = map[uint16]string{
	3: "386", 8: "mips", 20: "ppc", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 258: "loong64",
}

func (e *executable) platform() string {
	if name, ok := machines[e.machine]; ok {
		return name
	}
	return "machine type " + itoa(int(e.machine))
}

// native reports whether this machine's kernel can execute the file.
func (e *executable) native() bool {
	switch p := e.platform(); goruntime.GOARCH {
	case "amd64":
		return p == "amd64" || p == "386"
	case "arm64":
		return p == "arm64" || p == "arm"
	}
	return true
}
