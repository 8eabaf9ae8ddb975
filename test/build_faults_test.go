package test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// slowOnDemand has a step that takes forever as long as its secret says so: what
// secrets hold is no part of a step's identity.
const slowOnDemand = "FROM " + busyboxImage + `
RUN echo first > /first
RUN echo second > /second
RUN --mount=type=secret,id=pace,required --mount=type=cache,target=/cache echo begun && if grep -q slow /run/secrets/pace; then sleep 98765; fi; cat /first /second
`

// sleepers counts the processes that the slow step left.
func sleepers() int {
	n := 0
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range dirs {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), "sleep\x0098765\x00") {
			n++
		}
	}
	return n
}

// begin starts a build and returns when its output shows text.
func (h *host) begin(text string, args ...string) (*exec.Cmd, *syncBuffer) {
	h.t.Helper()
	cmd := h.within(append([]string{h.berthBin, "--no-start", "build", "--progress", "plain"}, args...)...)
	out := &syncBuffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	h.eventually("the build shows "+text, func() bool { return strings.Contains(out.String(), text) })
	return cmd, out
}

type syncBuffer struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// nothingLeft checks that steps left no mounts, no writable layers, no secrets and
// no directories of their own.
func (h *host) nothingLeft() {
	h.t.Helper()
	h.eventually("the steps' roots are removed", func() bool {
		left, _ := filepath.Glob(h.path("data", "layers", "*", "build-*"))
		more, _ := filepath.Glob(h.path("data", "containers", "build-*"))
		return len(left)+len(more) == 0
	})
	for _, dir := range []string{h.path("run", "secrets"), h.path("data", "build", "tmp")} {
		if entries, _ := os.ReadDir(dir); len(entries) > 0 {
			h.t.Errorf("%s has %d entries", dir, len(entries))
		}
	}
	mounts, err := h.within("cat", "/proc/self/mountinfo").Output()
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, h.dir) && (strings.Contains(line, "/secrets/") || strings.Contains(line, "build-")) {
			h.t.Errorf("left mounted: %s", line)
		}
	}
	var groups []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.Contains(entry.Name(), "build-") && strings.Contains(path, filepath.Base(h.dir)) {
			groups = append(groups, path)
		}
		return nil
	})
	if len(groups) > 0 {
		h.t.Errorf("left control groups: %v", groups)
	}
}

// An engine that is killed in the middle of a step goes on from the last one that
// was finished, and the step that ran leaves nothing.
func TestBuildGoesOnAfterTheEngineWasKilled(t *testing.T) {
	h := newEngine(t)
	dir := h.context("slow", map[string]string{"Dockerfile": slowOnDemand, "pace": "slow"})
	before := sleepers()
	build := []string{"-t", "slow:1", "--secret", "id=pace,src=" + filepath.Join(dir, "pace"), dir}
	cmd, _ := h.begin(" begun\n", build...)
	h.killEngine()
	if err := cmd.Wait(); err == nil {
		t.Error("the client did not notice that the engine died")
	}
	h.startEngine()
	h.eventually("the step of the killed engine ends", func() bool { return sleepers() == before })
	h.nothingLeft()
	contains(t, h.berth("build", "history", "ls"), "interrupted")
	h.write("slow/pace", "fast", 0o644)
	contains(t, h.build(build...), "#2 CACHED", "#3 CACHED", "first\n", "second\n")
	h.nothingLeft()
}

// A client that goes away takes its build along.
func TestBuildEndsWithItsClient(t *testing.T) {
	h := newEngine(t)
	dir := h.context("slow", map[string]string{"Dockerfile": slowOnDemand, "pace": "slow"})
	before := sleepers()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		cmd, out := h.begin(" begun\n", "--secret", "id=pace,src="+filepath.Join(dir, "pace"), dir)
		pid := strings.TrimSpace(h.childOf(cmd))
		_ = exec.Command("kill", "-"+signalNumber(signal), pid).Run()
		start := time.Now()
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); signal == syscall.SIGINT && code != 130 {
			t.Errorf("an interrupted build ends with %d: %s", code, out)
		}
		h.eventually("the step ends", func() bool { return sleepers() == before })
		t.Logf("%v: %v", signal, time.Since(start))
		h.nothingLeft()
		h.eventually("the history says so", func() bool { return strings.Contains(h.berth("build", "history", "inspect"), "cancelled") })
	}
}

