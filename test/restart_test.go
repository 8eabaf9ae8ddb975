package test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// killAll ends the engine, the monitor and all containers at once, as a power cut
// does, and empties the run directory, as a boot does.
func (h *host) killAll() {
	h.t.Helper()
	ids := strings.Fields(h.try("ps", "-q", "--no-trunc"))
	h.killEngine()
	for left := h.processes(); len(left) > 0; left = h.processes() {
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, id := range ids {
		h.endByCgroup(id)
	}
	if err := os.RemoveAll(h.path("run")); err != nil {
		h.t.Fatal(err)
	}
}

// states are the states of all containers by their names.
func (h *host) states() map[string]string {
	h.t.Helper()
	out := make(map[string]string)
	for line := range strings.Lines(h.berth("ps", "-a", "--format", "{{.Names}} {{.State}}")) {
		name, state, _ := strings.Cut(strings.TrimSpace(line), " ")
		out[name] = state
	}
	return out
}

// onDisk waits until the database says something: what may be lost in a power cut is
// saved a moment later.
func (h *host) onDisk(words string) {
	h.t.Helper()
	h.eventually("on disk: "+words, func() bool { return strings.Contains(h.read(h.path("data", "metadata.db")), words) })
}

// mainPid is the process of a container on the host, "0" when it has none.
func (h *host) mainPid(name string) string {
	h.t.Helper()
	return h.berth("inspect", "-f", "{{.State.Pid}}", name)
}

// killMain kills the process of a container that has one, from outside.
func (h *host) killMain(name string) (pid string) {
	h.t.Helper()
	h.eventually(name+" has a process", func() bool { pid = h.mainPid(name); return pid != "0" })
	h.mustWithin("kill", "-9", pid)
	return pid
}

var restartPolicies = []string{"no", "on-failure", "on-failure:3", "always", "unless-stopped"}

// TestRestartPoliciesThroughKillsAndABoot has one container of each policy in each
// state that counts, and looks at them after the engine was killed, after the
// monitor was killed with it, and after the machine was.
func TestRestartPoliciesThroughKillsAndABoot(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	sleeps := []string{busyboxImage, "sleep", "1000"}
	for _, p := range restartPolicies {
		add := func(verb, state string, command []string) {
			args := []string{verb, "--network", "none", "--restart", p, "--name", state + "-" + strings.ReplaceAll(p, ":", "-")}
			h.berth(append(args, command...)...)
		}
		add("create", "made", sleeps)
		for _, state := range []string{"runs", "stopped", "killed"} {
			add("create", state, sleeps)
			h.berth("start", state+"-"+strings.ReplaceAll(p, ":", "-"))
		}
	}
	names := func(state string) (list []string) {
		for _, p := range restartPolicies {
			list = append(list, state+"-"+strings.ReplaceAll(p, ":", "-"))
		}
		return list
	}
	h.berth(append([]string{"stop", "-t", "0"}, names("stopped")...)...)
	h.berth(append([]string{"kill"}, names("killed")...)...)
	pids := func() string {
		return h.berth(append([]string{"inspect", "-f", "{{.Name}} {{.State.Pid}}"}, names("runs")...)...)
	}
	before := pids()

	want := make(map[string]string)
	for _, state := range []string{"made", "runs", "stopped", "killed"} {
		for _, name := range names(state) {
			want[name] = map[string]string{"made": "created", "runs": "running"}[state]
			if want[name] == "" {
				want[name] = "exited"
			}
		}
	}
	expect := func(when string) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for got := h.states(); !maps.Equal(got, want); got = h.states() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within 30 s\n%v, but\n%v", when, want, got)
			}
		}
	}
	expect("at first")
	// Only always takes a new engine for a reason to start what was stopped by hand.
	want["stopped-always"], want["killed-always"] = "running", "running"
	h.killEngine()
	h.startEngine()
	expect("after the engine was killed")
	h.equal(pids(), before)

	h.berth("stop", "-t", "0", "stopped-always")
	h.killEngine()
	for _, pid := range h.monitors() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	h.startEngine()
	expect("after the engine and the monitor's worker were killed")
	h.equal(pids(), before)

	want["runs-no"] = "exited"
	h.onDisk(`"Pid":` + h.mainPid("runs-no"))
	h.killAll()
	h.startEngine()
	expect("after a boot")
	h.equal(h.berth("inspect", "-f", "{{.State.ExitCode}}", "runs-no"), "255")

	// What was started again by the boot is under its policy again.
	for _, name := range []string{"stopped-always", "runs-unless-stopped", "runs-on-failure"} {
		pid := h.killMain(name)
		h.eventually(name+" is up again", func() bool { now := h.mainPid(name); return now != "0" && now != pid })
	}
}

