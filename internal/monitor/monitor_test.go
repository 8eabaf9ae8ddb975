package monitor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/internal/fault"
	"berth/internal/runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runtimes are those that every test of what containers do is run with.
func runtimes(t *testing.T, test func(t *testing.T, h *host)) {
	paths := []string{""}
	if path, err := exec.LookPath("runc"); err == nil {
		paths = append(paths, path)
	}
	for _, path := range paths {
		name := "built-in"
		if path != "" {
			name = filepath.Base(path)
		}
		if want := os.Getenv("MONITOR_TEST_RUNTIME"); want != "" && want != name {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.runtime = path
			test(t, h)
		})
	}
}

func TestExitCodesAndOutput(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		for i, c := range []struct {
			script   string
			code     int
			signal   int
			out, err string
		}{
			{"true", 0, 0, "", ""},
			{"echo hello; echo oops >&2; exit 3", 3, 0, "hello\n", "oops\n"},
			{"printf 'no end'; exit 255", 255, 0, "no end", ""},
			{"kill -9 $$", 0, 0, "", ""}, // the kernel shields the first process of a namespace
			{"echo a > /dev/stdout; echo b >> /dev/stderr", 0, 0, "a\n", "b\n"},
			{"seq 1 20000", 0, 0, numbers(1, 20000), ""},
			{"(sleep 0.05; echo late) & exit 7", 7, 0, "", ""},
		} {
			exit, got := h.run(h.id(fmt.Sprint("c", i)), c.script)
			if exit.Code != c.code || exit.Signal != c.signal || exit.Unknown || exit.OOMKilled || exit.At.IsZero() {
				t.Errorf("%s: exit %+v, want code %d", c.script, exit, c.code)
			}
			if got != [2]string{c.out, c.err} {
				t.Errorf("%s: logged %.80q, want %.80q", c.script, got, [2]string{c.out, c.err})
			}
		}
	})
}

func numbers(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

func TestSignalsAndLifecycle(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		ctx, id := t.Context(), h.id("c")
		if s := h.state(id); s != nil {
			t.Errorf("unknown container: %+v", s)
		}
		for name, err := range map[string]error{
			"signal": h.client.Signal(ctx, id, "", 15), "kill": h.client.KillAll(ctx, id), "pause": h.client.Pause(ctx, id),
		} {
			if !fault.Is(err, fault.NotFound) {
				t.Errorf("%s of an unknown container: %v", name, err)
			}
		}
		h.forget(id)
		started := h.start(h.request(id, "trap 'echo got it; exit 4' TERM; echo ready; while :; do sleep 0.02; done"))
		h.eventually("it is ready", func() bool { return strings.Contains(h.logged(id)[0], "ready") })
		s := h.state(id)
		if s == nil || s.PID != started.PID || s.Exited || !s.StartedAt.Equal(started.At) || unix.Kill(started.PID, 0) != nil {
			t.Fatalf("state %s, started %+v", toJSON(s), started)
		}
		if _, err := h.client.Start(ctx, h.request(id, "true")); !fault.Is(err, fault.Conflict) {
			t.Errorf("second start: %v, want a conflict", err)
		}
		if err := h.client.Forget(ctx, id); !fault.Is(err, fault.Conflict) {
			t.Errorf("forget while it runs: %v, want a conflict", err)
		}
		if pids, err := h.client.Pids(ctx, id); err != nil || len(pids) == 0 {
			t.Errorf("pids %v, %v", pids, err)
		}
		if stats, err := h.client.Stats(ctx, id); err != nil || stats.CPU.Usage == 0 {
			t.Errorf("stats %+v, %v", stats, err)
		}
		if err := h.client.Pause(ctx, id); err != nil {
			t.Errorf("pause: %v", err)
		}
		if s := h.state(id); !s.Paused {
			t.Error("it is not said to be paused")
		}
		if err := h.client.Resume(ctx, id); err != nil {
			t.Errorf("resume: %v", err)
		}
		if err := h.client.Signal(ctx, id, "", int(unix.SIGTERM)); err != nil {
			t.Errorf("signal: %v", err)
		}
		exit := h.exit(id)
		if exit.Code != 4 {
			t.Errorf("exit %+v, want code 4", exit)
		}
		if err := h.client.Signal(ctx, id, "", 15); !fault.Is(err, fault.Conflict) {
			t.Errorf("signal after the end: %v, want a conflict", err)
		}
		if s := h.state(id); s == nil || !s.Exited || s.Exit == nil || s.Exit.Code != 4 || !s.Exit.At.Equal(exit.At) {
			t.Errorf("state after the end: %s", toJSON(s))
		}
		// The next start replaces what ended.
		h.start(h.request(id, "sleep 1000"))
		if err := h.client.KillAll(ctx, id); err != nil {
			t.Errorf("kill all: %v", err)
		}
		if exit := h.exit(id); exit.Code != 137 || exit.Signal != 9 {
			t.Errorf("exit after kill: %+v", exit)
		}
		h.forget(id)
		h.forget(id)
		h.expectNothing(id)
	})
}

