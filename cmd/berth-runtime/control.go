package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"berth/internal/runtime"

	"github.com/docker/go-units"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func setupKill(g *global, fs *flag.FlagSet) func([]string) (int, error) {
	all := fs.Bool("all", false, "signal every process of the container")
	fs.BoolVar(all, "a", false, "same as --all")
	return func(args []string) (int, error) {
		number := syscall.SIGTERM
		if len(args) > 1 {
			var err error
			if number, err = parseSignal(args[1]); err != nil {
				return 1, err
			}
		}
		container, err := runtime.Load(g.root, args[0])
		if err != nil {
			return 1, err
		}
		switch {
		case *all && number == syscall.SIGKILL:
			return 0, container.KillAll()
		case *all:
			return 0, signalAll(container, number)
		}
		return 0, container.Signal(number)
	}
}

func signalAll(container *runtime.Container, number syscall.Signal) error {
	pids, err := container.Pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, number); err != nil && err != unix.ESRCH {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// parseSignal takes a number or a name, with or without SIG.
func parseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 0 || n > 64 {
			return 0, fmt.Errorf("signal %d: want 0 to 64", n)
		}
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return n, nil
	}
	return 0, fmt.Errorf("no signal %q", text)
}

func setupDelete(g *global, fs *flag.FlagSet) func([]string) (int, error) {
	force := fs.Bool("force", false, "kill the container first; what is gone already is no error")
	fs.BoolVar(force, "f", false, "same as --force")
	return func(args []string) (int, error) {
		container, err := runtime.Load(g.root, args[0])
		if err != nil {
			if *force && isGone(err) {
				return 0, runtime.Discard(g.root, args[0])
			}
			return 1, err
		}
		return 0, container.Delete(context.Background(), *force)
	}
}

func setupPause(g *global, _ *flag.FlagSet) func([]string) (int, error) {
	return withContainer(g, (*runtime.Container).Pause)
}

func setupResume(g *global, _ *flag.FlagSet) func([]string) (int, error) {
	return withContainer(g, (*runtime.Container).Resume)
}

func withContainer(g *global, do func(*runtime.Container) error) func([]string) (int, error) {
	return func(args []string) (int, error) {
		container, err := runtime.Load(g.root, args[0])
		if err != nil {
			return 1, err
		}
		return 0, do(container)
	}
}

// limits are the flags of update; "" leaves a limit as it is.
type limits struct {
	resources, blkioWeight                                    string
	cpuPeriod, cpuQuota, cpuBurst, cpuShares, cpuIdle         string
	rtPeriod, rtRuntime, cpus, mems                           string
	memory, reservation, swap, pids                           string
	kernelMemory, kernelMemoryTCP, l3CacheSchema, memBwSchema string
}

func (l *limits) register(fs *flag.FlagSet) {
	fs.StringVar(&l.resources, "resources", "", "file with linux.resources as JSON, or - for standard input")
	fs.StringVar(&l.resources, "r", "", "same as --resources")
	for name, flag := range map[string]struct {
		to    *string
		about string
	}{
		"blkio-weight":       {&l.blkioWeight, "block I/O weight, 10 to 1000"},
		"cpu-period":         {&l.cpuPeriod, "CFS period in microseconds"},
		"cpu-quota":          {&l.cpuQuota, "CFS quota in microseconds, -1 for none"},
		"cpu-burst":          {&l.cpuBurst, "CFS burst in microseconds"},
		"cpu-share":          {&l.cpuShares, "relative weight"},
		"cpu-shares":         {&l.cpuShares, "same as --cpu-share"},
		"cpu-idle":           {&l.cpuIdle, "1 for SCHED_IDLE behaviour"},
		"cpu-rt-period":      {&l.rtPeriod, "realtime period in microseconds"},
		"cpu-rt-runtime":     {&l.rtRuntime, "realtime runtime in microseconds"},
		"cpuset-cpus":        {&l.cpus, "processors, as in 0-2,7"},
		"cpuset-mems":        {&l.mems, "memory nodes"},
		"memory":             {&l.memory, "limit in bytes, or with a unit; -1 for none"},
		"memory-reservation": {&l.reservation, "soft limit"},
		"memory-swap":        {&l.swap, "limit of memory and swap together, -1 for none"},
		"pids-limit":         {&l.pids, "number of tasks, -1 for no limit"},
		"kernel-memory":      {&l.kernelMemory, "refused: kernels do not have it any more"},
		"kernel-memory-tcp":  {&l.kernelMemoryTCP, "refused: kernels do not have it any more"},
		"l3-cache-schema":    {&l.l3CacheSchema, "refused: Intel RDT is not offered"},
		"mem-bw-schema":      {&l.memBwSchema, "refused: Intel RDT is not offered"},
	} {
		fs.StringVar(flag.to, name, "", flag.about)
	}
}