// TestRestartsBackOff reads the waits between the ends and the starts of a program
// that fails at once, and that it gets its count over a kill of the engine.
func TestRestartsBackOff(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	h.berth("run", "-d", "--network", "none", "--name", "fails", "--restart", "on-failure:5", busyboxImage, "sh", "-c", "echo run; exit 3")
	count := func() string {
		return h.berth("inspect", "-f", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", "fails")
	}
	h.eventually("it has been restarted", func() bool { return strings.Contains(count(), " 2 ") || strings.Contains(count(), " 3 ") })
	h.killEngine()
	h.startEngine()
	h.eventually("it has given up", func() bool { return count() == "exited 5 3" })
	h.equal(fmt.Sprint(strings.Count(h.berth("logs", "fails"), "run")), "6")
	// The pauses before a kill forgets them: each is at least twice the first one's.
	h.berth("run", "-d", "--network", "none", "--name", "slower", "--restart", "on-failure:4", busyboxImage, "sh", "-c", "exit 3")
	h.eventually("that one has given up, too", func() bool {
		return h.berth("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "slower") == "exited 4"
	})
	var died time.Time
	least, pauses := 100*time.Millisecond, 0
	events := h.berth("events", "--since", "0", "--until", "0s", "--filter", "container=slower", "--filter", "event=start", "--filter", "event=die")
	for line := range strings.Lines(events) {
		word := strings.Fields(line) // time, type, action, ...
		at, err := time.Parse(time.RFC3339Nano, word[0])
		if err != nil {
			t.Fatal(err)
		}
		if word[2] == "die" {
			died = at
			continue
		}
		if died.IsZero() {
			continue
		}
		if pause := at.Sub(died); pause < least {
			t.Errorf("pause %d is %v, less than %v", pauses, pause, least)
		}
		least *= 2
		pauses++
	}
	if pauses != 4 {
		t.Errorf("%d pauses in %v", pauses, events)
	}
	// A policy that is changed holds at once.
	h.berth("run", "-d", "--network", "none", "--name", "changed", busyboxImage, "sleep", "1000")
	h.berth("update", "--restart", "always", "changed")
	pid := h.killMain("changed")
	h.eventually("it is up again", func() bool { now := h.mainPid("changed"); return now != "0" && now != pid })
	h.berth("update", "--restart", "no", "changed")
	h.killMain("changed")
	h.eventually("it stays down", func() bool { return h.states()["changed"] == "exited" })
}

// TestRestartsWaitForWhatIsMissing boots a machine on which a container's network
// partner, its files and its port are not there at first.
func TestRestartsWaitForWhatIsMissing(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	source := h.write("bound/file", "text", 0o644)
	h.berth("run", "-d", "--network", "none", "--name", "partner", busyboxImage, "sleep", "1000")
	h.berth("run", "-d", "--network", "container:partner", "--restart", "always", "--name", "follower", busyboxImage, "sleep", "1000")
	h.berth("run", "-d", "--network", "none", "--restart", "always", "--mount", "type=bind,src="+source+",dst=/file", "--name", "binder", busyboxImage, "sleep", "1000")
	h.killAll()
	if err := os.Rename(source, source+".away"); err != nil {
		t.Fatal(err)
	}
	h.startEngine()
	waits := func(name, word string) {
		t.Helper()
		h.eventually(name+" waits for what it lacks", func() bool {
			s := h.berth("inspect", "-f", "{{.State.Status}} {{.State.Error}}", name)
			return strings.HasPrefix(s, "restarting ") && strings.Contains(s, word)
		})
	}
	waits("follower", "non running container")
	waits("binder", source)
	h.berth("start", "partner")
	if err := os.Rename(source+".away", source); err != nil {
		t.Fatal(err)
	}
	up := []string{"binder", "follower", "partner"}
	h.eventually("all are up", func() bool {
		got := strings.Fields(h.berth("ps", "--filter", "status=running", "--format", "{{.Names}}"))
		slices.Sort(got)
		return slices.Equal(got, up)
	})
	// Its partner is gone for good: it can still be stopped and removed.
	h.berth("rm", "-f", "partner")
	h.killMain("follower")
	waits("follower", "No such container")
	h.berth("stop", "follower")
	h.equal(h.states()["follower"], "exited")
	h.berth("rm", "follower")
}

// TestBootsInOrder boots containers that name one another, some in a circle and one
// that names nobody who is there.
func TestBootsInOrder(t *testing.T) {
	t.Parallel()
	h := newEngine(t)
	run := func(name, after string) {
		h.berth("run", "-d", "--network", "none", "--restart", "always", "--name", name, "-l", "berth.depends-on="+after, busyboxImage, "sleep", "1000")
	}
	run("web", "app, nobody")
	run("circle1", "circle2")
	run("circle2", "circle1")
	run("app", "db")
	run("db", "")
	h.killAll()
	h.startEngine()
	h.eventually("all are up", func() bool { return strings.Count(h.berth("ps", "-q"), "\n") == 4 })
	started := h.berth("events", "--since", "0", "--until", "0s", "--filter", "event=start", "--format", "{{.Actor.Attributes.name}}")
	order := strings.Fields(started)
	at := func(name string) int { return slices.Index(order, name) }
	if !(at("db") < at("app") && at("app") < at("web")) || len(order) != 5 || at("circle1") < 0 || at("circle2") < 0 {
		t.Errorf("the order was %v", order)
	}
}
