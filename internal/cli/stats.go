package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"berth/internal/cli/format"
	"berth/internal/client"
)

const statsExample = `  berth stats
  berth stats --no-stream --format '{{.Name}} {{.CPUPerc}}' web db`

// statsEvery is how often the table of running figures is drawn.
const statsEvery = time.Second

type statsFlags struct {
	all, noStream, noTrunc bool
	format                 string
}

func buildStats(a *app, cmd *cobra.Command) {
	f := &statsFlags{}
	cmd.Flags().BoolVarP(&f.all, "all", "a", false, "show stopped containers too")
	cmd.Flags().StringVar(&f.format, "format", "", "`FORMAT` json, 'table TEMPLATE' or a Go template")
	cmd.Flags().BoolVar(&f.noStream, "no-stream", false, "measure once and end")
	cmd.Flags().BoolVar(&f.noTrunc, "no-trunc", false, "do not shorten anything")
	cmd.ValidArgsFunction = a.completeContainers("running", "paused")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := format.Parse(f.format)
		if err != nil {
			return err
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		b := &board{app: a, client: c, flags: f, template: t, rows: map[string]*measured{}, changed: make(chan struct{}, 1)}
		if len(args) > 0 {
			return b.runNamed(ctx, args)
		}
		return b.runAll(ctx)
	}
}

// board gathers the figures of many containers and draws them.
type board struct {
	app      *app
	client   *client.Client
	flags    *statsFlags
	template *format.Template
	// everything is set when all containers are shown, and those that will come.
	everything bool

	mu      sync.Mutex // guards the rest
	order   []string
	rows    map[string]*measured
	changed chan struct{} // holds one when something has changed
	group   sync.WaitGroup
}

// measured is what is known of one container.
type measured struct {
	ref    string // as it was asked for
	sample *client.Stats
	err    error
	ended  bool // there will be no further samples
	stop   context.CancelFunc
}

// runNamed shows the containers that were named.
func (b *board) runNamed(ctx context.Context, refs []string) error {
	for _, ref := range refs {
		b.follow(ctx, ref, ref)
	}
	if b.flags.noStream {
		b.group.Wait()
		return b.drawOnce()
	}
	return b.draw(ctx)
}

// runAll shows all containers that run, those that start later too.
func (b *board) runAll(ctx context.Context) error {
	b.everything = true
	list, err := b.client.ContainerList(ctx, client.ListOptions{All: b.flags.all})
	if err != nil {
		return err
	}
	for i := range list {
		b.follow(ctx, list[i].ID, format.ShortID(list[i].ID))
	}
	if b.flags.noStream {
		b.group.Wait()
		return b.drawOnce()
	}
	filters := client.Filters{}
	filters.Add("type", "container")
	for _, action := range []string{"create", "start", "die", "destroy"} {
		filters.Add("event", action)
	}
	go func() {
		_ = b.client.Events(ctx, client.EventsOptions{Filters: filters}, func(raw json.RawMessage) bool {
			b.heard(ctx, raw)
			return true
		})
	}()
	return b.draw(ctx)
}

// heard follows containers that start and forgets those that end.
func (b *board) heard(ctx context.Context, raw json.RawMessage) {
	var e struct {
		Action string
		Actor  struct{ ID string }
	}
	if json.Unmarshal(raw, &e) != nil || e.Actor.ID == "" {
		return
	}
	switch e.Action {
	case "create":
		if b.flags.all {
			b.follow(ctx, e.Actor.ID, format.ShortID(e.Actor.ID))
		}
	case "start":
		b.follow(ctx, e.Actor.ID, format.ShortID(e.Actor.ID))
	case "die":
		if !b.flags.all {
			b.forget(e.Actor.ID)
		}
	case "destroy":
		b.forget(e.Actor.ID)
	}
}

func (b *board) follow(ctx context.Context, id, ref string) {
	ctx, cancel := context.WithCancel(ctx)
	b.mu.Lock()
	if _, known := b.rows[id]; known {
		b.mu.Unlock()
		cancel()
		return
	}
	m := &measured{ref: ref, stop: cancel}
	b.rows[id] = m
	b.order = append(b.order, id)
	b.group.Add(1)
	b.mu.Unlock()
	go func() {
		defer b.group.Done()
		defer cancel()
		err := b.client.ContainerStats(ctx, id, b.flags.noStream, func(s client.Stats) bool {
			b.mu.Lock()
			m.sample = &s
			b.mu.Unlock()
			b.wake()
			return true
		})
		if ctx.Err() == nil {
			b.mu.Lock()
			m.err, m.ended = err, true
			b.mu.Unlock()
			b.wake()
		}
	}()
}

func (b *board) forget(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.rows[id]; m != nil {
		m.stop()
		delete(b.rows, id)
		b.order = slices.DeleteFunc(b.order, func(one string) bool { return one == id })
	}
	b.wake()
}

