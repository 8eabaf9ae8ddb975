package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"unsafe"

	"berth/internal/runtime/smallfile"

	"golang.org/x/sys/unix"
)

// Cgroup v2 has no device files: a BPF program attached to the cgroup decides.
// The program is a list of comparisons, one block for each exception.

// bpfInsn is struct bpf_insn.
type bpfInsn struct {
	code uint8
	regs uint8 // destination in the low half, source in the high half
	off  int16
	imm  int32
}

// Opcodes, named as in the kernel's documentation.
const (
	bpfLoadWord = 0x61 // dst = *(u32 *)(src + off)
	bpfMov      = 0xbf // dst = src
	bpfMovImm   = 0xb7
	bpfAnd32    = 0x54 // w(dst) &= imm
	bpfShr      = 0x77 // dst >>= imm
	bpfJneImm   = 0x55 // if dst != imm goto off
	bpfJne      = 0x5d // if dst != src goto off
	bpfExit     = 0x95
)

func regs(dst, src uint8) uint8 { return dst | src<<4 }

// program returns the instructions that decide as the policy says. The context
// is struct bpf_cgroup_dev_ctx: type in the low half of the first word, access
// in its high half, then major and minor.
func (p *devicePolicy) program() []bpfInsn {
	const typ, access, major, minor, scratch = 2, 3, 4, 5, 6
	out := []bpfInsn{
		{bpfLoadWord, regs(typ, 1), 0, 0},
		{bpfMov, regs(access, typ), 0, 0},
		{bpfAnd32, regs(typ, 0), 0, 0xffff},
		{bpfShr, regs(access, 0), 0, 16},
		{bpfLoadWord, regs(major, 1), 4, 0},
		{bpfLoadWord, regs(minor, 1), 8, 0},
	}
	verdict := func(allow bool) []bpfInsn {
		v := int32(0)
		if allow {
			v = 1
		}
		return []bpfInsn{{bpfMovImm, regs(0, 0), 0, v}, {bpfExit, 0, 0, 0}}
	}
	for _, e := range p.exceptions {
		var block []bpfInsn
		kind := int32(unix.BPF_DEVCG_DEV_CHAR)
		if e.typ == 'b' {
			kind = unix.BPF_DEVCG_DEV_BLOCK
		}
		block = append(block, bpfInsn{bpfJneImm, regs(typ, 0), 0, kind})
		if e.access != accAll && !p.allow {
			// An allowed kind of access must cover all that is asked.
			block = append(block,
				bpfInsn{bpfMov, regs(scratch, access), 0, 0},
				bpfInsn{bpfAnd32, regs(scratch, 0), 0, int32(e.access)},
				bpfInsn{bpfJne, regs(scratch, access), 0, 0})
		}
		if e.major != wildcard {
			block = append(block, bpfInsn{bpfJneImm, regs(major, 0), 0, int32(e.major)})
		}
		if e.minor != wildcard {
			block = append(block, bpfInsn{bpfJneImm, regs(minor, 0), 0, int32(e.minor)})
		}
		if e.access != accAll && p.allow {
			// A denied kind of access matters when any of it is asked.
			block = append(block,
				bpfInsn{bpfMov, regs(scratch, access), 0, 0},
				bpfInsn{bpfAnd32, regs(scratch, 0), 0, int32(e.access)},
				bpfInsn{bpfJneImm, regs(scratch, 0), 1, 0},
				bpfInsn{0x05, 0, 2, 0}) // goto behind the verdict
		}
		block = append(block, verdict(!p.allow)...)
		for i := range block {
			jump := block[i].code == bpfJneImm || block[i].code == bpfJne
			if jump && block[i].off == 0 {
				block[i].off = int16(len(block) - i - 1)
			}
		}
		out = append(out, block...)
	}
	return append(out, verdict(p.allow)...)
}

// attach replaces the device program of the cgroup at dir.
func (p *devicePolicy) attach(dir string) error {
	cg, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(cg)
	old, err := attached(cg)
	if err != nil {
		return err
	}
	prog, err := load(p.program())
	if err != nil {
		return err
	}
	defer unix.Close(prog)
	attr := struct{ target, prog, typ, flags, replace uint32 }{
		uint32(cg), uint32(prog), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0,
	}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("attach device program: %w", err)
	}
	// The old program goes after the new one is there: at no moment is the
	// container without.
	for _, id := range old {
		if err := detach(cg, id); err != nil {
			return err
		}
	}
	return nil
}

// load hands a program to the kernel's verifier.
func load(prog []bpfInsn) (int, error) {
	license := []byte("Apache-2.0\x00")
	attr := struct {
		typ, count     uint32
		insns, license uint64
		rest           [12]uint64
	}{typ: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(prog))}
	attr.insns = uint64(uintptr(unsafe.Pointer(&prog[0])))
	attr.license = uint64(uintptr(unsafe.Pointer(&license[0])))
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	keep(prog, license)
	if err != nil {
		return -1, fmt.Errorf("load device program: %w", err)
	}
	return fd, nil
}

// attached returns the ids of the device programs of a cgroup.
func attached(cg int) ([]uint32, error) {
	var ids [64]uint32
	attr := struct {
		target, typ, flags, attachFlags uint32
		ids                             uint64
		count, pad                      uint32
	}{target: uint32(cg), typ: unix.BPF_CGROUP_DEVICE, count: uint32(len(ids))}
	attr.ids = uint64(uintptr(unsafe.Pointer(&ids[0])))
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	keep(&ids)
	if err != nil {
		return nil, fmt.Errorf("query device programs: %w", err)
	}
	return ids[:min(int(attr.count), len(ids))], nil
}

func detach(cg int, id uint32) error {
	get := struct{ id, next, flags uint32 }{id: id}
	fd, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&get), unsafe.Sizeof(get))
	if err != nil {
		return fmt.Errorf("open device program: %w", err)
	}
	defer unix.Close(fd)
	attr := struct{ target, prog, typ, flags uint32 }{uint32(cg), uint32(fd), unix.BPF_CGROUP_DEVICE, 0}
	if _, err := bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr)); err != nil {
		return fmt.Errorf("detach device program: %w", err)
	}
	return nil
}

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN, unix.EINTR: // the verifier was interrupted
			continue
		}
		return -1, errno
	}
}

// keep holds values alive whose addresses the kernel was given as numbers. It
// is not inlined, so the values escape to the heap and do not move.
//
//go:noinline
func keep(...any) {}

// inUserNamespace reports whether this process lacks the rights of the
// machine's own root.
func inUserNamespace() bool {
	b, err := smallfile.Read("/proc/self/uid_map", maxFile)
	return err == nil && !bytes.Equal(bytes.Join(bytes.Fields(b), []byte(" ")), []byte("0 0 4294967295"))
}
