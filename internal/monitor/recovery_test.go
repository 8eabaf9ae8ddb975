package monitor

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kill kills processes of the monitor and waits until others are in place.
func (h *host) kill(names ...string) {
	h.t.Helper()
	was := map[string]int{}
	for _, name := range names {
		was[name] = h.pid(name)
	}
	for _, name := range names {
		if was[name] > 0 {
			_ = unix.Kill(was[name], unix.SIGKILL)
		}
	}
	h.eventually("the monitor is whole again", func() bool {
		for _, name := range names {
			if h.pid(name) == was[name] {
				return false
			}
		}
		return h.whole()
	})
}

// parent returns the parent of a process.
func (h *host) parent(pid int) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(text), "PPid:")
	var parent int
	_, _ = fmt.Sscan(rest, &parent)
	return parent
}

// whole reports that a keeper and its worker are there.
func (h *host) whole() bool {
	keeper, worker := h.pid("keeper.pid"), h.pid("worker.pid")
	return keeper != 0 && worker != 0 && h.parent(worker) == keeper
}

var killings = map[string][]string{
	"worker": {"worker.pid"},
	"keeper": {"keeper.pid"},
	"both":   {"keeper.pid", "worker.pid"},
}

// Containers go on through any kill, and are known afterwards as before.
func TestContainersSurviveKills(t *testing.T) {
	for what, names := range killings {
		t.Run(what, func(t *testing.T) {
			runtimes(t, func(t *testing.T, h *host) {
				id := h.id("c")
				req := h.request(id, "read a; echo $a; exit 12")
				req.OpenStdin = what != "both" // with both goes the writing end of its input
				if what == "both" {
					req.Spec.Process.Args[2] = "while [ ! -e /tmp/go ]; do sleep 0.02; done; echo words; exit 12"
					req.Spec.Root.Path = h.rootfs
				}
				started := h.start(req)
				for range 3 {
					h.kill(names...)
					s := h.state(id)
					if s == nil || s.PID != started.PID || s.Exited || !s.StartedAt.Equal(started.At) {
						t.Fatalf("state after the kill: %s, started %s", toJSON(s), toJSON(started))
					}
				}
				if what == "both" {
					if err := os.WriteFile(h.rootfs+"/tmp/go", nil, 0o644); err != nil {
						t.Fatal(err)
					}
				} else {
					conn := h.attach(AttachRequest{ContainerID: id, Stdin: true, Stdout: true})
					_, _ = io.WriteString(conn, "words\n")
					if got, err := readFrames(conn); err != nil || got[1] != "words\n" {
						t.Errorf("attached after the kill: %q, %v", got, err)
					}
				}
				if exit := h.exit(id); exit.Code != 12 || exit.Unknown {
					t.Errorf("exit %+v, want code 12", exit)
				}
				if got := h.logged(id); got[0] != "words\n" {
					t.Errorf("logged %q", got)
				}
				h.forget(id)
				h.expectNothing(id)
			})
		})
	}
}

// A terminal's owner may be killed.
func TestTerminalSurvivesKills(t *testing.T) {
	for _, what := range []string{"worker", "keeper"} {
		t.Run(what, func(t *testing.T) {
			runtimes(t, func(t *testing.T, h *host) {
				id := h.id("c")
				req := h.request(id, "stty -echo; echo ready; read a; echo got $a; exit 13")
				req.Spec.Process.Terminal, req.OpenStdin = true, true
				h.start(req)
				h.eventually("it is ready", func() bool { return strings.Contains(h.logged(id)[0], "ready") })
				h.kill(killings[what]...)
				conn := h.attach(AttachRequest{ContainerID: id, Stdin: true, Stdout: true})
				_, _ = io.WriteString(conn, "words\n")
				if got, _ := io.ReadAll(conn); string(got) != "got words\r\n" {
					t.Errorf("the terminal says %q", got)
				}
				if exit := h.exit(id); exit.Code != 13 {
					t.Errorf("exit %+v", exit)
				}
				if got := h.logged(id); got[0] != "ready\r\ngot words\r\n" {
					t.Errorf("logged %q", got)
				}
			})
		})
	}
}

// An end is not missed while the worker is away, nor what was said before it.
func TestEndWhileTheWorkerIsDead(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.id("c")
		h.start(h.request(id, "while [ ! -e /tmp/go ]; do sleep 0.01; done; seq 1 5000; exit 42"))
		worker := h.pid("worker.pid")
		// Stopped it is as good as dead, for as long as we like.
		if err := unix.Kill(worker, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.rootfs+"/tmp/go", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		record := h.runDir + "/monitor/containers/" + id + "/exit.json"
		h.eventually("the keeper has written the exit down", func() bool { _, err := os.Stat(record); return err == nil })
		if err := unix.Kill(worker, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if exit := h.exit(id); exit.Code != 42 || exit.Unknown {
			t.Errorf("exit %+v, want code 42", exit)
		}
		if got := h.logged(id); got[0] != numbers(1, 5000) {
			t.Errorf("logged %d bytes", len(got[0]))
		}
		h.forget(id)
		h.expectNothing(id)
	})
}

