package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// runtimeBundle returns a contender that runs the shared bundle with an OCI
// runtime's command line.
func (b *bench) runtimeBundle(name, program string) contender {
	root := b.path("state-" + name)
	n := 0
	return contender{name: name, run: func() error {
		n++
		cmd := exec.Command(program, "--root", root, "run", "--bundle", b.path("bundle"), fmt.Sprintf("bench-%s-%d", name, n))
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w: %s", err, said.String())
		}
		return nil
	}}
}

func (b *bench) floor() contender {
	for _, dir := range []string{"floor-upper", "floor-work", "floor-merged"} {
		_ = os.Mkdir(b.path(dir), 0o755)
	}
	return contender{name: "floor", run: func() error {
		return exec.Command(b.path("floor"), "-n", b.path("rootfs"), b.path("floor-upper"), b.path("floor-work"),
			b.path("floor-merged"), "/bin/true").Run()
	}}
}

func (b *bench) runc() contender { return b.runtimeBundle("runc", "runc") }

func (b *bench) runtimeRun() error {
	cs := []contender{b.runtimeBundle("berth-runtime", filepath.Join(b.bin, "berth-runtime")), b.runc(), b.floor()}
	bars := []bar{{against: "runc", factor: 0.35}}
	if crun := b.runtimeBundle("crun", "crun"); crun.run() == nil {
		cs = append(cs, crun)
		bars = append(bars, bar{against: "crun", factor: 1})
	} else {
		fmt.Fprintln(os.Stderr, "crun is not in the table: it does not run on this machine's cgroups")
	}
	samples, err := b.interleave(cs)
	if err != nil {
		return err
	}
	b.add("runtime run of true, same bundle", "ms", samples, bars...)
	return nil
}

func (b *bench) apiLifecycle() error {
	cs := []contender{
		{name: "berth none", run: func() error { return b.berth.lifecycle("none", "true") }},
		{name: "berth bridge", run: func() error { return b.berth.lifecycle("bridge", "true") }},
		b.runc(), b.floor(),
	}
	if b.docker != nil {
		cs = append(cs,
			contender{name: "docker none", run: func() error { return b.docker.lifecycle("none", "true") }},
			contender{name: "docker bridge", run: func() error { return b.docker.lifecycle("bridge", "true") }})
	}
	samples, err := b.interleave(cs)
	if err != nil {
		return err
	}
	peers := samples[2:]
	b.add("API create+start+wait+remove, network none", "ms", append([]sample{samples[0]}, peers...), bar{against: "runc", factor: 0.5})
	b.add("API create+start+wait+remove, bridge", "ms", append([]sample{samples[1]}, peers...), bar{against: "runc", factor: 0.7})
	return nil
}

func (b *bench) shellRun() error {
	run := []string{"run", "--rm", image, "true"}
	cs := []contender{{name: "berth", run: func() error { return b.berthCmd(run...).Run() }}, b.runc(), b.floor()}
	bars := []bar{{against: "runc", factor: 1}}
	if b.docker != nil {
		cs = append(cs, contender{name: "docker", run: func() error { return b.dockerCmd(run...).Run() }})
		bars = append(bars, bar{against: "docker", factor: 1.0 / 20})
	}
	if b.podman {
		cs = append(cs, contender{name: "podman", run: func() error { return b.podmanCmd(podmanRun(run)...).Run() }})
		bars = append(bars, bar{against: "podman", factor: 1.0 / 10})
	}
	samples, err := b.interleave(cs)
	if err != nil {
		return err
	}
	b.add("run --rm of true from the shell, bridge", "ms", samples, bars...)
	return nil
}

// podmanRun adds limits to podman's run: by default it wants more open files than
// a machine in a machine may have.
func podmanRun(args []string) []string {
	return append([]string{"run", "--ulimit", "nofile=1024:2048", "--ulimit", "nproc=1000:2000"}, args[1:]...)
}

