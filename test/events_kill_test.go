package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestEachEventComesOnceThroughKills kills the engine at random instants while
// containers come and go. Whatever became of one, its start and its end are told once
// each.
func TestEachEventComesOnceThroughKills(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	for range 5 {
		id := h.create(`{"Image":"` + busyboxImage + `","Cmd":["true"],"HostConfig":{"NetworkMode":"none"}}`)
		var answer bytes.Buffer
		if err := h.post("/containers/"+id+"/start", &answer); err != nil {
			t.Fatal(err)
		}
		if err := h.post("/containers/"+id+"/wait", &answer); err != nil {
			t.Fatal(err)
		}
		h.killEngine() // in the instant of the answer
		h.startEngine()
	}
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			for k := range 12 { // some are not answered, or refused
				_ = h.within(h.berthBin, "--no-start", "run", "-d", "--network", "none", "--name", fmt.Sprintf("c%d-%d", i, k), busyboxImage, "sleep", "0.05").Run()
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		case <-time.After(time.Duration(50+rand.IntN(150)) * time.Millisecond):
			h.killEngine()
			h.startEngine()
		}
	}
	var ids []string
	h.eventually("all have ended", func() bool {
		ids = strings.Fields(h.berth("ps", "-aq", "--no-trunc", "--filter", "status=exited"))
		return h.berth("ps", "-q") == ""
	})
	var told map[string]map[string]int
	h.eventually("all is told", func() bool {
		told = make(map[string]map[string]int)
		for line := range strings.Lines(h.berth("events", "--since", "0", "--until", "0s", "--filter", "type=container", "--format", "{{.Action}} {{.Actor.ID}}")) {
			action, id, _ := strings.Cut(strings.TrimSpace(line), " ")
			if told[id] == nil {
				told[id] = make(map[string]int)
			}
			told[id][action]++
		}
		for _, id := range ids {
			if told[id]["die"] == 0 {
				return false
			}
		}
		return true
	})
	for _, id := range ids {
		if n := told[id]; n["start"] != 1 || n["die"] != 1 {
			t.Errorf("%s: %v", id, n)
		}
	}
	if len(ids) < 10 {
		t.Errorf("only %d containers", len(ids))
	}
}
