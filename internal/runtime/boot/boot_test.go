package boot

import (
	"os"
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