// childOf returns the process that nsenter became or started.
func (h *host) childOf(cmd *exec.Cmd) string {
	name, _ := os.ReadFile(filepath.Join("/proc", itoa(cmd.Process.Pid), "comm"))
	if strings.TrimSpace(string(name)) == "berth" {
		return itoa(cmd.Process.Pid)
	}
	out, _ := exec.Command("pgrep", "-P", itoa(cmd.Process.Pid)).Output()
	return string(out)
}

// Whoever may ask the engine to build may not read files through it that he cannot
// read himself.
func TestBuildReadsWithTheRightsOfItsClient(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("rights", map[string]string{"open.txt": "open", "Dockerfile": "FROM " + busyboxImage + "\nCOPY . /got/\nRUN ls /got\n"})
	for _, path := range []string{h.dir, h.path("run")} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(h.path("run", "berth.sock"), 0o666); err != nil {
		t.Fatal(err)
	}
	as := func(args ...string) outcome {
		t.Helper()
		cmd := h.within(append([]string{"setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups", h.copyOfBerth(), "--no-start"}, args...)...)
		return execute(t, cmd)
	}
	if o := as("build", dir); o.code != 0 {
		t.Fatalf("of readable files: %s", o.stderr)
	}
	secret := h.write("rights/secret.txt", "nobody's business", 0o600)
	o := as("build", dir)
	if o.code == 0 || !strings.Contains(o.stderr, "secret.txt") || !strings.Contains(o.stderr, "permission denied") {
		t.Errorf("with a file that is root's: code %d, %s", o.code, o.stderr)
	}
	if o := as("build", "--build-context", "etc=/root", "-f", "-", dir); o.code == 0 {
		t.Error("a directory that is root's was a context")
	}
	h.write("rights/.dockerignore", "secret.txt", 0o644)
	if o := as("build", dir); o.code != 0 {
		t.Errorf("with the file left out: %s", o.stderr)
	}
	_ = os.Remove(filepath.Join(dir, ".dockerignore"))
	_ = os.Remove(secret)
	if err := os.Symlink("/etc/shadow", secret); err != nil {
		t.Fatal(err)
	}
	h.write("rights/Dockerfile", "FROM "+busyboxImage+"\nCOPY secret.txt /got\nRUN cat /got\n", 0o644)
	if o := as("build", dir); strings.Contains(o.stderr, "root:") {
		t.Errorf("a link out of the context was followed: %s", o.stderr)
	}
}

// copyOfBerth is one that every user can execute.
func (h *host) copyOfBerth() string {
	path := h.path("berth")
	if _, err := os.Stat(path); err != nil {
		copyFile(h.t, h.berthBin, path)
	}
	return path
}

