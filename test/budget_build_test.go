package test

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestTheBuildCacheGoesBeforeTheDiskBudgetIsPassed builds three times, uses two of
// the builds again, and brings images until something has to go: that is the part of
// the cache which nobody has used since, and the events name it.
func TestTheBuildCacheGoesBeforeTheDiskBudgetIsPassed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.args = []string{"--disk-budget", "100MB", "--disk-budget-fresh", "1ms"}
	h.startEngine()
	h.berth("import", h.busyboxTar(), busyboxImage)
	h.berth("run", "-d", "--name", "user", busyboxImage, "sleep", "1000")
	dirs := map[string]string{}
	build := func(name string) string { return h.build("--progress", "plain", "-t", "built:"+name, dirs[name]) }
	for _, name := range []string{"one", "two", "three"} {
		dirs[name] = h.context(name, map[string]string{"Dockerfile": "FROM " + busyboxImage + "\nCOPY big /\n"})
		big := make([]byte, 8<<20)
		_, _ = rand.Read(big)
		if err := os.WriteFile(h.path(name, "big"), big, 0o644); err != nil {
			t.Fatal(err)
		}
		build(name)
		h.berth("rmi", "built:"+name) // the cache is what keeps it now
	}
	for _, name := range []string{"one", "three"} {
		contains(t, build(name), "2 of 2 steps cached")
	}
	h.berth("rmi", "built:one")
	gone := func() string {
		return h.berth("events", "--since", "1h", "--until", "0s", "--filter", "event=prune", "--format", "{{.Type}} {{.Actor.Attributes.reason}}")
	}
	images := 0
	for gone() == "" {
		if images++; images > 12 {
			t.Fatal("nothing has gone")
		}
		// So that they are used later than the cache, and before they are looked at.
		h.berth("import", h.randomTar(int64(images), 8<<20), fmt.Sprintf("test/budget:%d", images))
		h.berth("run", "--rm", fmt.Sprintf("test/budget:%d", images), "true")
		if n := h.diskUse(h.path("data")); n > budgetMB {
			t.Errorf("after image %d the data directory has %d bytes", images, n)
		}
	}
	if first, _, _ := strings.Cut(gone(), "\n"); strings.TrimSpace(first) != "builder disk budget" {
		t.Errorf("what went first: %s", gone())
	}
	if !strings.Contains(h.engineLog(), "disk budget: removed from the build cache") {
		t.Error("the log does not tell of it")
	}
	if n := len(strings.Fields(h.imageNames())); n != images {
		t.Errorf("%d of %d images are there, though parts of the cache are older", n, images)
	}
	contains(t, build("one"), "2 of 2 steps cached")
	contains(t, build("two"), "1 of 2 steps cached") // what was used longest ago is gone
	if n := h.diskUse(h.path("data")); n > budgetMB {
		t.Errorf("after another build the data directory has %d bytes", n)
	}
	if got := h.berth("inspect", "-f", "{{.State.Running}}", "user"); got != "true" {
		t.Error("the container does not run")
	}
}