// An engine that comes back finds everything.
func TestNewEngineFindsEverything(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		running, ended := h.id("r"), h.id("e")
		h.start(h.request(running, "sleep 1000"))
		conn := h.attach(AttachRequest{ContainerID: running, Stdout: true})
		h.start(h.request(ended, "exit 3"))
		h.exit(ended)
		_ = h.client.Close()
		h.connect()
		if s := h.state(ended); s == nil || !s.Exited || s.Exit.Code != 3 {
			t.Errorf("ended: %s", toJSON(s))
		}
		if s := h.state(running); s == nil || s.Exited {
			t.Errorf("running: %s", toJSON(s))
		}
		// The client of the old engine is still served.
		if err := h.client.KillAll(t.Context(), running); err != nil {
			t.Error(err)
		}
		if rest, err := io.ReadAll(conn); err != nil || len(rest) != 0 {
			t.Errorf("the client got %q, %v", rest, err)
		}
		h.exit(running)
		h.forget(running)
		h.forget(ended)
		h.expectNothing(running)
	})
}

// The monitor ends by itself when nobody needs it, and leaves no process.
func TestMonitorLeavesWhenIdle(t *testing.T) {
	h := newHost(t)
	worker, keeper := h.pid("worker.pid"), h.pid("keeper.pid")
	_ = h.client.Close()
	h.eventually("it is gone", func() bool {
		return unix.Kill(worker, 0) == unix.ESRCH && unix.Kill(keeper, 0) == unix.ESRCH
	})
	h.connect()
	if all, err := h.client.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// Numbered lines are written while parts of the monitor are killed again and
// again: each is logged once and in order, and the exit code is right.
func TestLinesThroughKills(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		id := h.id("c")
		req := h.request(id, "i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i; echo $i >&2; done; exit 33")
		req.Log.MaxSize, req.Log.MaxFiles = 200_000, 10_000
		h.start(req)
		random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
		for range 12 {
			which := []string{"worker", "worker", "keeper", "both"}[random.IntN(4)]
			h.kill(killings[which]...)
			time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
		}
		if err := os.WriteFile(h.rootfs+"/tmp/stop", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if exit := h.exit(id); exit.Code != 33 || exit.Unknown {
			t.Errorf("exit %+v, want code 33", exit)
		}
		for i, text := range h.logged(id) {
			lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
			for n, line := range lines {
				if line != strconv.Itoa(n+1) {
					t.Fatalf("stream %d: line %d is %q", i, n+1, line)
				}
			}
			t.Logf("stream %d: %d lines", i, len(lines))
		}
		h.forget(id)
		h.expectNothing(id)
	})
}

// Starts, execs and ends go on while the monitor is killed. What was answered
// holds; nothing is left.
func TestLifecyclesThroughKills(t *testing.T) {
	runtimes(t, func(t *testing.T, h *host) {
		stop := make(chan struct{})
		var killer, workers sync.WaitGroup
		kills, dead := 0, 0
		killer.Go(func() {
			random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 2))
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(10+random.IntN(100)) * time.Millisecond):
				}
				if random.IntN(4) > 0 {
					if pid := h.pid("worker.pid"); pid > 0 && unix.Kill(pid, unix.SIGKILL) == nil {
						kills++
						dead = pid
					}
					continue
				}
				// Until the worker has replaced a keeper it alone holds
				// everything, so that it has to live for as long. One that was
				// killed may be seen for a while, and holds nothing.
				h.eventually("a worker is there", func() bool { return h.pid("worker.pid") != dead && h.whole() })
				h.kill("keeper.pid")
				kills++
			}
		})
		go func() { // events are not of interest here
			for range h.events {
			}
		}()
		const rounds = 15
		for k := range 3 {
			workers.Go(func() {
				for i := range rounds {
					h.cycle(h.id(fmt.Sprintf("c%d-%d", k, i)), (k*rounds+i)%200)
				}
			})
		}
		workers.Wait()
		close(stop)
		killer.Wait()
		if all, err := h.client.List(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("left: %.500s, %v", toJSON(all), err)
		}
		h.expectNothing(h.id("*"))
		t.Logf("%d kills", kills)
	})
}

// cycle takes one container through its life.
func (h *host) cycle(id string, code int) {
	ctx := h.t.Context()
	if _, err := h.client.Start(ctx, h.request(id, fmt.Sprintf("seq 1 300; exit %d", code))); err != nil {
		h.t.Errorf("start %s: %v", id, err)
		return
	}
	var exit *Exit
	for deadline := time.Now().Add(30 * time.Second); exit == nil; time.Sleep(2 * time.Millisecond) {
		all, err := h.client.List(ctx)
		if err != nil {
			h.t.Errorf("list: %v", err)
			return
		}
		known := false
		for _, s := range all {
			if s.ID == id {
				known, exit = true, s.Exit
			}
		}
		if !known || time.Now().After(deadline) {
			h.t.Errorf("%s: known %v, exit %v", id, known, exit)
			return
		}
	}
	if exit.Code != code || exit.Unknown {
		h.t.Errorf("%s: exit %+v, want code %d", id, exit, code)
	}
	if err := h.client.Forget(ctx, id); err != nil {
		h.t.Errorf("forget %s: %v", id, err)
	}
	if got := h.logged(id); got[0] != numbers(1, 300) {
		h.t.Errorf("%s: logged %d bytes: %.200q", id, len(got[0]), got[0])
	}
}
