package test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// A shell in a failed step sees what the step saw, and nothing is left of it.
func TestBuildDebugShell(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("debug", map[string]string{"key": "the-key", "Dockerfile": "FROM " + busyboxImage +
		"\nENV COLOUR=red\nWORKDIR /src\nUSER user\nRUN --mount=type=secret,id=key,mode=0444 --mount=type=tmpfs,target=/mnt mkdir -p /tmp/x 2>/dev/null; false\n"})
	begin := func() (typed func(string), wait func() error, kill func()) {
		cmd := h.within(h.berthBin, "--no-start", "build", "--debug-shell", "--secret", "id=key,src="+filepath.Join(dir, "key"), dir)
		terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 111})
		if err != nil {
			t.Skipf("no pseudo-terminals here: %v", err)
		}
		out := &syncBuffer{}
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 4096)
			for {
				n, err := terminal.Read(buf)
				_, _ = out.Write(buf[:n])
				if err != nil {
					return
				}
			}
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = terminal.Close()
			<-done
		})
		h.eventually("the shell prompts", func() bool { return strings.Contains(out.String(), "/src $ ") })
		typed = func(line string) { _, _ = terminal.WriteString(line + "\r") }
		typed("echo $COLOUR-$(id -u)-$(cat /run/secrets/key)-$(stty size) | tr ' ' x")
		h.eventually("the shell answers", func() bool { return strings.Contains(out.String(), "red-1000-the-key-33x111") })
		return typed, cmd.Wait, func() { _ = cmd.Process.Kill() }
	}
	typed, wait, _ := begin()
	typed("exit")
	if err := wait(); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Errorf("after the shell: %v", err)
	}
	h.nothingLeft()

	_, wait, kill := begin()
	kill() // a client that dies takes its shell along
	_ = wait()
	h.nothingLeft()
}
