// Command bench measures Berth beside its peers on this machine: every round
// runs each contender once, in turn, so that the machine's mood hits all alike,
// and only medians and ratios are reported. It needs root, starts the daemons it
// measures in scratch directories and stops them again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// bench is one run: its scratch directory, its contenders and its results.
type bench struct {
	ctx        context.Context
	dir        string // scratch, removed at the end
	bin        string // where berth, berthd and berth-runtime are
	rounds     int
	idle       int // how many idle containers the memory and restart work uses
	logMB      int
	load       time.Duration // how long the work with eight clients lasts
	berth      *engine
	docker     *engine // nil when dockerd is not installed or does not start
	podman     bool
	registries int // how many were started
	results    []result
}

// work is one line of the table.
type work struct {
	name string
	run  func(*bench) error
}

var works = []work{
	{"runtime", (*bench).runtimeRun},
	{"api", (*bench).apiLifecycle},
	{"run", (*bench).shellRun},
	{"exec", (*bench).shellExec},
	{"faults", (*bench).startCounters},
	{"log", (*bench).logThroughput},
	{"idle", (*bench).idleFleet},
	{"images", (*bench).imageWork},
	{"registry", (*bench).registryWork},
	{"build", (*bench).buildWork},
	{"operate", (*bench).operateWork},
}

func main() {
	var (
		rounds  = flag.Int("rounds", 21, "rounds per line; medians are reported")
		idle    = flag.Int("idle", 200, "idle containers for the memory, rate and restart lines")
		logMB   = flag.Int("log-mb", 500, "megabytes of log lines to write")
		only    = flag.String("only", "", "comma-separated subset: runtime,api,run,exec,faults,log,idle,images,registry,build,operate")
		peers   = flag.Bool("peers", true, "measure docker and podman too (runc and the floor always are)")
		bin     = flag.String("bin", "bin", "directory of berth, berthd and berth-runtime")
		load    = flag.Duration("load", time.Minute, "how long eight clients make containers at once")
		results = flag.String("o", "", "append the table as Markdown to this file")
	)
	flag.Parse()
	if err := run(*rounds, *idle, *logMB, *load, *only, *peers, *bin, *results); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rounds, idle, logMB int, load time.Duration, only string, peers bool, bin, out string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("containers are made as root: run as root")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	absolute, err := filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/var/tmp", "berth-bench-")
	if err != nil {
		return err
	}
	b := &bench{ctx: ctx, dir: dir, bin: absolute, rounds: rounds, idle: idle, logMB: logMB, load: load}
	defer b.close()
	if err := b.prepare(peers); err != nil {
		return err
	}
	var failed error
	for _, w := range works {
		if only != "" && !strings.Contains(","+only+",", ","+w.name+",") {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "measuring %s ...\n", w.name)
		// What was measured before a failure is worth showing all the same.
		if err := w.run(b); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", w.name, err))
		}
	}
	return errors.Join(failed, b.report(out))
}
