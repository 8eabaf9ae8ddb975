package test

import (
	"bytes"
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

// TestAnInitTakesItsFirstSignal kills containers in the instant in which their start is
// answered. Their init may not have come to its first system call by then.
func TestAnInitTakesItsFirstSignal(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	for range 40 {
		id := h.create(`{"Image":"` + busyboxImage + `","Cmd":["sleep","1000"],"HostConfig":{"Init":true,"NetworkMode":"none"}}`)
		for _, path := range []string{"start", "kill?signal=TERM"} {
			var answer bytes.Buffer
			if err := h.post("/containers/"+id+"/"+path, &answer); err != nil {
				t.Fatal(err)
			}
		}
		h.eventually("it ends by the signal", func() bool {
			return h.berth("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id) == "exited 143"
		})
		h.berth("rm", id)
	}
	// The program itself has all signals, and the init passes on what comes.
	h.equal(h.berth("run", "--rm", "--init", busyboxImage, "grep", "SigBlk", "/proc/self/status"), "SigBlk:\t0000000000000000")
	if o := h.run("run", "--rm", "--init", busyboxImage, "sh", "-c", "trap 'exit 9' USR1; kill -USR1 1; while :; do sleep 0.05; done"); o.code != 9 {
		t.Errorf("code %d, %s", o.code, o.stderr)
	}
}
