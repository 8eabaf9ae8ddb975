package engine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/internal/container"
	"berth/internal/container/reaper"

	api "github.com/moby/moby/api/types/container"
)

func TestCanAct(t *testing.T) {
	status := func(pnd, shd, blk, cgt uint64) string {
		return fmt.Sprintf("Name:\tx\nSigQ:\t0/1\nSigPnd:\t%016x\nShdPnd:\t%016x\nSigBlk:\t%016x\nSigIgn:\t%016x\nSigCgt:\t%016x\n", pnd, shd, blk, ^uint64(0), cgt)
	}
	const term = uint64(1) << 14
	for name, tt := range map[string]struct {
		status string
		want   bool
	}{
		"nothing":  {status(0, 0, 0, 0), false},
		"caught":   {status(0, 0, 0, term), true},
		"blocked":  {status(0, 0, term, 0), true},
		"pending":  {status(term, 0, 0, 0), true},
		"shared":   {status(0, term, 0, 0), true},
		"others":   {status(^term, ^term, ^term, ^term), false},
		"no sense": {"SigCgt:\tx\n", true},
	} {
		if got := canAct(tt.status, 15); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestDeafIsOnlyTheFirstOfAPidNamespace(t *testing.T) {
	rec := func(mode api.PidMode) *container.Record {
		return &container.Record{HostConfig: &api.HostConfig{PidMode: mode}}
	}
	me := os.Getpid() // this test program catches nothing above SIGRTMIN+20, and Go catches all: never deaf
	if deaf(rec(""), me, 15) {
		t.Error("a Go program catches SIGTERM")
	}
	if deaf(rec("host"), me, 15) || deaf(rec("container:x"), me, 15) || deaf(rec(""), me, 9) || deaf(rec(""), 0, 15) {
		t.Error("deaf where the kernel drops nothing")
	}
}

// TestAnInitThatAwaitsSignalsIsNotDeaf looks at the init of --init long after it
// has passed the signal on: the program that it waits for may need its time.
func TestAnInitThatAwaitsSignalsIsNotDeaf(t *testing.T) {
	t.Parallel()
	image, err := reaper.Image()
	if err != nil {
		t.Fatal(err)
	}
	init := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(init, image, 0o755); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=/usr/bin:/bin"}
	for name, tt := range map[string]struct {
		cmd  *exec.Cmd
		deaf bool
	}{
		"init":  {&exec.Cmd{Path: init, Args: reaper.Args([]string{"sleep", "1000"}, env), Env: env}, false},
		"sleep": {exec.Command("sleep", "1000"), true},
		"loop":  {exec.Command("sh", "-c", "while :; do :; done"), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := tt.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if name == "init" {
					_ = tt.cmd.Process.Signal(os.Interrupt) // ends the program, too
				} else {
					_ = tt.cmd.Process.Kill()
				}
				_ = tt.cmd.Wait()
			}()
			rec := &container.Record{HostConfig: &api.HostConfig{}}
			if name != "loop" {
				awaitSleep(t, tt.cmd.Process.Pid)
			}
			for range 20 {
				if deaf(rec, tt.cmd.Process.Pid, 15) != tt.deaf {
					t.Errorf("deaf is %v", !tt.deaf)
				}
			}
		})
	}
}

// awaitSleep waits until a process and its only child, if it has one, sleep.
func awaitSleep(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		call, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		child, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		ready := strings.TrimSpace(string(name)) == "sleep"
		if n, err := strconv.Atoi(strings.TrimSpace(string(child))); err == nil {
			name, _ = os.ReadFile(fmt.Sprintf("/proc/%d/comm", n))
			ready = strings.TrimSpace(string(name)) == "sleep"
		}
		if ready && !strings.HasPrefix(string(call), "running") {
			return
		}
	}
	t.Fatal("the process never slept")
}