// expectNothing checks that no trace of a container is left.
func (h *host) expectNothing(id string) {
	h.t.Helper()
	for _, pattern := range []string{h.runDir + "/monitor/containers/*", h.runDir + "/runtime/*", "/sys/fs/cgroup/*" + h.cgroups() + "/" + id} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			h.t.Errorf("left: %.500v", found)
		}
	}
	if text, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(text), h.dir) {
		h.t.Errorf("a mount is left below %s", h.dir)
	}
}

func TestProgramsThatCannotStart(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		if err := os.WriteFile(h.rootfs+"/bin/plain", []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
		for path, code := range map[string]int{"/bin/absent": 127, "/bin/plain": 126} {
			id := h.id("c")
			conn := h.attach(AttachRequest{ContainerID: id, Stdout: true, Prefix: []byte("head")})
			req := h.request(id, "")
			req.Spec.Process.Args = []string{path}
			_, err := h.client.Start(t.Context(), req)
			var failed *runtime.ExecError
			if !errors.As(err, &failed) || failed.Code != code {
				t.Errorf("%s: %v, want an exec error with code %d", path, err, code)
			}
			if got, _ := io.ReadAll(conn); string(got) != "head" {
				t.Errorf("%s: the client that waited got %q", path, got)
			}
			if s := h.state(id); s != nil {
				t.Errorf("%s: it is still known: %+v", path, s)
			}
			h.expectNothing(id)
		}
	})
}

func TestAttachBeforeStartWithInput(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.id("c")
		conn := h.attach(AttachRequest{ContainerID: id, Stdin: true, Stdout: true, Stderr: true})
		if _, err := io.WriteString(conn, "one\ntwo\n"); err != nil {
			t.Fatal(err)
		}
		req := h.request(id, "cat; echo done >&2; exit 5")
		req.OpenStdin, req.StdinOnce = true, true
		h.start(req)
		_ = conn.CloseWrite()
		got, err := readFrames(conn)
		if err != nil || got[1] != "one\ntwo\n" || got[2] != "done\n" {
			t.Errorf("got %q, %v", got, err)
		}
		if exit := h.exit(id); exit.Code != 5 {
			t.Errorf("exit %+v", exit)
		}
		if got := h.logged(id); got != [2]string{"one\ntwo\n", "done\n"} {
			t.Errorf("logged %q", got)
		}
	})
}

// Without StdinOnce a container's input outlives the client.
func TestInputStaysOpenForTheNextClient(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.id("c")
		req := h.request(id, "read a; echo $a; read b; echo $b")
		req.OpenStdin = true
		h.start(req)
		for _, word := range []string{"first", "second"} {
			conn := h.attach(AttachRequest{ContainerID: id, Stdin: true})
			_, _ = io.WriteString(conn, word+"\n")
			_ = conn.CloseWrite()
			_, _ = io.ReadAll(conn)
		}
		h.exit(id)
		if got := h.logged(id); got[0] != "first\nsecond\n" {
			t.Errorf("logged %q", got)
		}
	})
}

