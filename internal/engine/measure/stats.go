// Package measure reads what containers and the engine use and do: counters of cgroups
// and interfaces, processes, counts over time, files on disk. It exists because reading
// them is a matter of the kernel's files alone; which container is asked about is told
// by the engine.
package measure

import (
	"context"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/internal/container"
	"berth/internal/engine/spec"
	"berth/internal/engine/vocabulary"
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

// Sampler reads the counters of all containers that somebody watches in one pass
// per interval, however many watch, and only while somebody does.
type Sampler struct {
	life context.Context // no sample is taken after its end
	work *sync.WaitGroup // counts what goes on beside callers
	host vocabulary.Host

	mu       sync.Mutex // guards the fields; nothing else is locked under it
	watchers map[*watcher]struct{}
	running  bool
}

// NewSampler returns a sampler that works until life ends and counts in work what it
// does beside its callers.
func NewSampler(life context.Context, work *sync.WaitGroup, host vocabulary.Host) *Sampler {
	return &Sampler{life: life, work: work, host: host, watchers: map[*watcher]struct{}{}}
}

// watcher is one client's interest in one container. Its channel has room for one
// sample: a slow reader misses some and holds nobody up.
type watcher struct {
	c   *container.Container
	out chan api.StatsResponse
}

// Samples returns samples of a container's counters: one every second while stream is
// set, otherwise one that holds the difference to another one shortly before, or, with
// oneShot, one at once. The channel is closed at the end.
func (p *Sampler) Samples(ctx context.Context, c *container.Container, stream, oneShot bool) <-chan api.StatsResponse {
	out := make(chan api.StatsResponse, 1)
	first := p.sample(c, readProcessors())
	if oneShot || (!stream && !c.State().Alive()) {
		out <- first
		close(out)
		return out
	}
	w := &watcher{c: c, out: make(chan api.StatsResponse, 1)}
	p.watch(w)
	p.work.Go(func() {
		defer close(out)
		defer p.unwatch(w)
		if stream {
			out <- first
		}
		for before := first; ; {
			var s api.StatsResponse
			select {
			case s = <-w.out:
			case <-ctx.Done():
				return
			case <-p.life.Done():
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
			case <-p.life.Done():
				return
			}
			if before = s; !stream || c.Gone() {
				return
			}
		}
	})
	return out
}

func (p *Sampler) watch(w *watcher) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers[w] = struct{}{}
	if !p.running {
		p.running = true
		p.work.Go(p.sampleAll)
	}
}

func (p *Sampler) unwatch(w *watcher) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.watchers, w)
}

// watched returns who watches which container, or ends the sampling when nobody
// does.
func (p *Sampler) watched() map[*container.Container][]*watcher {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.watchers) == 0 {
		p.running = false
		return nil
	}
	by := make(map[*container.Container][]*watcher, len(p.watchers))
	for w := range p.watchers {
		by[w.c] = append(by[w.c], w)
	}
	return by
}

// sampleAll runs while somebody watches.
func (p *Sampler) sampleAll() {
	tick := time.NewTicker(statsInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.life.Done():
			return
		}
		by := p.watched()
		if by == nil {
			return
		}
		cpus := readProcessors()
		for c, watchers := range by {
			s := p.sample(c, cpus)
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
func (p *Sampler) sample(c *container.Container, cpus processors) api.StatsResponse {
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
	if !p.host.CgroupV2 {
		out.MemoryStats.MaxUsage = s.Memory.MaxUsage
	}
	if total := uint64(p.host.Memory); total > 0 && out.MemoryStats.Limit > total {
		out.MemoryStats.Limit = total
	}
	out.PidsStats = api.PidsStats{Current: s.Pids.Current, Limit: s.Pids.Limit}
	if out.PidsStats.Limit == 0 {
		out.PidsStats.Limit = math.MaxUint64 // docker's word for none
	}
	out.BlkioStats = p.blkio(s.BlockIO)
	if rec.OwnsNetwork() {
		out.Networks = interfaces(rec.State.Pid)
	}
	return out
}

// blkio spells the operations as docker does for each version of cgroups; lists
// that hold nothing are null in the second.
func (p *Sampler) blkio(devices []cgroup.BlockIOEntry) (out api.BlkioStats) {
	read, write := "Read", "Write"
	if p.host.CgroupV2 {
		read, write = "read", "write"
	} else {
		none := []api.BlkioStatEntry{}
		out = api.BlkioStats{
			IoServiceBytesRecursive: none, IoServicedRecursive: none, IoQueuedRecursive: none, IoServiceTimeRecursive: none,
			IoWaitTimeRecursive: none, IoMergedRecursive: none, IoTimeRecursive: none, SectorsRecursive: none,
		}
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
	text, err := smallfile.Read("/proc/"+strconv.Itoa(pid)+"/net/dev", 1<<20)
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
