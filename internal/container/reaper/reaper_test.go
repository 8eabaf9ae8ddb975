package reaper

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// run starts the init as process 1 of a pid namespace.
func run(t *testing.T, env []string, command ...string) (*exec.Cmd, *bytes.Buffer) {
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
	out := &bytes.Buffer{}
	cmd := &exec.Cmd{Path: path, Args: Args(command, env), Env: env, Stdout: out, Stderr: out,
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, out
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
			cmd, out := run(t, env, tt.command...)
			if got := exitCode(t, cmd.Wait()); got != tt.code || out.String() != tt.out {
				t.Errorf("exit code %d, output %q; want %d, %q", got, out, tt.code, tt.out)
			}
		})
	}
}

func TestPassesSignalsOn(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd, _ := run(t, env, "true")
	_ = cmd.Wait()
	image, _ := Image()
	path := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(path, image, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd = &exec.Cmd{Path: path, Env: env, Stdout: w, SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID},
		Args: Args([]string{"sh", "-c", "trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.05; done"}, env)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	buf := make([]byte, 64)
	if n, err := r.Read(buf); err != nil || string(buf[:n]) != "ready\n" {
		t.Fatalf("%q %v", buf[:n], err)
	}
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(buf); err != nil || string(buf[:n]) != "got\n" {
		t.Errorf("%q %v", buf[:n], err)
	}
	if got := exitCode(t, cmd.Wait()); got != 3 {
		t.Errorf("exit code %d", got)
	}
	// A program without a handler ends by the signal: it is not process 1.
	cmd, _ = run(t, env, "sleep", "1000")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := exitCode(t, cmd.Wait()); got != 143 && got != 137 {
		t.Errorf("exit code %d", got)
	}
}

func TestReapsOrphans(t *testing.T) {
	// The orphan's parent ends at once; its new one, the init, must reap it. Its
	// zombie would still answer kill -0.
	cmd, out := run(t, env, "sh", "-c", "orphan=$(sh -c 'sleep 0.1 >/dev/null & echo $!'); i=0; while kill -0 $orphan 2>/dev/null && [ $i -lt 200 ]; do sleep 0.05; i=$((i+1)); done; [ $i -lt 200 ] && echo reaped")
	if err := cmd.Wait(); err != nil || out.String() != "reaped\n" {
		t.Errorf("%q %v", out, err)
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