// shellExec measures exec into a running container. runc enters a container of
// its own, from the same bundle.
func (b *bench) shellExec() error {
	sleeper := []string{"run", "-d", "--name", "bench-exec", image, "sleep", "100000"}
	into := []string{"exec", "bench-exec", "true"}
	if err := b.berthCmd(sleeper...).Run(); err != nil {
		return fmt.Errorf("berth run -d: %w", err)
	}
	defer b.berthCmd("rm", "-f", "bench-exec").Run()
	runc, stop, err := b.runcSleeper()
	if err != nil {
		return err
	}
	defer stop()
	cs := []contender{{name: "berth", run: func() error { return b.berthCmd(into...).Run() }}, runc}
	bars := []bar{{against: "runc", factor: 0.5}}
	if b.docker != nil && b.dockerCmd(sleeper...).Run() == nil {
		defer b.dockerCmd("rm", "-f", "bench-exec").Run()
		cs = append(cs, contender{name: "docker", run: func() error { return b.dockerCmd(into...).Run() }})
		bars = append(bars, bar{against: "docker", factor: 1.0 / 8})
	}
	if b.podman && b.podmanCmd(podmanRun(sleeper)...).Run() == nil {
		defer b.podmanCmd("rm", "-f", "-t", "0", "bench-exec").Run()
		cs = append(cs, contender{name: "podman", run: func() error { return b.podmanCmd(into...).Run() }})
	}
	samples, err := b.interleave(cs)
	if err != nil {
		return err
	}
	b.add("exec of true from the shell", "ms", samples, bars...)
	return nil
}

func (b *bench) runcSleeper() (contender, func(), error) {
	bundle := b.path("bundle-sleep")
	if err := command("cp", "-a", b.path("bundle"), bundle); err != nil {
		return contender{}, nil, err
	}
	file := filepath.Join(bundle, "config.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return contender{}, nil, err
	}
	text = bytes.Replace(text, []byte(`"/bin/true"`), []byte(`"/bin/sleep","100000"`), 1)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return contender{}, nil, err
	}
	root := b.path("state-runc")
	if err := command("sh", "-c", fmt.Sprintf("exec runc --root %s run -d --bundle %s bench-sleeper </dev/null >/dev/null 2>&1", root, bundle)); err != nil {
		return contender{}, nil, err
	}
	stop := func() { _ = exec.Command("runc", "--root", root, "delete", "--force", "bench-sleeper").Run() }
	return contender{name: "runc", run: func() error {
		return exec.Command("runc", "--root", root, "exec", "bench-sleeper", "/bin/true").Run()
	}}, stop, nil
}

// perfStat counts software events, of the processes pids while argv runs, or of
// argv itself and its children when there are no pids.
func perfStat(pids []int, argv, env []string) (faults, switches float64, err error) {
	args := []string{"stat", "-x", ",", "-e", "page-faults,context-switches"}
	if len(pids) > 0 {
		list := make([]string, len(pids))
		for i, pid := range pids {
			list[i] = strconv.Itoa(pid)
		}
		args = append(args, "-p", strings.Join(list, ","))
	}
	cmd := exec.Command("perf", append(append(args, "--"), argv...)...)
	cmd.Env = env
	var report bytes.Buffer
	cmd.Stderr = &report
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("perf stat: %w: %s", err, report.String())
	}
	for _, line := range strings.Split(report.String(), "\n") {
		fields := strings.Split(line, ",")
		if len(fields) < 3 {
			continue
		}
		value, _ := strconv.ParseFloat(fields[0], 64)
		switch fields[2] {
		case "page-faults":
			faults = value
		case "context-switches":
			switches = value
		}
	}
	return faults, switches, nil
}

// startCounters counts page faults and context switches of one start: of all
// engine processes over a batch of starts, and of the client alone.
func (b *bench) startCounters() error {
	const batch = 10
	cmd := b.berthCmd()
	one := []string{cmd.Path, "run", "--rm", image, "true"}
	many := []string{"sh", "-c", fmt.Sprintf("for i in $(seq %d); do %s || exit 1; done", batch, strings.Join(one, " "))}
	var engineFaults, engineSwitches, clientFaults []float64
	for round := -1; round < b.rounds; round++ {
		faults, switches, err := perfStat(pidsWith(b.berth.marker), many, cmd.Env)
		if err != nil {
			return err
		}
		client, _, err := perfStat(nil, one, cmd.Env)
		if err != nil {
			return err
		}
		if round >= 0 {
			engineFaults = append(engineFaults, faults/batch)
			engineSwitches = append(engineSwitches, switches/batch)
			clientFaults = append(clientFaults, client)
		}
	}
	b.add("page faults of one start, engine+monitor+init", "count", []sample{summarize("berth", engineFaults)}, bar{factor: 600})
	b.add("page faults of one start, client", "count", []sample{summarize("berth", clientFaults)}, bar{factor: 600})
	b.add("context switches of one start, engine side", "count", []sample{summarize("berth", engineSwitches)}, bar{factor: 150})
	return nil
}

