package monitor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestMeasure prints what the monitor costs; it is run by hand with
// MONITOR_MEASURE=1, because times mean nothing on a machine that does other
// things too.
func TestMeasure(t *testing.T) {
	if os.Getenv("MONITOR_MEASURE") == "" {
		t.Skip("set MONITOR_MEASURE=1 to measure")
	}
	for _, what := range []func(*testing.T){measureLog, measureMemory, measureStart, measureExec} {
		what(t)
	}
}

func measuredHost(t *testing.T) *host {
	h := newHost(t)
	h.runtime = os.Getenv("MONITOR_TEST_RUNTIME")
	return h
}

func measureLog(t *testing.T) {
	h := measuredHost(t)
	const size = 500e6
	line := strings.Repeat("0123456789", 10)[:99] + "\n"
	if err := os.WriteFile(h.rootfs+"/tmp/lines", []byte(strings.Repeat(line, 100_000)), 0o644); err != nil {
		t.Fatal(err)
	}
	id := h.id("log")
	req := h.request(id, "for i in $(seq 1 50); do cat /tmp/lines; done")
	req.Log.MaxSize, req.Log.MaxFiles = 0, 0
	began := time.Now()
	h.start(req)
	h.exit(id)
	took := time.Since(began)
	t.Logf("500 MB of lines of 100 bytes: %v, %.0f MB/s", took, size/1e6/took.Seconds())
}

// pss returns a process's proportional share of memory, in KiB.
func pss(t *testing.T, pid int) int {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

func measureMemory(t *testing.T) {
	h := measuredHost(t)
	const count = 100
	start := func(from, to int) {
		for i := from; i < to; i++ {
			h.start(h.request(h.id("m"+strconv.Itoa(i)), "echo hello; exec sleep 1000"))
		}
		time.Sleep(time.Second)
	}
	start(0, 10)
	worker, keeper := pss(t, h.pid("worker.pid")), pss(t, h.pid("keeper.pid"))
	start(10, 10+count)
	moreWorker, moreKeeper := pss(t, h.pid("worker.pid")), pss(t, h.pid("keeper.pid"))
	t.Logf("worker %d KiB, keeper %d KiB; each container adds %.1f and %.1f KiB", worker, keeper,
		float64(moreWorker-worker)/count, float64(moreKeeper-keeper)/count)
	for i := range 10 + count {
		id := h.id("m" + strconv.Itoa(i))
		if err := h.client.KillAll(t.Context(), id); err != nil {
			t.Error(err)
		}
		h.exit(id)
		h.forget(id)
	}
}

func measureStart(t *testing.T) {
	h := measuredHost(t)
	var best, sum time.Duration
	const rounds = 200
	var faults, switches [2]int
	for i := range 20 + rounds {
		if i == 20 { // warm
			for k, name := range []string{"worker.pid", "keeper.pid"} {
				faults[k], switches[k] = counters(h.pid(name))
			}
			best, sum = 0, 0
		}
		id := h.id("s" + strconv.Itoa(i))
		began := time.Now()
		h.start(h.request(id, "exit 0"))
		h.exit(id)
		took := time.Since(began)
		sum += took
		if best == 0 || took < best {
			best = took
		}
		h.forget(id)
	}
	t.Logf("start to exit event: best %v, mean %v", best, sum/rounds)
	for k, name := range []string{"worker.pid", "keeper.pid"} {
		f, s := counters(h.pid(name))
		t.Logf("%s: %.1f page faults, %.1f context switches for each", name, float64(f-faults[k])/rounds, float64(s-switches[k])/rounds)
	}
}

func measureExec(t *testing.T) {
	h := measuredHost(t)
	id := h.id("x")
	h.start(h.request(id, "exec sleep 1000"))
	var best, sum time.Duration
	const rounds = 100
	for i := range rounds {
		exec := "x" + strconv.Itoa(i)
		began := time.Now()
		conn := h.attach(AttachRequest{ContainerID: id, ExecID: exec, Stdout: true, Stderr: true})
		process := &specs.Process{Args: []string{"/bin/echo", "x"}, Cwd: "/", Env: []string{"PATH=/bin"}}
		if _, err := h.client.Exec(t.Context(), ExecRequest{ContainerID: id, ExecID: exec, Process: process}); err != nil {
			t.Fatal(err)
		}
		if got, err := readFrames(conn); err != nil || got[1] != "x\n" {
			t.Fatalf("%q, %v", got, err)
		}
		h.await(EventExecExit, id, exec)
		took := time.Since(began)
		_ = conn.Close()
		sum += took
		if best == 0 || took < best {
			best = took
		}
	}
	t.Logf("exec with output to its exit event: best %v, mean %v", best, sum/rounds)
}

// counters returns the page faults and context switches of a process and its
// threads so far.
func counters(pid int) (faults, switches int) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	text, _ := os.ReadFile(dir + "/stat")
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	faults, _ = strconv.Atoi(fields[7])
	tasks, _ := filepath.Glob(dir + "/task/*/status")
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.HasSuffix(name, "ctxt_switches") {
				n, _ := strconv.Atoi(strings.TrimSpace(value))
				switches += n
			}
		}
	}
	return faults, switches
}
