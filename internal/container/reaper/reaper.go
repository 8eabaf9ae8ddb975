// Package reaper is the small init that a container gets with --init: process 1,
// which passes signals on to the user's program, reaps what is left to it, and
// ends as the program does. It exists because the kernel drops signals which
// process 1 has no handler for, and few programs expect to be process 1. It is a
// few hundred bytes of code without a run time, so a container with it costs
// three pages more than one without.
package reaper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"unsafe"
)

// Path is where the init lies inside a container.
const Path = "/sbin/docker-init"

// codeOffset is where the code lies in the image, behind the headers.
const codeOffset = 0x100

const textBase = 0x400000

func machineCode() unsafe.Pointer

// code returns the machine's code. Its end is marked in the text, because the
// size of an assembly function is not known to Go.
func code() []byte {
	text := unsafe.Slice((*byte)(machineCode()), 2048)
	i := bytes.Index(text, []byte("bethtien"))
	if i < 0 {
		return nil
	}
	return text[:i]
}

// Image returns the init as an ELF executable.
func Image() ([]byte, error) {
	text := code()
	if text == nil {
		return nil, errors.New("reaper: machine code not found")
	}
	const ehsize, phsize = 64, 56
	b := make([]byte, codeOffset+len(text))
	copy(b[codeOffset:], text)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2) // ET_EXEC
	le.PutUint16(b[18:], elfMachine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], textBase+codeOffset) // entry
	le.PutUint64(b[32:], ehsize)              // program headers
	le.PutUint16(b[52:], ehsize)
	le.PutUint16(b[54:], phsize)
	le.PutUint16(b[56:], 2)
	segment := func(i int, typ, flags uint32, addr, size, align uint64) {
		h := b[ehsize+i*phsize:]
		le.PutUint32(h[0:], typ)
		le.PutUint32(h[4:], flags)
		le.PutUint64(h[16:], addr)
		le.PutUint64(h[24:], addr)
		le.PutUint64(h[32:], size)
		le.PutUint64(h[40:], size)
		le.PutUint64(h[48:], align)
	}
	const ptLoad, ptStack = 1, 0x6474e551
	segment(0, ptLoad, 4|1, textBase, uint64(len(b)), pageAlign) // readable, executable
	segment(1, ptStack, 4|2, 0, 0, 16)                           // readable, writable
	return b, nil
}

// Args returns the arguments with which the init runs a command: where to look
// for it, by the given environment's PATH, an empty one, and the command itself. Once
// that runs the init shows itself as Path, "--" and the command.
func Args(command, env []string) []string {
	out := []string{Path}
	name := command[0]
	if strings.Contains(name, "/") {
		out = append(out, name)
	} else {
		for _, dir := range strings.Split(pathOf(env), ":") {
			if dir == "" {
				dir = "."
			}
			out = append(out, dir+"/"+name)
		}
	}
	return append(append(out, ""), command...)
}

func pathOf(env []string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			return v
		}
	}
	return "/bin:/usr/bin"
}
