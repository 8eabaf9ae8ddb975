package test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestStopSignalsAndTimeouts stops programs that heed one signal, another or none, with
// the container's timeout and with that of the request.
func TestStopSignalsAndTimeouts(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	for _, c := range []struct {
		name, traps string
		run, stop   []string
		want        string
	}{
		{"heeds", `trap "exit 4" TERM`, nil, nil, "4"},
		{"own-signal", `trap "exit 4" USR1; trap "" TERM`, []string{"--stop-signal", "SIGUSR1"}, nil, "4"},
		{"asked-signal", `trap "exit 4" USR2; trap "" TERM`, nil, []string{"-s", "USR2"}, "4"},
		{"own-timeout", `trap "" TERM`, []string{"--stop-timeout", "1"}, nil, "137"},
		{"asked-timeout", `trap "" TERM`, []string{"--stop-timeout", "1000"}, []string{"-t", "1"}, "137"},
		{"at-once", `trap "exit 4" TERM`, nil, []string{"-t", "0"}, "137"},
		{"own-at-once", `trap "exit 4" TERM`, []string{"--stop-timeout", "0"}, nil, "137"},
		{"for-ever", `trap "sleep 1; exit 6" TERM`, []string{"--stop-timeout", "0"}, []string{"-t", "-1"}, "6"},
	} {
		args := append([]string{"run", "-d", "--network", "none", "--name", c.name}, c.run...)
		h.ok(append(args, busyboxImage, "sh", "-c", c.traps+`; echo ready; while :; do sleep 0.05; done`)...)
		h.eventually(c.name+" has its traps", func() bool { return h.ok("logs", c.name) == "ready" })
		h.ok(append(append([]string{"stop"}, c.stop...), c.name)...)
		if got := h.ok("inspect", "-f", "{{.State.ExitCode}}", c.name); got != c.want {
			t.Errorf("%s ended with %s, not with %s", c.name, got, c.want)
		}
	}
}

// TestAutoRemoveThroughKills ends containers that vanish with their end while no engine
// runs: the next one removes them, with their volumes.
func TestAutoRemoveThroughKills(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	run := func(name, volume string) {
		h.ok("run", "-d", "--rm", "--network", "none", "-v", volume, "--name", name, busyboxImage, "sleep", "1000")
	}
	run("ends", "/anonymous")
	run("lives", "named:/data")
	pid := h.mainPid("ends")
	h.killEngine()
	h.mustWithin("kill", "-9", pid)
	h.startEngine()
	h.eventually("it is gone", func() bool { return h.ok("ps", "-a", "--format", "{{.Names}}") == "lives" })
	h.eventually("its volume, too", func() bool { return h.ok("volume", "ls", "-q") == "named" })
	pid = h.mainPid("lives")
	h.killEngine()
	for _, monitor := range h.monitors() {
		_ = exec.Command("kill", "-9", fmt.Sprint(monitor)).Run()
	}
	h.mustWithin("kill", "-9", pid)
	h.startEngine()
	h.eventually("the other is gone as well", func() bool { return h.ok("ps", "-aq") == "" })
	h.equal(h.ok("volume", "ls", "-q"), "named")
	h.ok("run", "-d", "--rm", "--network", "none", "--name", "boots", busyboxImage, "sleep", "1000")
	h.onDisk(`"Pid":` + h.mainPid("boots"))
	h.killAll()
	h.startEngine()
	h.eventually("nothing is left of it after a boot", func() bool { return h.ok("ps", "-aq") == "" })
}

// limits are files of a container's cgroups, and what they say.
func (h *host) limits(name string, files ...string) string {
	h.t.Helper()
	id := h.ok("inspect", "-f", "{{.Id}}", name)
	var out []string
	for _, f := range files {
		controller, file, _ := strings.Cut(f, "/")
		out = append(out, file+"="+strings.TrimSpace(h.read("/sys/fs/cgroup/"+controller+"/berth/"+id+"/"+file)))
	}
	return strings.Join(out, " ")
}

// TestLimitsAreInTheCgroup gives a container limits of all kinds and changes them while
// it runs.
func TestLimitsAreInTheCgroup(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		t.Skip("the limits of cgroup v2 are looked at in the virtual machine")
	}
	h := newEngine(t)
	h.ok("run", "-d", "--network", "none", "--name", "box", "-m", "64m", "--memory-reservation", "32m", "--memory-swap", "128m", "--memory-swappiness", "10",
		"--cpu-shares", "512", "--cpus", "0.5", "--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "50", "--shm-size", "8m",
		"--ulimit", "nofile=100:200", "--read-only", "--tmpfs", "/scratch:size=1m", busyboxImage, "sleep", "1000")
	files := []string{"memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes", "memory/memory.memsw.limit_in_bytes", "memory/memory.swappiness",
		"cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpuset/cpuset.cpus", "cpuset/cpuset.mems", "pids/pids.max"}
	h.equal(h.limits("box", files...), "memory.limit_in_bytes=67108864 memory.soft_limit_in_bytes=33554432 memory.memsw.limit_in_bytes=134217728 memory.swappiness=10 "+
		"cpu.shares=512 cpu.cfs_quota_us=50000 cpu.cfs_period_us=100000 cpuset.cpus=0 cpuset.mems=0 pids.max=50")
	h.equal(h.ok("exec", "box", "sh", "-c", "ulimit -n; ulimit -Hn; touch /x 2>/dev/null || touch /scratch/x && echo kept"),
		"100\n200\nkept")
	h.equal(h.ok("exec", "box", "stat", "-f", "-c", "%b %s", "/dev/shm"), "2048 4096")
	h.ok("update", "-m", "100m", "--memory-swap", "200m", "--memory-reservation", "50m", "--cpus", "1", "--cpu-shares", "300", "--pids-limit", "60", "box")
	h.equal(h.limits("box", files...), "memory.limit_in_bytes=104857600 memory.soft_limit_in_bytes=52428800 memory.memsw.limit_in_bytes=209715200 memory.swappiness=10 "+
		"cpu.shares=300 cpu.cfs_quota_us=100000 cpu.cfs_period_us=100000 cpuset.cpus=0 cpuset.mems=0 pids.max=60")
	h.ok("update", "--pids-limit", "-1", "box")
	h.equal(h.limits("box", "pids/pids.max"), "pids.max=max")
	for _, c := range []struct {
		words string
		args  []string
	}{
		{"Minimum memory limit allowed is 6MB", []string{"-m", "1m"}}, {"CPUs available", []string{"--cpus", "4000"}},
		{"Requested CPUs are not available", []string{"--cpuset-cpus", "9000"}}, {"Requested memory nodes are not available", []string{"--cpuset-mems", "900"}},
		{"cannot be updated as NanoCPUs has already been set", []string{"--cpu-quota", "5000"}},
	} {
		h.refused(c.words, append(append([]string{"update"}, c.args...), "box")...)
	}
	h.ok("restart", "-t", "0", "box")
	h.equal(h.limits("box", files[:2]...), "memory.limit_in_bytes=104857600 memory.soft_limit_in_bytes=52428800")
}
