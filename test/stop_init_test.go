package test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestAnInitHasItsTimeToStop stops programs that take a while behind an init, which
// sleeps in sigwait meanwhile: to the kernel's eye it does not block the signal then.
func TestAnInitHasItsTimeToStop(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	const n = 6
	name := func(i int) string { return fmt.Sprintf("slow%d", i) }
	for i := range n {
		h.berth("run", "-d", "--init", "--name", name(i), busyboxImage, "sh", "-c", `trap "sleep 2; exit 7" TERM; echo ready; while :; do sleep 0.1; done`)
	}
	for i := range n {
		h.eventually("it has a trap", func() bool { return strings.Contains(h.berth("logs", name(i)), "ready") })
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if o := h.run("stop", "-t", "60", name(i)); o.code != 0 || strings.Contains(o.stderr, "no handler") {
				t.Errorf("stop: %d %s", o.code, o.stderr)
			}
		})
	}
	all.Wait()
	for i := range n {
		if got := h.berth("inspect", "-f", "{{.State.ExitCode}}", name(i)); got != "7" {
			t.Errorf("it ended with %s, not with what it wanted to end with", got)
		}
	}
}
