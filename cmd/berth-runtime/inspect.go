package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"berth/internal/runtime"
)

func printJSON(v any) error {
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func setupState(g *global, _ *flag.FlagSet) func([]string) (int, error) {
	return func(args []string) (int, error) {
		container, err := runtime.Load(g.root, args[0])
		if err != nil {
			return 1, err
		}
		all, err := runtime.List(g.root)
		if err != nil {
			return 1, err
		}
		// The listing has what runc prints beside the specified fields.
		for _, state := range all {
			if state.ID == container.ID() {
				return 0, printJSON(state)
			}
		}
		return 0, printJSON(container.State())
	}
}

func setupList(g *global, fs *flag.FlagSet) func([]string) (int, error) {
	format := fs.String("format", "table", "table or json")
	fs.StringVar(format, "f", "table", "same as --format")
	quiet := fs.Bool("quiet", false, "ids only")
	fs.BoolVar(quiet, "q", false, "same as --quiet")
	return func([]string) (int, error) {
		all, err := runtime.List(g.root)
		if err != nil {
			return 1, err
		}
		if *quiet {
			for _, state := range all {
				fmt.Println(state.ID)
			}
			return 0, nil
		}
		switch *format {
		case "json":
			if all == nil {
				all = []runtime.State{}
			}
			return 0, json.NewEncoder(os.Stdout).Encode(all)
		case "table":
			w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
			fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
			for _, s := range all {
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.ID, s.Pid, s.Status, s.Bundle, s.Created, s.Owner)
			}
			return 0, w.Flush()
		}
		return 1, fmt.Errorf("--format %q: table and json are known", *format)
	}
}

func setupPs(g *global, fs *flag.FlagSet) func([]string) (int, error) {
	format := fs.String("format", "table", "table or json")
	fs.StringVar(format, "f", "table", "same as --format")
	return func(args []string) (int, error) {
		container, err := runtime.Load(g.root, args[0])
		if err != nil {
			return 1, err
		}
		pids, err := container.Pids()
		if err != nil {
			return 1, err
		}
		switch *format {
		case "json":
			return 0, json.NewEncoder(os.Stdout).Encode(pids)
		case "table":
			return 0, printProcesses(pids, args[1:])
		}
		return 1, fmt.Errorf("--format %q: table and json are known", *format)
	}
}

// printProcesses runs ps and keeps the lines of pids.
func printProcesses(pids []int, options []string) error {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.Command("ps", options...).Output()
	if err != nil {
		return fmt.Errorf("ps %s: %w", strings.Join(options, " "), err)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errors.New("ps printed no column PID: choose options that do")
	}
	fmt.Println(lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		if pid, err := strconv.Atoi(fields[column]); err == nil && slices.Contains(pids, pid) {
			fmt.Println(line)
		}
	}
	return nil
}

// event is one line of the events command, in the form of runc.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

func setupEvents(g *global, fs *flag.FlagSet) func([]string) (int, error) {
	interval := fs.Duration("interval", 5*time.Second, "time between counters")
	once := fs.Bool("stats", false, "print the counters once")
	return func(args []string) (int, error) {
		if *interval <= 0 {
			return 1, fmt.Errorf("--interval %v: want more than 0", *interval)
		}
		container, err := runtime.Load(g.root, args[0])
		if err != nil {
			return 1, err
		}
		out := json.NewEncoder(os.Stdout)
		if *once {
			return 0, printCounters(container, out)
		}
		return 0, follow(container, out, *interval)
	}
}

func printCounters(c *runtime.Container, out *json.Encoder) error {
	stats, err := c.Stats()
	if err != nil {
		return err
	}
	return out.Encode(event{"stats", c.ID(), runcStats(stats)})
}

// follow prints counters at every tick, and an event for every process the
// kernel killed for lack of memory, until the container ends.
func follow(c *runtime.Container, out *json.Encoder, interval time.Duration) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	look := time.NewTicker(min(interval, 100*time.Millisecond))
	defer look.Stop()
	killed, err := c.OOMCount()
	if err != nil {
		return err
	}
	for {
		select {
		case <-stop:
			return nil
		case <-ticker.C:
			if err := printCounters(c, out); err != nil {
				return err
			}
		case <-look.C:
			if c.State().Status == "stopped" {
				return nil
			}
			now, err := c.OOMCount()
			if err != nil {
				return err
			}
			for ; killed < now; killed++ {
				if err := out.Encode(event{Type: "oom", ID: c.ID()}); err != nil {
					return err
				}
			}
		}
	}
}

// runcStats puts counters into the shape that runc's events print.
func runcStats(s *runtime.Stats) map[string]any {
	entry := func(usage, limit, failcnt, highest uint64) map[string]uint64 {
		return map[string]uint64{"usage": usage, "limit": limit, "failcnt": failcnt, "max": highest}
	}
	huge := map[string]any{}
	for size, h := range s.HugeTLB {
		huge[size] = entry(h.Usage, 0, h.Failcnt, h.MaxUsage)
	}
	var bytes, operations []map[string]any
	for _, d := range s.BlockIO {
		add := func(to *[]map[string]any, op string, value uint64) {
			*to = append(*to, map[string]any{"major": d.Major, "minor": d.Minor, "op": op, "value": value})
		}
		add(&bytes, "Read", d.ReadBytes)
		add(&bytes, "Write", d.WriteBytes)
		add(&operations, "Read", d.ReadOps)
		add(&operations, "Write", d.WriteOps)
	}
	return map[string]any{
		"cpu": map[string]any{
			"usage": map[string]any{"total": s.CPU.Usage, "percpu": s.CPU.PerCPU, "kernel": s.CPU.Kernel, "user": s.CPU.User},
			"throttling": map[string]uint64{"periods": s.CPU.Periods, "throttledPeriods": s.CPU.ThrottledPeriods,
				"throttledTime": s.CPU.ThrottledTime},
		},
		"memory": map[string]any{
			"usage":  entry(s.Memory.Usage, s.Memory.Limit, s.Memory.Failcnt, s.Memory.MaxUsage),
			"swap":   entry(s.Memory.SwapUsage, s.Memory.SwapLimit, 0, 0),
			"kernel": entry(s.Memory.KernelUsage, 0, 0, 0),
			"raw":    s.Memory.Raw,
		},
		"pids":    map[string]uint64{"current": s.Pids.Current, "limit": s.Pids.Limit},
		"blkio":   map[string]any{"ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations},
		"hugetlb": huge,
	}
}