func TestTerminal(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.id("c")
		req := h.request(id, "stty size; stty -echo; echo go; read a; stty size; echo got $a >&2; exit 6")
		req.Spec.Process.Terminal = true
		req.Spec.Process.ConsoleSize = &specs.Box{Height: 11, Width: 22}
		req.OpenStdin = true
		conn := h.attach(AttachRequest{ContainerID: id, Stdin: true, Stdout: true, Stderr: true, DetachKeys: []byte{16, 17}})
		h.start(req)
		text := readUntil(t, conn, "go\r\n")
		if !strings.HasPrefix(text, "11 22\r\n") {
			t.Errorf("the terminal says %q", text)
		}
		if err := h.client.Resize(t.Context(), id, "", 33, 44); err != nil {
			t.Errorf("resize: %v", err)
		}
		_, _ = io.WriteString(conn, "words\n")
		rest, _ := io.ReadAll(conn)
		if string(rest) != "33 44\r\ngot words\r\n" {
			t.Errorf("the terminal says %q", rest)
		}
		if exit := h.exit(id); exit.Code != 6 {
			t.Errorf("exit %+v", exit)
		}
		if got := h.logged(id); got[0] != "11 22\r\ngo\r\n33 44\r\ngot words\r\n" {
			t.Errorf("logged %q", got)
		}
		h.forget(id)
		h.expectNothing(id)
	})
}

func readUntil(t *testing.T, r io.Reader, end string) string {
	t.Helper()
	var text []byte
	var b [1]byte
	for !strings.HasSuffix(string(text), end) {
		if _, err := r.Read(b[:]); err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		text = append(text, b[0])
	}
	return string(text)
}

func TestDetachKeys(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.id("c")
		req := h.request(id, "read a; echo $a")
		req.OpenStdin = true
		h.start(req)
		conn := h.attach(AttachRequest{ContainerID: id, Stdin: true, Stdout: true, DetachKeys: []byte{16, 17}})
		_, _ = conn.Write([]byte{'h', 'i', 16, 17})
		if got, _ := io.ReadAll(conn); len(got) != 0 {
			t.Errorf("got %q", got)
		}
		h.await(EventDetach, id, "")
		conn = h.attach(AttachRequest{ContainerID: id, Stdin: true})
		_, _ = conn.Write([]byte("!\n"))
		h.exit(id)
		if got := h.logged(id); got[0] != "hi!\n" {
			t.Errorf("logged %q", got)
		}
	})
}

func TestExec(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		ctx, id := t.Context(), h.id("c")
		h.start(h.request(id, "sleep 1000"))
		process := func(script string, tty bool) *specs.Process {
			return &specs.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: tty}
		}
		// Output, error output, input, exit code.
		conn := h.attach(AttachRequest{ContainerID: id, ExecID: "a", Stdin: true, Stdout: true, Stderr: true})
		started, err := h.client.Exec(ctx, ExecRequest{ContainerID: id, ExecID: "a", Process: process("cat; echo err >&2; exit 9", false), OpenStdin: true})
		if err != nil || started.PID == 0 {
			t.Fatalf("exec: %+v, %v", started, err)
		}
		_, _ = io.WriteString(conn, "input")
		_ = conn.CloseWrite()
		if got, err := readFrames(conn); err != nil || got[1] != "input" || got[2] != "err\n" {
			t.Errorf("got %q, %v", got, err)
		}
		if e := h.await(EventExecExit, id, "a"); e.Exit.Code != 9 {
			t.Errorf("exec exit %+v", e.Exit)
		}
		// A terminal, sized before it exists.
		conn = h.attach(AttachRequest{ContainerID: id, ExecID: "b", Stdin: true, Stdout: true})
		if err := h.client.Resize(ctx, id, "b", 12, 34); err != nil {
			t.Errorf("resize before the start: %v", err)
		}
		if _, err := h.client.Exec(ctx, ExecRequest{ContainerID: id, ExecID: "b", Process: process("stty size; kill -9 $$", true), OpenStdin: true}); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(conn); string(got) != "12 34\r\n" {
			t.Errorf("terminal: %q", got)
		}
		if e := h.await(EventExecExit, id, "b"); e.Exit.Code != 137 || e.Exit.Signal != 9 {
			t.Errorf("exec exit %+v", e.Exit)
		}
		// No client, and something left in the background.
		if _, err := h.client.Exec(ctx, ExecRequest{ContainerID: id, ExecID: "c", Process: process("sleep 1000 & exit 2", false)}); err != nil {
			t.Fatal(err)
		}
		if e := h.await(EventExecExit, id, "c"); e.Exit.Code != 2 {
			t.Errorf("exec exit %+v", e.Exit)
		}
		// What cannot be run, and the same id twice.
		var failed *runtime.ExecError
		if _, err := h.client.Exec(ctx, ExecRequest{ContainerID: id, ExecID: "d", Process: &specs.Process{Args: []string{"/bin/absent"}, Cwd: "/"}}); !errors.As(err, &failed) || failed.Code != 127 {
			t.Errorf("absent program: %v", err)
		}
		if _, err := h.client.Exec(ctx, ExecRequest{ContainerID: id, ExecID: "a", Process: process("true", false)}); !fault.Is(err, fault.Conflict) {
			t.Errorf("used id: %v", err)
		}
		// One that runs dies with its container, which waits for nothing.
		if _, err := h.client.Exec(ctx, ExecRequest{ContainerID: id, ExecID: "e", Process: process("sleep 1000", false)}); err != nil {
			t.Fatal(err)
		}
		if s := h.state(id); len(s.Execs) != 4 {
			t.Errorf("execs: %s", toJSON(s.Execs))
		}
		if err := h.client.Signal(ctx, id, "", 9); err != nil {
			t.Error(err)
		}
		if exit := h.exit(id); exit.Code != 137 {
			t.Errorf("exit %+v", exit)
		}
		if got := h.logged(id); got != [2]string{} {
			t.Errorf("output of execs was logged: %q", got)
		}
		h.forget(id)
		h.expectNothing(id)
	})
}

