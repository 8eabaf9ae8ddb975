package test

import (
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// randomTar writes an archive with busybox and that many bytes that do not shrink.
func (h *host) randomTar(seed int64, size int) string {
	h.t.Helper()
	body := make([]byte, size)
	if _, err := io.ReadFull(rand.New(rand.NewSource(seed)), body); err != nil {
		h.t.Fatal(err)
	}
	return h.busyboxTar(tarFile{name: "big", mode: 0o644, body: string(body)})
}

// diskUse is what du says of a directory, in bytes.
func (h *host) diskUse(dir string) (n int64) {
	h.t.Helper()
	out, _ := exec.Command("du", "-sB1", dir).Output()
	if _, err := fmt.Sscan(string(out), &n); err != nil {
		h.t.Fatalf("du %s: %v: %s", dir, err, out)
	}
	return n
}

func (h *host) imageNames() string {
	return strings.Join(strings.Fields(h.berth("images", "--format", "{{.Tag}}", "test/budget")), " ")
}

const budgetMB = 100_000_000

func TestTheDiskBudgetIsKept(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.args = []string{"--disk-budget", "100MB", "--disk-budget-fresh", "1ms"}
	h.startEngine()
	for i := 1; i <= 3; i++ {
		h.berth("import", h.randomTar(int64(i), 12<<20), fmt.Sprintf("test/budget:%d", i))
	}
	h.berth("run", "-d", "--name", "user", "test/budget:1", "sleep", "1000")
	h.berth("run", "--rm", "test/budget:2", "true") // so that 3 is the one that was used longest ago
	h.killEngine()
	h.startEngine()
	h.berth("run", "--rm", "test/budget:2", "true")
	before := h.imageNames()
	if len(strings.Fields(before)) != 3 {
		t.Fatalf("below the budget images went: %s", before)
	}
	for i := 4; len(strings.Fields(h.imageNames())) == i-1 && i < 12; i++ {
		h.berth("run", "--rm", "test/budget:2", "true")
		h.berth("import", h.randomTar(int64(i), 12<<20), fmt.Sprintf("test/budget:%d", i))
		if n := h.diskUse(h.path("data")); n > budgetMB {
			t.Errorf("after image %d the data directory has %d bytes", i, n)
		}
	}
	h.eventually("an image goes", func() bool { return !strings.Contains(" "+h.imageNames()+" ", " 3 ") })
	names := " " + h.imageNames() + " "
	if !strings.Contains(names, " 1 ") || !strings.Contains(names, " 2 ") {
		t.Errorf("what a container uses, or what was used of late, went: %s", names)
	}
	if out := h.berth("events", "--since", "1h", "--until", "0s", "--filter", "event=prune", "--format", "{{.Actor.Attributes.reason}} {{.Actor.Attributes.name}}"); !strings.Contains(out, "disk budget test/budget:3") {
		t.Errorf("the events do not tell of it: %q", out)
	}
	if !strings.Contains(h.engineLog(), "disk budget: removed an image") {
		t.Error("the log does not tell of it")
	}
	o := h.run("import", h.randomTar(99, 120<<20), "test/budget:huge")
	if o.code == 0 || !strings.Contains(o.stderr, "test/budget:huge does not fit into the disk budget of") {
		t.Errorf("what cannot fit: %+v", o)
	}
	h.eventually("the directory is below its budget again", func() bool { return h.diskUse(h.path("data")) <= budgetMB })
	if got := h.berth("inspect", "-f", "{{.State.Running}}", "user"); got != "true" {
		t.Error("the container does not run")
	}
}

func TestFreshImagesStay(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.args = []string{"--disk-budget", "60MB"}
	h.startEngine()
	h.berth("import", h.randomTar(1, 12<<20), "test/budget:1")
	o := h.run("import", h.randomTar(2, 60<<20), "test/budget:2")
	if o.code == 0 || !strings.Contains(o.stderr, "too fresh to be removed") {
		t.Errorf("%+v", o)
	}
	if got := h.imageNames(); got != "1" {
		t.Errorf("images: %s", got)
	}
}

func TestPullsBeyondTheDiskBudget(t *testing.T) {
	t.Parallel()
	h := newEngine(t, "--registry-listen", "127.0.0.1:5000")
	for name, size := range map[string]int{"small": 4 << 20, "large": 40 << 20} {
		h.berth("import", h.randomTar(int64(size), size), "127.0.0.1:5000/"+name)
		h.berth("push", "127.0.0.1:5000/"+name)
	}
	second := &host{t: t, dir: h.path("2"), berthBin: h.berthBin, holder: h.holder, args: []string{"--disk-budget", "40MB"}}
	if err := os.Mkdir(second.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	second.startEngine()
	t.Cleanup(second.stopEngine)
	second.berth("pull", "127.0.0.1:5000/small")
	o := second.run("pull", "127.0.0.1:5000/large")
	if o.code == 0 || !strings.Contains(o.stderr, "pull of 127.0.0.1:5000/large:latest does not fit into the disk budget of 38.15MiB") {
		t.Errorf("%+v", o)
	}
	if n := h.diskUse(second.path("data")); n > 40_000_000 {
		t.Errorf("the data directory has %d bytes", n)
	}
	if got := second.berth("images", "--format", "{{.Repository}}"); got != "127.0.0.1:5000/small" {
		t.Errorf("images: %s", got)
	}
}