// logThroughput lets a container write lines as fast as it can, then reads the
// log back and checks that every line is there, once and in order.
func (b *bench) logThroughput() error {
	lines := b.logMB * 1000 * 1000 / 100
	script := fmt.Sprintf("yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456 | head -n %d", lines)
	measure := func(e *engine) contender {
		return contender{name: e.name, run: func() error {
			var created struct{ ID string }
			err := e.call("POST", "/v1.41/containers/create", map[string]any{"Image": image, "Cmd": []string{"sh", "-c", script},
				"HostConfig": map[string]any{"NetworkMode": "none", "LogConfig": map[string]any{"Type": "json-file",
					"Config": map[string]string{"max-size": "2g", "max-file": "2"}}}}, &created)
			if err != nil {
				return err
			}
			if err := e.call("POST", "/v1.41/containers/"+created.ID+"/start", nil, nil); err != nil {
				return err
			}
			if err := e.call("POST", "/v1.41/containers/"+created.ID+"/wait", nil, nil); err != nil {
				return err
			}
			if got, err := e.countLogLines(created.ID); err != nil || got != lines {
				return fmt.Errorf("%s: %d of %d log lines: %v", e.name, got, lines, err)
			}
			return e.call("DELETE", "/v1.41/containers/"+created.ID, nil, nil)
		}}
	}
	cs := []contender{measure(b.berth)}
	var bars []bar
	if b.docker != nil {
		cs = append(cs, measure(b.docker))
		bars = append(bars, bar{against: "docker", factor: 0.5})
	}
	rounds := b.rounds
	b.rounds = min(rounds, 3)
	samples, err := b.interleave(cs)
	b.rounds = rounds
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("container writes %d MB of log lines and ends; all read back", b.logMB), "ms", samples, bars...)
	return nil
}

func (e *engine) countLogLines(id string) (int, error) {
	resp, err := e.client.Get("http://engine/v1.41/containers/" + id + "/logs?stdout=1&stderr=1")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, buf := 0, make([]byte, 1<<20)
	for {
		k, err := resp.Body.Read(buf)
		n += bytes.Count(buf[:k], []byte("6\n"))
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// idleFleet starts many idle containers eight at a time, measures what each
// costs the engine's processes in memory, and how long a killed engine needs to
// serve again with all of them.
func (b *bench) idleFleet() error {
	engines := []*engine{b.berth}
	if b.docker != nil {
		engines = append(engines, b.docker)
	}
	var rate, memory, restart []sample
	for _, e := range engines {
		before := e.pss()
		start := time.Now()
		err := eightAtATime(b.idle, func(int) error {
			id, err := e.create("bridge", "sleep", "100000")
			if err != nil {
				return err
			}
			return e.call("POST", "/v1.41/containers/"+id+"/start", nil, nil)
		})
		if err != nil {
			return err
		}
		rate = append(rate, one(e.name, float64(b.idle)/time.Since(start).Seconds()))
		time.Sleep(2 * time.Second) // background refills settle
		memory = append(memory, one(e.name, (e.pss()-before)/float64(b.idle)))
		took, err := b.killAndRestart(e)
		if err != nil {
			return err
		}
		restart = append(restart, one(e.name, took))
		e.removeAll()
	}
	var rateBars, restartBars []bar
	if b.docker != nil {
		rateBars = []bar{{against: "docker", factor: 10, atLeast: true}}
		restartBars = []bar{{against: "docker", factor: 0.1}}
	}
	b.add(fmt.Sprintf("%d containers started 8 at a time", b.idle), "per second", rate, rateBars...)
	b.add(fmt.Sprintf("engine memory for each of %d idle containers", b.idle), "KiB PSS", memory, bar{factor: 100})
	b.add(fmt.Sprintf("engine killed and started anew with %d containers", b.idle), "ms", restart, restartBars...)
	return nil
}

func one(name string, value float64) sample { return sample{name, value, value} }

// killAndRestart kills the daemon and returns the milliseconds until a new one
// serves with every container still running. Docker's is asked to end instead:
// a killed one leaves a containerd behind which the next one waits for in vain.
func (b *bench) killAndRestart(e *engine) (float64, error) {
	if e == b.docker {
		e.stop()
	} else {
		_ = e.cmd.Process.Signal(syscall.SIGKILL)
		_ = e.cmd.Wait()
	}
	start := time.Now()
	if err := e.start(b.path(e.name + "-again.log")); err != nil {
		return 0, err
	}
	took := float64(time.Since(start).Microseconds()) / 1000
	var running []struct{ ID string }
	if err := e.call("GET", "/v1.41/containers/json", nil, &running); err != nil {
		return 0, err
	}
	if len(running) != b.idle {
		return 0, fmt.Errorf("%s: %d of %d containers run after its restart", e.name, len(running), b.idle)
	}
	return took, nil
}