func TestOutOfMemory(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.id("c")
		limit := int64(24 << 20)
		exit, _ := h.run(id, "x=$(dd if=/dev/zero bs=1M count=100 | busybox tr '\\0' x); echo ${#x}", func(r *StartRequest) {
			r.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
		})
		if !exit.OOMKilled {
			t.Errorf("exit %+v, want it killed for lack of memory", exit)
		}
		h.await(EventOOM, id, "")
		exit, _ = h.run(id, "exit 1", func(r *StartRequest) {
			r.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
		})
		if exit.OOMKilled || exit.Code != 1 {
			t.Errorf("exit %+v, want nothing of memory", exit)
		}
	})
}

func TestNoLogDriver(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.id("c")
		req := h.request(id, "seq 1 50000; echo end >&2")
		req.Log.Driver = NoLog
		conn := h.attach(AttachRequest{ContainerID: id, Stderr: true})
		h.start(req)
		if got, err := readFrames(conn); err != nil || got[1] != "" || got[2] != "end\n" {
			t.Errorf("got %.80q, %v", got, err)
		}
		h.exit(id)
		if _, err := os.Stat(h.logPath(id)); !os.IsNotExist(err) {
			t.Errorf("a log was written: %v", err)
		}
	})
}

func TestOverlayRoot(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.id("c")
		upper, work := h.dir+"/upper", h.dir+"/work"
		for _, dir := range []string{upper, work} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		exit, got := h.run(id, "echo new > /file; cat /file", func(r *StartRequest) {
			r.Overlay = &runtime.Overlay{Lower: []string{h.rootfs}, Upper: upper, Work: work}
			r.Spec.Root = nil
		})
		if exit.Code != 0 || got[0] != "new\n" {
			t.Errorf("%+v %q", exit, got)
		}
		if text, err := os.ReadFile(upper + "/file"); err != nil || string(text) != "new\n" {
			t.Errorf("upper: %q, %v", text, err)
		}
		h.expectNothing(id)
	})
}

func TestBadRequests(t *testing.T) {
	h := newHost(t)
	for _, id := range []string{"", "../x", "a/b", ".hidden", "-flag", strings.Repeat("x", 200), "a b"} {
		if _, err := h.client.Start(t.Context(), h.request(id, "true")); !fault.Is(err, fault.Invalid) {
			t.Errorf("id %q: %v", id, err)
		}
	}
	req := h.request("x", "true")
	req.SpecJSON = []byte("{nonsense")
	if _, err := h.client.Start(t.Context(), req); !fault.Is(err, fault.Invalid) {
		t.Errorf("nonsense specification: %v", err)
	}
	req = h.request("x", "true")
	req.Runtime = "/nowhere/runtime"
	if _, err := h.client.Start(t.Context(), req); err == nil || !strings.Contains(err.Error(), "/nowhere/runtime") {
		t.Errorf("absent runtime: %v, want an error that names it", err)
	}
	h.expectNothing("x")
}
