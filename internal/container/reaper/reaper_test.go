package reaper

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// run runs a command under the init to its end.
func run(t *testing.T, env []string, command ...string) (code int, out string) {
	t.Helper()
	cmd, r := start(t, env, command...)
	text, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return exitCode(t, cmd.Wait()), string(text)
}

// start starts the init as process 1 of a pid namespace.
func start(t *testing.T, env []string, command ...string) (*exec.Cmd, io.Reader) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes a pid namespace")
	}
	image, err := Image()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(path, image, 0o755); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd := &exec.Cmd{Path: path, Args: Args(command, env), Env: env, Stdout: w, Stderr: w,
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		r.Close()
	})
	return cmd, r
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return 0
}

var env = []string{"PATH=/nowhere:/usr/bin:/bin", "A=b"}

func TestEndsAsTheProgramDoes(t *testing.T) {
	for _, tt := range []struct {
		command []string
		code    int
		out     string
	}{
		{[]string{"true"}, 0, ""},
		{[]string{"sh", "-c", "echo $0 $A $$ $PPID; exit 7", "x"}, 7, "x b 2 1\n"},
		{[]string{"/bin/sh", "-c", "kill -TERM $$"}, 143, ""},
		{[]string{"sh", "-c", "kill -KILL $$"}, 137, ""},
		{[]string{"no-such-program"}, 127, ""},
		{[]string{"/etc/passwd"}, 126, ""},
		{[]string{"/etc"}, 126, ""},
		{[]string{"/etc/passwd/x"}, 127, ""},
	} {
		t.Run(strings.Join(tt.command, " "), func(t *testing.T) {
			if got, out := run(t, env, tt.command...); got != tt.code || out != tt.out {
				t.Errorf("exit code %d, output %q; want %d, %q", got, out, tt.code, tt.out)
			}
		})
	}
}

func TestPassesSignalsOn(t *testing.T) {
	for _, tt := range []struct {
		script string // says ready; before, the kernel drops what is sent to process 1
		signal syscall.Signal
		out    string
		code   int
	}{
		{"trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.05; done", syscall.SIGUSR1, "ready\ngot\n", 3},
		// A program without a handler ends by the signal: it is not process 1.
		{"echo ready; exec sleep 1000", syscall.SIGTERM, "ready\n", 143},
	} {
		cmd, out := start(t, env, "sh", "-c", tt.script)
		said := bufio.NewReader(out)
		first, err := said.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(tt.signal); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(said)
		if got := first + string(rest); err != nil || got != tt.out {
			t.Errorf("%s: %q %v", tt.script, got, err)
		}
		if got := exitCode(t, cmd.Wait()); got != tt.code {
			t.Errorf("%s: exit code %d", tt.script, got)
		}
	}
}

func TestReapsOrphans(t *testing.T) {
	// The orphan's parent ends at once; its new one, the init, must reap it. Its
	// zombie would still answer kill -0.
	code, out := run(t, env, "sh", "-c", "orphan=$(sh -c 'sleep 0.1 >/dev/null & echo $!'); i=0; while kill -0 $orphan 2>/dev/null && [ $i -lt 200 ]; do sleep 0.05; i=$((i+1)); done; [ $i -lt 200 ] && echo reaped")
	if code != 0 || out != "reaped\n" {
		t.Errorf("%q, exit code %d", out, code)
	}
}

func TestShowsTheCommandAndNotWhereItWasLookedFor(t *testing.T) {
	for _, env := range [][]string{env, {"PATH=/bin"}, nil} {
		for _, command := range [][]string{{"sleep", "1000"}, {"/bin/sh", "-c", "sleep 1000; exit", "a  b", "", "c"}} {
			cmd, _ := start(t, env, command...)
			want := strings.Join(append([]string{Path, "--"}, command...), "\x00")
			shown := ""
			for range 1000 { // the parent writes it while the child starts
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
				if err != nil {
					t.Fatal(err)
				}
				if shown = strings.TrimRight(string(text), "\x00"); shown == want {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			if shown != want {
				t.Errorf("%q shows %q", command, shown)
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
}

func TestArgs(t *testing.T) {
	if got := Args([]string{"sh", "-c"}, []string{"X=PATH=/x", "PATH=/a::/b"}); !slices.Equal(got, []string{Path, "/a/sh", "./sh", "/b/sh", "", "sh", "-c"}) {
		t.Errorf("%q", got)
	}
	if got := Args([]string{"./x"}, nil); !slices.Equal(got, []string{Path, "./x", "", "./x"}) {
		t.Errorf("%q", got)
	}
	image, err := Image()
	if err != nil || len(image) > 1024 {
		t.Errorf("%d bytes, %v", len(image), err)
	}
}