func setupUpdate(g *global, fs *flag.FlagSet) func([]string) (int, error) {
	var l limits
	l.register(fs)
	return func(args []string) (int, error) {
		resources, err := l.parse()
		if err != nil {
			return 1, err
		}
		container, err := runtime.Load(g.root, args[0])
		if err != nil {
			return 1, err
		}
		return 0, container.Update(resources)
	}
}

func (l *limits) parse() (*specs.LinuxResources, error) {
	for name, value := range map[string]string{"kernel-memory": l.kernelMemory, "kernel-memory-tcp": l.kernelMemoryTCP,
		"l3-cache-schema": l.l3CacheSchema, "mem-bw-schema": l.memBwSchema} {
		if value != "" {
			return nil, fmt.Errorf("update: --%s is not offered", name)
		}
	}
	if l.resources != "" {
		return l.fromFile()
	}
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: l.cpus, Mems: l.mems}, Memory: &specs.LinuxMemory{}}
	p := &parser{}
	r.CPU.Period = p.unsigned("cpu-period", l.cpuPeriod)
	r.CPU.Quota = p.signed("cpu-quota", l.cpuQuota)
	r.CPU.Burst = p.unsigned("cpu-burst", l.cpuBurst)
	r.CPU.Shares = p.unsigned("cpu-shares", l.cpuShares)
	r.CPU.Idle = p.signed("cpu-idle", l.cpuIdle)
	r.CPU.RealtimePeriod = p.unsigned("cpu-rt-period", l.rtPeriod)
	r.CPU.RealtimeRuntime = p.signed("cpu-rt-runtime", l.rtRuntime)
	r.Memory.Limit = p.size("memory", l.memory)
	r.Memory.Reservation = p.size("memory-reservation", l.reservation)
	r.Memory.Swap = p.size("memory-swap", l.swap)
	if n := p.signed("pids-limit", l.pids); n != nil {
		r.Pids = &specs.LinuxPids{Limit: n}
	}
	if n := p.unsigned("blkio-weight", l.blkioWeight); n != nil {
		weight := uint16(min(*n, 65535))
		r.BlockIO = &specs.LinuxBlockIO{Weight: &weight}
	}
	return r, p.err
}

func (l *limits) fromFile() (*specs.LinuxResources, error) {
	in := io.Reader(os.Stdin)
	if l.resources != "-" {
		f, err := os.Open(l.resources)
		if err != nil {
			return nil, fmt.Errorf("--resources: %w", err)
		}
		defer f.Close()
		in = f
	}
	r := new(specs.LinuxResources)
	if err := json.NewDecoder(io.LimitReader(in, 1<<20)).Decode(r); err != nil {
		return nil, fmt.Errorf("--resources %s: %w", l.resources, err)
	}
	return r, nil
}

// parser reads optional numbers and keeps the first error.
type parser struct{ err error }

func (p *parser) signed(name, text string) *int64 {
	if text == "" {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("--%s %q: want a number", name, text)
	}
	return &n
}

func (p *parser) unsigned(name, text string) *uint64 {
	if text == "" {
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("--%s %q: want a number of 0 or more", name, text)
	}
	return &n
}

func (p *parser) size(name, text string) *int64 {
	if text == "" {
		return nil
	}
	n, err := int64(-1), error(nil)
	if text != "-1" {
		n, err = units.RAMInBytes(text)
	}
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("--%s %q: want bytes, a size as in 64m, or -1", name, text)
	}
	return &n
}
