package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestChaos kills the engine, the monitor and both at random instants while
// containers are made, talk, are entered, stopped and removed. Nothing may stop
// because of it, nothing acknowledged may be lost, no log line may be lost or
// doubled, and nothing may be left. BERTH_CHAOS sets how long (default 10 s).
func TestChaos(t *testing.T) {
	t.Parallel()
	length := 10 * time.Second
	if text := os.Getenv("BERTH_CHAOS"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatalf("BERTH_CHAOS: %v", err)
		}
	}
	h := newEngine(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %s", seed, length)

	// A long-lived container counts through all of it.
	h.berth("run", "-d", "--name", "witness", busyboxImage, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")
	pid := h.berth("inspect", "--format", "{{.State.Pid}}", "witness")

	stop := make(chan struct{})
	var group sync.WaitGroup
	var rounds atomic.Int64
	for worker := range 3 {
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				h.chaosRound(fmt.Sprintf("w%d-%d", worker, i), i)
				rounds.Add(1)
			}
		})
	}
	kills := h.killAtRandom(rand.New(rand.NewPCG(seed, 1)), length)
	close(stop)
	group.Wait()
	t.Logf("%d rounds, %d kills", rounds.Load(), kills)
	if t.Failed() {
		return
	}
	if rounds.Load() == 0 || kills == 0 {
		t.Fatalf("%d rounds and %d kills show nothing", rounds.Load(), kills)
	}
	if now := h.berth("inspect", "--format", "{{.State.Pid}}", "witness"); now != pid {
		t.Errorf("the long-lived container runs as %s, was %s", now, pid)
	}
	h.berth("kill", "witness")
	expectCounting(t, "witness", h.berth("logs", "witness"), 0)
	ids := strings.Fields(h.berth("ps", "-aq", "--no-trunc"))
	if len(ids) != 1 {
		t.Errorf("containers left: %s", h.berth("ps", "-a"))
	}
	h.berth(append([]string{"rm", "-f"}, ids...)...)
	h.stopEngine()
	h.eventually("the monitor ends when nothing runs and no engine is there", func() bool { return len(h.processes()) == 0 })
	h.expectNothingLeft(ids)
}

// chaosRound takes one container through its life. The engine may be away at
// any step, so steps are tried again; what was acknowledged must hold.
func (h *host) chaosRound(name string, n int) {
	code, lines := n%200+1, 200
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo $i; done; exit %d", lines, code)
	if !h.untilDone("create "+name, func() (bool, string) {
		o := h.quiet("create", "--name", name, busyboxImage, "sh", "-c", script)
		return o.code == 0 || strings.Contains(o.stderr, "already in use"), o.stderr
	}) {
		return
	}
	h.untilDone("start "+name, func() (bool, string) {
		// A start whose answer was lost may have happened, and the container
		// may have ended since: starting it again would be another run.
		o := h.quiet("inspect", "--format", "{{.State.Status}}", name)
		if o.code != 0 || strings.TrimSpace(o.stdout) != "created" {
			return o.code == 0, o.stderr
		}
		o = h.quiet("start", name)
		return o.code == 0, o.stderr
	})
	h.untilDone("exit code of "+name, func() (bool, string) {
		o := h.quiet("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name)
		if strings.HasPrefix(o.stdout, "exited") && strings.TrimSpace(o.stdout) != fmt.Sprintf("exited %d", code) {
			h.t.Errorf("%s: %q, want exit code %d", name, o.stdout, code)
			return true, ""
		}
		return strings.HasPrefix(o.stdout, "exited"), o.stdout + o.stderr
	})
	h.untilDone("logs of "+name, func() (bool, string) {
		o := h.quiet("logs", name)
		if o.code != 0 {
			return false, o.stderr
		}
		expectCounting(h.t, name, o.stdout, lines)
		return true, ""
	})
	h.untilDone("rm "+name, func() (bool, string) {
		o := h.quiet("rm", name)
		return o.code == 0 || strings.Contains(strings.ToLower(o.stderr), "no such container"), o.stderr
	})
}

// quiet runs berth from any goroutine.
func (h *host) quiet(args ...string) outcome {
	var stdout, stderr bytes.Buffer
	cmd := h.within(append([]string{h.berthBin, "--no-start"}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func (h *host) untilDone(what string, step func() (bool, string)) bool {
	deadline := time.Now().Add(60 * time.Second)
	for {
		done, said := step()
		if done {
			return true
		}
		if time.Now().After(deadline) {
			h.t.Errorf("%s: not within a minute: %s", what, said)
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// expectCounting checks that a log counts 1, 2, 3 ... without gap or repeat, up
// to last when that is not 0.
func expectCounting(t *testing.T, name, log string, last int) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for i, line := range lines {
		if line != strconv.Itoa(i+1) {
			t.Errorf("%s: line %d of the log is %q", name, i+1, line)
			return
		}
	}
	if last != 0 && len(lines) != last {
		t.Errorf("%s: %d log lines, want %d", name, len(lines), last)
	}
}

// killAtRandom kills engine, monitor or both every few hundred milliseconds and
// starts the engine again; it returns how often.
func (h *host) killAtRandom(random *rand.Rand, length time.Duration) int {
	kills := 0
	for deadline := time.Now().Add(length); time.Now().Before(deadline); kills++ {
		time.Sleep(time.Duration(50+random.IntN(600)) * time.Millisecond)
		which := random.IntN(3)
		if which != 0 {
			for _, pid := range h.monitors() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if which != 1 {
			h.killEngine()
			h.startEngine()
		}
		if h.t.Failed() {
			break
		}
	}
	return kills
}

// monitors lists the monitor's worker process.
func (h *host) monitors() []int {
	text, err := os.ReadFile(h.path("run", "monitor", "worker.pid"))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil
	}
	return []int{pid}
}
