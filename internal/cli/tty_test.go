package cli

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/term"
)

// tty is a terminal that a person sits at.
type tty struct {
	t      *testing.T
	person *os.File // what the person types into and reads from
	side   *os.File // the program's side
	screen *safeBuffer
}

func newTTY(t *testing.T) *tty {
	t.Helper()
	person, side, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	if err := pty.Setsize(person, &pty.Winsize{Rows: 24, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	y := &tty{t, person, side, newSafeBuffer()}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := person.Read(buf)
			_, _ = y.screen.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = side.Close()
		_ = person.Close()
	})
	return y
}

func (y *tty) types(keys string) {
	y.t.Helper()
	if _, err := y.person.WriteString(keys); err != nil {
		y.t.Fatal(err)
	}
}

// berth runs the command line on the terminal.
func (y *tty) berth(e *fakeEngine, args ...string) chan int {
	ended := make(chan int, 1)
	a := &app{in: y.side, out: y.side, err: y.side}
	go func() { ended <- a.main(append([]string{"-H", "unix://" + e.socket, "--no-start"}, args...)) }()
	return ended
}

func TestATerminalIsPassedThrough(t *testing.T) {
	t.Parallel()
	e, y := newFakeEngine(t), newTTY(t)
	before, err := term.GetState(int(y.side.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ended := y.berth(e, "run", "-it", "--rm", "--name", "x", "img", "cat")
	e.awaitRequest("POST", "/resize")
	c := e.container("x")
	if c.request.HostConfig.ConsoleSize != [2]uint{24, 100} || !c.request.Tty {
		t.Errorf("the container was made with %+v", c.request.HostConfig.ConsoleSize)
	}
	y.types("a\x03\x04b") // keys that a cooked terminal would act on
	y.screen.await(t, "a\x03\x04b")
	_ = c.feed.Close()
	if code := <-ended; code != 0 {
		t.Errorf("code %d", code)
	}
	after, err := term.GetState(int(y.side.Fd()))
	if err != nil || *before != *after {
		t.Errorf("the terminal was left as %+v, it was %+v (%v)", after, before, err)
	}
}

func TestDetachKeysLeaveTheContainer(t *testing.T) {
	t.Parallel()
	for keys, typed := range map[string]string{"": "\x10\x11", "ctrl-x,x": "\x18x"} {
		e, y := newFakeEngine(t), newTTY(t)
		args := []string{"run", "-it", "--name", "x", "img", "cat"}
		if keys != "" {
			args = append([]string{"run", "--detach-keys", keys}, args[1:]...)
		}
		ended := y.berth(e, args...)
		e.awaitRequest("POST", "/resize")
		y.types("before" + typed)
		if code := <-ended; code != 0 {
			t.Errorf("keys %q: code %d", keys, code)
		}
		if e.container("x").status != "running" {
			t.Errorf("keys %q: the container is %s", keys, e.container("x").status)
		}
		y.screen.await(t, "berth attach x")
	}
}

func TestResizesArePassedOn(t *testing.T) { // not parallel: it signals this process
	e, y := newFakeEngine(t), newTTY(t)
	ended := y.berth(e, "run", "-it", "--name", "x", "img", "size", "50x132")
	y.screen.await(t, "ready")
	if err := pty.Setsize(y.person, &pty.Winsize{Rows: 50, Cols: 132}); err != nil {
		t.Fatal(err)
	}
	self, _ := os.FindProcess(os.Getpid())
	if err := self.Signal(syscall.SIGWINCH); err != nil { // the terminal is not this process's own
		t.Fatal(err)
	}
	if code := <-ended; code != 0 {
		t.Errorf("code %d", code)
	}
}

func TestProgressIsDrawnOnATerminal(t *testing.T) {
	t.Parallel()
	e, y := newFakeEngine(t), newTTY(t)
	if code := <-y.berth(e, "pull", "other"); code != 0 {
		t.Fatalf("code %d: %s", code, y.screen.String())
	}
	y.screen.await(t, "docker.io/library/other:latest")
	if out := y.screen.String(); !strings.Contains(out, "\x1b[") || !strings.Contains(out, "0123456789ab  Pull complete") {
		t.Errorf("screen: %q", out)
	}
}

func TestErrorsAreColouredOnlyWhenWelcome(t *testing.T) {
	e, y := newFakeEngine(t), newTTY(t)
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	<-y.berth(e, "nonsense")
	y.screen.await(t, "nonsense")
	if !strings.Contains(y.screen.String(), "\x1b[1;31mberth:") {
		t.Errorf("screen: %q", y.screen.String())
	}
	t.Setenv("NO_COLOR", "1")
	plain := newTTY(t)
	<-plain.berth(e, "nonsense")
	plain.screen.await(t, "nonsense")
	if bytes.Contains([]byte(plain.screen.String()), []byte("\x1b[")) {
		t.Errorf("screen: %q", plain.screen.String())
	}
}
