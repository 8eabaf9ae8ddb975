package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// both are the engines in the table with their command lines.
func (b *bench) both() []engineClient {
	out := []engineClient{{b.berth, b.berthCmd}}
	if b.docker != nil {
		out = append(out, engineClient{b.docker, b.dockerCmd})
	}
	return out
}

type engineClient struct {
	*engine
	cmd func(args ...string) *exec.Cmd
}

// against gives a bar only where docker runs.
func (b *bench) against(factor float64, atLeast bool) []bar {
	if b.docker == nil {
		return nil
	}
	return []bar{{against: "docker", factor: factor, atLeast: atLeast}}
}

// operateWork measures what an operator does all day.
func (b *bench) operateWork() error {
	for _, work := range []func() error{b.psAndPrune, b.stats, b.churn, b.copying} {
		if err := work(); err != nil {
			return err
		}
	}
	return nil
}

const manyStopped = 500

func (e *engine) createMany(n int) error {
	return eightAtATime(n, func(int) error {
		_, err := e.create("none", "true")
		return err
	})
}

// psAndPrune lists 500 containers, then prunes them; each prune is of 500 new
// ones.
func (b *bench) psAndPrune() error {
	var lists, prunes []contender
	for _, e := range b.both() {
		if err := e.createMany(manyStopped); err != nil {
			return err
		}
		lists = append(lists, contender{name: e.name, run: func() error { return quiet(e.cmd("ps", "-a")) }})
		prunes = append(prunes, contender{e.name, func() error { return quiet(e.cmd("container", "prune", "-f")) }, func() error {
			have, err := e.list()
			if err != nil {
				return err
			}
			return e.createMany(manyStopped - len(have))
		}})
	}
	samples, err := b.interleave(lists)
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("ps of %d containers", manyStopped), "ms", samples, b.against(0.2, false)...)
	rounds := b.rounds
	b.rounds = min(rounds, 3)
	samples, err = b.interleave(prunes)
	b.rounds = rounds
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("prune of %d stopped containers", manyStopped), "ms", samples, b.against(0.1, false)...)
	return nil
}

// cpu returns the processor time that the engine's processes have used, in ms.
func (e *engine) cpu() float64 {
	total := 0.0
	for _, pid := range pidsWith(e.marker) {
		// The clock of another process's processor time: the kernel counts
		// hundredths of a second in /proc, nanoseconds here (clock_getcpuclockid(3)).
		var used unix.Timespec
		if unix.ClockGettime(int32((^pid)<<3|2), &used) == nil {
			total += float64(used.Nano()) / 1e6
		}
	}
	return total
}

// stats measures what one sample of all containers costs the engine.
func (b *bench) stats() error {
	var results []sample
	for _, e := range b.both() {
		err := eightAtATime(b.idle, func(int) error {
			id, err := e.create("none", "sleep", "100000")
			if err != nil {
				return err
			}
			return e.call("POST", "/v1.41/containers/"+id+"/start", nil, nil)
		})
		if err != nil {
			return err
		}
		var used []float64
		for range max(3, b.rounds/3) {
			time.Sleep(time.Second)
			before := e.cpu()
			if err := quiet(e.cmd("stats", "--no-stream")); err != nil {
				return err
			}
			used = append(used, e.cpu()-before)
		}
		results = append(results, summarize(e.name, used))
		e.removeAll()
	}
	b.add(fmt.Sprintf("stats --no-stream of %d containers: the engine's processor time", b.idle), "ms", results, b.against(0.1, false)...)
	return nil
}

// churn lets eight clients create, start, wait for and remove containers.
func (b *bench) churn() error {
	var results []sample
	for _, e := range b.both() {
		var lives atomic.Int64
		var wg sync.WaitGroup
		errs := make([]error, 8)
		start := time.Now()
		for i := range errs {
			wg.Go(func() {
				for errs[i] == nil && time.Since(start) < b.load && b.ctx.Err() == nil {
					if errs[i] = e.lifecycle("bridge", "true"); errs[i] == nil {
						lives.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		results = append(results, one(e.name, float64(lives.Load())/time.Since(start).Seconds()))
	}
	b.add(fmt.Sprintf("8 clients create, start, wait and remove for %s, no error", b.load), "lives/s", results, b.against(5, true)...)
	return nil
}

// copying copies a large file and many small ones into a container and out again.
func (b *bench) copying() error {
	large, small := b.path("large"), b.path("small")
	if err := command("sh", "-c", fmt.Sprintf("head -c 1000000000 /dev/urandom > %s", large)); err != nil {
		return err
	}
	if err := writeContext(small, "", 0); err != nil {
		return err
	}
	for i := range 20000 {
		dir := filepath.Join(small, fmt.Sprintf("d%d", i%200))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), []byte("small\n"), 0o644); err != nil {
			return err
		}
	}
	for _, what := range []struct{ name, path string }{{"a file of 1 GB", large}, {"20,000 small files", small}} {
		var in, out []contender
		for _, e := range b.both() {
			id := ""
			fresh := func() error {
				if id != "" {
					if err := e.call("DELETE", "/v1.41/containers/"+id+"?force=1", nil, nil); err != nil {
						return err
					}
				}
				var err error
				id, err = e.create("none", "sleep", "100000")
				_ = exec.Command("sync").Run()
				return err
			}
			target := b.path("copied-" + e.name)
			in = append(in, contender{e.name, func() error { return quiet(e.cmd("cp", what.path, id+":/tmp/x")) }, fresh})
			out = append(out, contender{e.name, func() error { return quiet(e.cmd("cp", id+":/tmp/x", target)) }, func() error {
				return os.RemoveAll(target)
			}})
			defer e.removeAll()
			defer os.RemoveAll(target)
		}
		rounds := b.rounds
		b.rounds = min(rounds, 3)
		samples, err := b.interleave(in)
		if err == nil {
			b.add("cp of "+what.name+" into a container", "ms", samples, b.against(1/1.5, false)...)
			if samples, err = b.interleave(out); err == nil {
				b.add("cp of "+what.name+" out of it", "ms", samples, b.against(1/1.5, false)...)
			}
		}
		b.rounds = rounds
		if err != nil {
			return err
		}
	}
	return nil
}