// Secrets are where a step needs them and nowhere else.
func TestBuildSecretsLeaveNoTrace(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	const secret = "correct-horse-battery-staple"
	dir := h.context("secrets", map[string]string{"Dockerfile": "FROM " + busyboxImage + `
RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=TOKEN test "$(cat /run/secrets/file)" = "$TOKEN" && echo same
RUN test ! -e /run/secrets/file && test -z "$TOKEN" && echo gone
RUN --mount=type=secret,id=file,required,mode=0444,target=/tmp/key cat /tmp/key | wc -c; false
`})
	file := h.write("token", secret, 0o600)
	cmd := h.within(h.berthBin, "build", "--progress", "plain", "--secret", "id=file,src="+file, "--secret", "id=variable,env=THE_TOKEN", dir)
	cmd.Env = append(cmd.Env, "THE_TOKEN="+secret)
	o := execute(t, cmd)
	contains(t, o.stderr, "same\n", "gone\n", "exit code: 1")
	_ = os.Remove(file)
	for name, text := range map[string]string{"output": o.stdout + o.stderr, "log": h.berth("build", "history", "logs"),
		"history": h.berth("build", "history", "inspect", "--format", "json"), "engine's log": h.engineLog()} {
		if strings.Contains(text, secret) {
			t.Errorf("the secret is in the %s:\n%s", name, text)
		}
	}
	err := filepath.WalkDir(h.dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // what is thrown away goes meanwhile
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), secret) {
			t.Errorf("the secret is in %s", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Builds at the same time that need the same step run it once, and wait for
// nothing else.
func TestBuildsShareWhatTheyDo(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("once", map[string]string{
		"Dockerfile": "FROM " + busyboxImage + "\nRUN --mount=type=cache,id=runs,target=/c echo ran >> /c/log; sleep 1\nARG WHO\nRUN echo $WHO\n",
		"count":      "FROM " + busyboxImage + "\nRUN --mount=type=cache,id=runs,target=/c wc -l < /c/log\n",
	})
	var all sync.WaitGroup
	for _, who := range []string{"a", "b", "c", "d"} {
		all.Go(func() {
			if o := h.run("build", "--build-arg", "WHO="+who, dir); o.code != 0 {
				t.Errorf("%s: %s", who, o.stderr)
			}
		})
	}
	all.Wait()
	contains(t, h.build("-f", filepath.Join(dir, "count"), dir), " 1\n")
}

func TestBuildNetworks(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	dir := h.context("net", map[string]string{
		"Dockerfile": "FROM " + busyboxImage + "\nRUN ip -o link | wc -l; ip -o link; cat /etc/hosts\n",
		"none":       "FROM " + busyboxImage + "\nRUN --network=none ip -o link\n",
		"host":       "FROM " + busyboxImage + "\nRUN --network=host ip -o link\n",
	})
	if out := h.build("--add-host", "friend:10.1.2.3", dir); !strings.Contains(out, "eth0") || !strings.Contains(out, "10.1.2.3\tfriend") {
		t.Errorf("default: %s", out)
	}
	if out := h.build("--network", "none", dir); strings.Contains(out, "eth0") {
		t.Errorf("none: %s", out)
	}
	if out := h.build("-f", filepath.Join(dir, "none"), dir); strings.Contains(out, "eth0") {
		t.Errorf("RUN --network=none: %s", out)
	}
	if out := h.build("--network", "host", dir); !strings.Contains(out, "berth-") {
		t.Errorf("host: %s", out)
	}
	if o := h.run("build", "-f", filepath.Join(dir, "host"), dir); o.code == 0 || !strings.Contains(o.stderr, "network.host") {
		t.Errorf("RUN --network=host without a right: code %d, %s", o.code, o.stderr)
	}
	if out := h.build("--allow", "network.host", "-f", filepath.Join(dir, "host"), dir); !strings.Contains(out, "berth-") {
		t.Errorf("RUN --network=host: %s", out)
	}
}

// A registry that is away matters only to whoever needs something of it.
func TestBuildWithoutItsRegistry(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	const name = "127.0.0.1:1/team/base:7" // nobody listens there
	dir := h.context("away", map[string]string{
		"Dockerfile": "FROM " + name + " AS far\nFROM " + busyboxImage + " AS near\nRUN echo near\nFROM far\nRUN echo far\n",
	})
	contains(t, h.build("--target", "near", dir), "near")
	o := h.run("build", dir)
	if o.code != 1 {
		t.Errorf("the exit code is %d", o.code)
	}
	contains(t, o.stderr, "Dockerfile:1", ">>> FROM "+name, "127.0.0.1:1", "refused")
	h.berth("tag", busyboxImage, name)
	contains(t, h.build(dir), "far")
	if o := h.run("build", "--pull", dir); o.code != 1 || !strings.Contains(o.stderr, "refused") {
		t.Errorf("--pull without the registry: code %d\n%s", o.code, o.stderr)
	}
}
