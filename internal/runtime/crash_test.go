package runtime

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/internal/fault"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestMain lets this program be a runtime that can be killed: given a file with
// a specification, it creates and starts a container.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "be-a-runtime" {
		text, err := os.ReadFile(os.Args[3])
		if err != nil {
			panic(err)
		}
		var s specs.Spec
		if err := json.Unmarshal(text, &s); err != nil {
			panic(err)
		}
		if _, err := Run(context.Background(), CreateOptions{ID: "victim", Root: os.Args[2], Spec: &s}); err != nil {
			os.Exit(1)
		}
		return
	}
	var err error
	if testDir, err = os.MkdirTemp("", "berth-runtime-test"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(testDir)
	os.Exit(code)
}

// A runtime that is killed at any moment leaves either a container that can be
// deleted, or something that Discard removes; and never a process that nobody
// knows.
func TestKilledRuntimeLeavesNothing(t *testing.T) {
	root := busyboxRoot(t)
	m := newMachine(t)
	s := spec(root, "sleep", "12345")
	m.options(s)
	text, _ := json.Marshal(s)
	file := filepath.Join(t.TempDir(), "spec")
	os.WriteFile(file, text, 0o644)
	exe, _ := os.Readlink("/proc/self/exe")
	complete, halfway := 0, 0
	for i := range 60 {
		cmd := exec.Command(exe, "be-a-runtime", m.root, file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 700 * time.Microsecond) // the instant of the kill is what varies
		cmd.Process.Kill()
		cmd.Wait()
		c, err := Load(m.root, "victim")
		switch {
		case err == nil:
			complete++
			if err := c.Delete(context.Background(), true); err != nil {
				t.Fatal(err)
			}
		case fault.Is(err, fault.NotFound):
			if _, err := os.Stat(filepath.Join(m.root, "victim")); err == nil {
				halfway++
			}
			if err := Discard(m.root, "victim"); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatal(err)
		}
		if l, _ := os.ReadDir(m.root); len(l) != 0 {
			t.Fatalf("left in the state directory: %v", l)
		}
		for _, h := range []string{"memory", "pids", "unified"} {
			if _, err := os.Stat("/sys/fs/cgroup/" + h + s.Linux.CgroupsPath); err == nil {
				t.Fatalf("the cgroup %s is left", h)
			}
		}
	}
	t.Logf("%d containers were complete, %d half made", complete, halfway)
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, _ := os.ReadFile(p); strings.Contains(string(b), "12345") && strings.HasPrefix(string(b), "sleep") {
			t.Errorf("a process is left: %s", p)
		}
	}
}

func TestDiscardTouchesNoContainer(t *testing.T) {
	t.Parallel()
	root := busyboxRoot(t)
	m := newMachine(t)
	c, err := m.start(m.options(spec(root, "sleep", "1000")))
	if err != nil {
		t.Fatal(err)
	}
	if err := Discard(m.root, c.ID()); !fault.Is(err, fault.Conflict) {
		t.Errorf("a running container: %v", err)
	}
	if err := Discard(m.root, "nothing"); err != nil {
		t.Errorf("nothing: %v", err)
	}
	if err := Discard(m.root, "../x"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a path: %v", err)
	}
}
