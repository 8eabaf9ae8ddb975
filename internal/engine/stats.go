package engine

import (
	"context"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/internal/container"
	"berth/internal/engine/spec"
	"berth/internal/runtime/cgroup"
	"berth/internal/runtime/smallfile"

	api "github.com/moby/moby/api/types/container"
)

const (
	statsInterval = time.Second
	// statsLeast is how old a first sample must be for a second one to say
	// something about the time between them.
	statsLeast = statsInterval / 2
)

// sampler reads the counters of all containers that somebody watches in one pass
// per interval, however many watch, and only while somebody does.
type sampler struct {
	mu       sync.Mutex // guards the fields; nothing else is locked under it
	watchers map[*watcher]struct{}
	running  bool
}

// watcher is one client's interest in one container. Its channel has room for one
// sample: a slow reader misses some and holds nobody up.
type watcher struct {
	c   *container.Container
	out chan api.StatsResponse
}

// ContainerStats returns samples of a container's counters: one every second while
// stream is set, otherwise one that holds the difference to another one shortly
// before, or, with oneShot, one at once. The channel is closed at the end.
func (e *Engine) ContainerStats(ctx context.Context, ref string, stream, oneShot bool) (<-chan api.StatsResponse, error) {
	c, err := e.containers.Find(ref)
	if err != nil {
		return nil, err
	}
	out := make(chan api.StatsResponse, 1)
	first := e.sample(c, readProcessors())
	if oneShot || (!stream && !c.State().Alive()) {
		out <- first
		close(out)
		return out, nil
	}
	w := &watcher{c: c, out: make(chan api.StatsResponse, 1)}
	e.watch(w)
	e.work.Go(func() {
		defer close(out)
		defer e.unwatch(w)
		if stream {
			out <- first
		}
		for before := first; ; {
			var s api.StatsResponse
			select {
			case s = <-w.out:
			case <-ctx.Done():
				return
			case <-e.life.Done():
				return
			}
			if !stream && s.Read.Sub(before.Read) < statsLeast && c.State().Alive() {
				continue
			}
			s.PreRead, s.PreCPUStats = before.Read, before.CPUStats
			select {
			case out <- s:
			case <-ctx.Done():
				return
			case <-e.life.Done():
				return
			}
			if before = s; !stream || c.Gone() {
				return
			}
		}
	})
	return out, nil
}

func (e *Engine) watch(w *watcher) {
	e.sampler.mu.Lock()
	defer e.sampler.mu.Unlock()
	if e.sampler.watchers == nil {
		e.sampler.watchers = make(map[*watcher]struct{})
	}
	e.sampler.watchers[w] = struct{}{}
	if !e.sampler.running {
		e.sampler.running = true
		e.work.Go(e.sampleAll)
	}
}

func (e *Engine) unwatch(w *watcher) {
	e.sampler.mu.Lock()
	defer e.sampler.mu.Unlock()
	delete(e.sampler.watchers, w)
}

// watched returns who watches which container, or ends the sampling when nobody
// does.
func (s *sampler) watched() map[*container.Container][]*watcher {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.watchers) == 0 {
		s.running = false
		return nil
	}
	by := make(map[*container.Container][]*watcher, len(s.watchers))
	for w := range s.watchers {
		by[w.c] = append(by[w.c], w)
	}
	return by
}

// sampleAll runs while somebody watches.
func (e *Engine) sampleAll() {
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.life.Done():
			return
		}
		by := e.sampler.watched()
		if by == nil {
			return
		}
		cpus := readProcessors()
		for c, watchers := range by {
			s := e.sample(c, cpus)
			for _, w := range watchers {
				select {
				case w.out <- s:
				default:
				}
			}
		}
	}
}

// processors is what all processors of the machine have done together.
type processors struct {
	busy   uint64 // nanoseconds, idle ones included
	online uint32
}