func (b *board) wake() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// draw shows the table anew every second, in place on a terminal, as long as
// there is something to show.
func (b *board) draw(ctx context.Context) error {
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	inPlace := terminalOf(b.app.out) != nil && b.template.Kind == format.Table
	if inPlace {
		_, _ = io.WriteString(b.app.out, "\x1b[2J")
	}
	select { // the first figures are shown at once
	case <-b.changed:
	case <-tick.C:
	case <-ctx.Done():
		return nil
	}
	for {
		text, live, err := b.render()
		if err != nil {
			return err
		}
		if inPlace {
			text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
		}
		if _, err := io.WriteString(b.app.out, text); err != nil {
			return err
		}
		if !live {
			return b.failure()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (b *board) drawOnce() error {
	text, _, err := b.render()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(b.app.out, text); err != nil {
		return err
	}
	return b.failure()
}

// failure complains about the containers whose figures could not be had.
func (b *board) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	failed := false
	for _, id := range b.order {
		if m := b.rows[id]; m.err != nil && !(isMissing(m.err) && m.ref != id) { // one that is gone was not asked for by name
			b.app.complain(m.err)
			failed = true
		}
	}
	if failed {
		return &exit{codeFailed, nil}
	}
	return nil
}

// render returns the table, and whether any of its lines can still change.
func (b *board) render() (text string, live bool, err error) {
	b.mu.Lock()
	rows := make([]format.Row, 0, len(b.order))
	live = b.everything
	for _, id := range b.order {
		m := b.rows[id]
		live = live || !m.ended
		if m.err == nil {
			rows = append(rows, statsRow(id, m, b.flags.noTrunc))
		}
	}
	b.mu.Unlock()
	var out strings.Builder
	l := b.app.listOf(b.flags.noTrunc, "ID=CONTAINER_ID Name~=NAME CPUPerc=CPU_% MemUsage=MEM_USAGE_/_LIMIT MemPerc=MEM_% NetIO=NET_I/O BlockIO=BLOCK_I/O PIDs=PIDS",
		"Container=CONTAINER")
	err = l.Write(&out, b.template, rows)
	return out.String(), live, err
}

func statsRow(id string, m *measured, full bool) format.Row {
	v := map[string]string{"Container": m.ref, "ID": id, "Name": "--", "CPUPerc": "--", "MemUsage": "-- / --", "MemPerc": "--",
		"NetIO": "--", "BlockIO": "--", "PIDs": "--"}
	if s := m.sample; s != nil {
		if s.ID != "" {
			v["ID"] = s.ID
		}
		used := memoryUsed(&s.Memory)
		v["Name"] = trimSlash(s.Name)
		if !s.Read.IsZero() {
			v["CPUPerc"] = fmt.Sprintf("%.2f%%", cpuPercent(s))
			v["MemUsage"] = format.BinaryBytes(int64(used)) + " / " + format.BinaryBytes(int64(s.Memory.Limit))
			v["MemPerc"] = fmt.Sprintf("%.2f%%", percent(used, s.Memory.Limit))
			v["NetIO"], v["BlockIO"] = traffic(s)
			v["PIDs"] = strconv.FormatUint(s.Pids.Current, 10)
		}
	}
	if !full {
		v["ID"] = format.ShortID(v["ID"])
	}
	return format.Row{Values: v}
}

// cpuPercent returns how much of one processor a container used, as docker
// counts it: 200 is two whole ones.
func cpuPercent(s *client.Stats) float64 {
	used := float64(s.CPU.Usage.Total) - float64(s.PreviousCPU.Usage.Total)
	whole := float64(s.CPU.System) - float64(s.PreviousCPU.System)
	online := float64(s.CPU.Online)
	if online == 0 {
		online = float64(len(s.CPU.Usage.PerCPU))
	}
	if used <= 0 || whole <= 0 {
		return 0
	}
	return used / whole * online * 100
}

// memoryUsed leaves out what the kernel can drop at once: the file cache that
// nobody has used of late, by its name in cgroup v1 and v2.
func memoryUsed(m *client.MemoryStats) uint64 {
	for _, name := range []string{"total_inactive_file", "inactive_file"} {
		if cache, ok := m.Stats[name]; ok && cache < m.Usage {
			return m.Usage - cache
		}
	}
	return m.Usage
}

func percent(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole) * 100
}

func traffic(s *client.Stats) (network, block string) {
	var in, out, read, written uint64
	for _, n := range s.Networks {
		in, out = in+n.Received, out+n.Transmitted
	}
	for _, e := range s.Blkio.Bytes {
		switch {
		case strings.EqualFold(e.Op, "read"):
			read += e.Value
		case strings.EqualFold(e.Op, "write"):
			written += e.Value
		}
	}
	return format.Bytes(int64(in)) + " / " + format.Bytes(int64(out)), format.Bytes(int64(read)) + " / " + format.Bytes(int64(written))
}
