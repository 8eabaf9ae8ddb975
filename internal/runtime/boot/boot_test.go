package boot

import (
	"encoding/binary"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func run(t *testing.T, p *Program, inherit ...int) unix.WaitStatus {
	t.Helper()
	img, err := p.Image()
	if err != nil {
		t.Fatal(err)
	}
	l := Launch{CgroupFD: -1, Inherit: inherit, Name: "berth-init"}
	pid, pidfd, err := l.Start(img)
	if err != nil {
		t.Fatal(err)
	}
	defer pidfd.Close()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil {
		t.Fatal(err)
	}
	return ws
}

func exitWith(p *Program, code Arg) { p.Call(unix.SYS_EXIT_GROUP, code) }

func TestProgramRuns(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := New()
	fail := p.Label()
	p.OnFail(fail)
	n := p.Slot()
	p.Call(unix.SYS_WRITE, Int(int(w.Fd())), p.Str("hello"), Int(5)).Into(n)
	exitWith(p, n.Val())
	p.Bind(fail)
	exitWith(p, Int(99))
	if ws := run(t, p, int(w.Fd())); ws.ExitStatus() != 5 {
		t.Fatalf("exit status %d, want the 5 that write returned", ws.ExitStatus())
	}
	b := make([]byte, 16)
	if n, _ := r.Read(b); string(b[:n]) != "hello" {
		t.Fatalf("read %q", b[:n])
	}
}

// script runs a program that writes to a pipe and returns what came and the
// exit code.
func script(t *testing.T, build func(p *Program, out Arg)) (string, int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := New()
	build(p, Int(int(w.Fd())))
	ws := run(t, p, int(w.Fd()))
	w.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b), ws.ExitStatus()
}

func TestBranchesLoopsAndErrors(t *testing.T) {
	out, code := script(t, func(p *Program, out Arg) {
		say := func(s string) Op { return p.Call(unix.SYS_WRITE, out, p.Str(s), Int(len(s))) }
		fail, skip, loop, end, missing := p.Label(), p.Label(), p.Label(), p.Label(), p.Label()
		p.OnFail(fail)
		n, count, buf := p.Slot(), p.Slot(), p.Scratch(16)
		say("start ").Into(n)
		p.Test(n.Addr(), ^uint64(0), 6, 0).Then(skip)
		say("WRONG ")
		p.Bind(skip)
		p.Call(unix.SYS_OPENAT, Int(unix.AT_FDCWD), p.Str("/does/not/exist"), Int(0)).Ignore(unix.ENOENT)
		p.Bind(loop)
		say("loop ")
		p.Add(count.Addr(), Int(1))
		p.Test(count.Addr(), 0xff, 3, 0).Then(end).OnErr(loop)
		p.Bind(end)
		p.Store(buf, Int(0x206b6f))
		p.Call(unix.SYS_WRITE, out, buf, Int(3))
		p.Call(unix.SYS_OPENAT, Int(unix.AT_FDCWD), p.Str("/does/not/exist"), Int(0)).OnErr(missing, unix.EACCES, unix.ENOENT)
		say("WRONG ")
		p.Bind(missing)
		say("missing")
		exitWith(p, count.Val())
		p.Bind(fail)
		exitWith(p, Int(99))
	})
	if out != "start loop loop loop ok missing" || code != 3 {
		t.Errorf("wrote %q and ended with %d", out, code)
	}
}

func TestFailureIsReported(t *testing.T) {
	for _, c := range []struct {
		name  string
		op    func(p *Program) Op
		errno syscall.Errno
	}{
		{"a call", func(p *Program) Op { return p.Call(unix.SYS_CLOSE, Int(12345)).Ignore(unix.ENOENT) }, unix.EBADF},
		{"a large errno", func(p *Program) Op { return p.Call(unix.SYS_GETSOCKNAME, Int(0), Int(0), Int(0)).Ignore(unix.EACCES) }, unix.ENOTSOCK},
		{"a test", func(p *Program) Op { return p.Test(p.Words(Int(5)), 4, 1, unix.EXDEV) }, unix.EXDEV},
	} {
		var prog *Program
		out, code := script(t, func(p *Program, out Arg) {
			prog = p
			fail := p.Label()
			p.OnFail(fail)
			p.Step("first step")
			p.Call(unix.SYS_GETPID)
			p.Step("second step")
			c.op(p)
			exitWith(p, Int(0))
			p.Bind(fail)
			p.Call(unix.SYS_WRITE, out, p.Report(), Int(16))
			exitWith(p, Int(7))
		})
		if code != 7 || len(out) != 16 {
			t.Fatalf("%s: ended with %d and %d bytes", c.name, code, len(out))
		}
		addr, errno := binary.NativeEndian.Uint64([]byte(out)), binary.NativeEndian.Uint64([]byte(out[8:]))
		if step, _, ok := prog.StepAt(addr); !ok || step != "second step" {
			t.Errorf("%s: step %q, %v", c.name, step, ok)
		}
		if syscall.Errno(errno) != c.errno {
			t.Errorf("%s: errno %v, want %v", c.name, syscall.Errno(errno), c.errno)
		}
	}
}

func TestBadProgramsAreRefused(t *testing.T) {
	p := New()
	if _, err := p.Image(); err == nil {
		t.Error("an empty program was linked")
	}
	l := p.Label()
	p.OnFail(l)
	p.Goto(p.Label())
	p.Bind(l)
	exitWith(p, Int(0))
	if _, err := p.Image(); err == nil {
		t.Error("a jump to nowhere was linked")
	}
	if _, _, ok := p.StepAt(12345); ok {
		t.Error("an address out of nowhere has a step")
	}
}

func TestManySlotsAndStrings(t *testing.T) {
	out, code := script(t, func(p *Program, out Arg) {
		fail := p.Label()
		p.OnFail(fail)
		var last Slot
		for range 2000 { // far more than fit the page for slots
			last = p.Slot()
			p.Store(last.Addr(), Int(0x61))
		}
		p.Call(unix.SYS_WRITE, out, last.Addr(), Int(1))
		big := strings.Repeat("x", 100_000)
		p.Call(unix.SYS_WRITE, out, p.Str(big).Plus(99_990), Int(10))
		exitWith(p, Int(0))
		p.Bind(fail)
		exitWith(p, Int(1))
	})
	if code != 0 || out != "axxxxxxxxxx" {
		t.Errorf("ended with %d and %q", code, out)
	}
}

// The image can't be changed any more, not even by root through /proc.
func TestImageIsSealed(t *testing.T) {
	p := New()
	fail := p.Label()
	p.OnFail(fail)
	p.Bind(fail)
	exitWith(p, Int(0))
	img, err := p.Image()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := seal(img)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Pwrite(fd, []byte("x"), 0); err == nil {
		t.Error("it can be written to")
	}
	if err := unix.Ftruncate(fd, 0); err == nil {
		t.Error("it can be cut")
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, 0); err == nil {
		t.Error("seals can be added")
	}
	if _, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		t.Error("it can be mapped for writing")
	}
}

func TestOnlyInheritedDescriptorsArePassed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := New()
	fail := p.Label()
	p.OnFail(fail)
	p.Call(unix.SYS_FCNTL, Int(int(r.Fd())), Int(unix.F_GETFD))
	exitWith(p, Int(0))
	p.Bind(fail)
	exitWith(p, Int(5))
	if ws := run(t, p, int(w.Fd())); ws.ExitStatus() != 5 {
		t.Errorf("another descriptor was passed: %d", ws.ExitStatus())
	}
}