// readProcessors reads /proc/stat. USER_HZ is 100 everywhere.
func readProcessors() (p processors) {
	const tick = 10_000_000 // nanoseconds
	text, err := smallfile.Read("/proc/stat", 4<<20)
	if err != nil {
		return p
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if !strings.HasPrefix(line, "cpu") {
			break
		}
		f := strings.Fields(line)
		if f[0] != "cpu" {
			p.online++
			continue
		}
		for _, v := range f[1:min(len(f), 8)] {
			n, _ := strconv.ParseUint(v, 10, 64)
			p.busy += n * tick
		}
	}
	return p
}

// sample reads a container's counters. One that does not run has none.
func (e *Engine) sample(c *container.Container, cpus processors) api.StatsResponse {
	rec := c.Record()
	out := api.StatsResponse{ID: rec.ID, Name: "/" + rec.Name, OSType: "linux"}
	if !rec.State.Alive() {
		return out
	}
	m, err := cgroup.New(spec.CgroupPath(rec))
	if err != nil {
		return out
	}
	s, err := m.Stats()
	if err != nil {
		return out
	}
	out.Read = time.Now()
	out.CPUStats = api.CPUStats{
		CPUUsage:    api.CPUUsage{TotalUsage: s.CPU.Usage, PercpuUsage: s.CPU.PerCPU, UsageInKernelmode: s.CPU.Kernel, UsageInUsermode: s.CPU.User},
		SystemUsage: cpus.busy, OnlineCPUs: cpus.online,
		ThrottlingData: api.ThrottlingData{Periods: s.CPU.Periods, ThrottledPeriods: s.CPU.ThrottledPeriods, ThrottledTime: s.CPU.ThrottledTime},
	}
	out.MemoryStats = api.MemoryStats{Usage: s.Memory.Usage, Stats: s.Memory.Raw, Failcnt: s.Memory.Failcnt, Limit: s.Memory.Limit}
	if !e.host.CgroupV2 {
		out.MemoryStats.MaxUsage = s.Memory.MaxUsage
	}
	if total := uint64(e.host.Memory); total > 0 && out.MemoryStats.Limit > total {
		out.MemoryStats.Limit = total
	}
	out.PidsStats = api.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit}
	if out.PidsStats.Limit == 0 {
		out.PidsStats.Limit = math.MaxUint64 // docker's word for none
	}
	out.BlkioStats = e.blkio(s.BlockIO)
	if ownsNetwork(rec) {
		out.Networks = interfaces(rec.State.Pid)
	}
	return out
}

// blkio spells the operations as docker does for each version of cgroups.
func (e *Engine) blkio(devices []cgroup.BlockIOEntry) (out api.BlkioStats) {
	read, write := "Read", "Write"
	if e.host.CgroupV2 {
		read, write = "read", "write"
	}
	for _, d := range devices {
		entry := func(op string, n uint64) api.BlkioStatEntry {
			return api.BlkioStatEntry{Major: d.Major, Minor: d.Minor, Op: op, Value: n}
		}
		out.IoServiceBytesRecursive = append(out.IoServiceBytesRecursive, entry(read, d.ReadBytes), entry(write, d.WriteBytes))
		out.IoServicedRecursive = append(out.IoServicedRecursive, entry(read, d.ReadOps), entry(write, d.WriteOps))
	}
	return out
}

// interfaces reads the counters of a process's network interfaces.
func interfaces(pid int) map[string]api.NetworkStats {
	text, err := smallfile.Read("/proc/"+itoa(pid)+"/net/dev", 1<<20)
	if err != nil {
		return nil
	}
	out := make(map[string]api.NetworkStats, 1)
	for line := range strings.SplitSeq(string(text), "\n") {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(f) < 12 {
			continue
		}
		n := func(i int) uint64 {
			v, _ := strconv.ParseUint(f[i], 10, 64)
			return v
		}
		out[name] = api.NetworkStats{
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		}
	}
	return out
}
