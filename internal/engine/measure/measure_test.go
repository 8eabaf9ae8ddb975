package measure

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/internal/container"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"
	"berth/internal/volume"

	api "github.com/moby/moby/api/types/container"
)

func TestProcessesAreShownAsPsShowsThem(t *testing.T) {
	t.Parallel()
	pid := os.Getpid()
	own, err := Processes(t.Context(), []int{pid, 1 << 29}, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(own.Processes) != 1 || len(own.Processes[0]) != len(own.Titles) {
		t.Fatalf("%+v", own)
	}
	byPS, err := Processes(t.Context(), []int{pid}, "-eo pid,ppid,cmd")
	if err != nil || len(byPS.Processes) != 1 {
		t.Fatalf("%+v, %v", byPS, err)
	}
	value := func(r api.TopResponse, title string) string { return r.Processes[0][slices.Index(r.Titles, title)] }
	for _, title := range []string{"PID", "PPID", "CMD"} {
		if a, b := value(own, title), value(byPS, title); a != b {
			t.Errorf("%s is %q, and %q by ps", title, a, b)
		}
	}
}

func TestLinesOfPs(t *testing.T) {
	t.Parallel()
	const text = "  PID   LWP CMD\n    7     - a  program\n    -     8 -\n    9     - other\n    -    10 -\n"
	r, err := parsePS(text, []int{7})
	if err != nil || len(r.Processes) != 2 || !slices.Equal(r.Processes[0], []string{"7", "-", "a program"}) || r.Processes[1][1] != "8" {
		t.Errorf("%q, %v", r.Processes, err)
	}
	for _, bad := range []string{"CMD\nx\n", "PID CMD\nx y\n"} {
		if _, err := parsePS(bad, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := Processes(t.Context(), nil, "-o pid\x00"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a zero byte in an argument: %v", err)
	}
}

func TestCountersInTheFormatOfPrometheus(t *testing.T) {
	t.Parallel()
	var m Counters
	m.Exits.Add(2)
	m.Started(3 * time.Millisecond)
	m.Started(time.Minute)
	var out strings.Builder
	now := Census{Version: "v", Opened: time.Unix(7, 0), Volumes: 4, Containers: []container.State{
		{Status: api.StateExited, Health: &api.Health{Status: api.Healthy}}, {Status: api.StateRunning, Health: &api.Health{Status: api.Unhealthy}}}}
	if err := m.Write(&out, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`berth_info{version="v",commit=""} 1`, "berth_start_time_seconds 7", `berth_containers{state="exited"} 1`, `berth_containers{state="paused"} 0`,
		`berth_containers_health{status="healthy"} 0`, `berth_containers_health{status="unhealthy"} 1`, "berth_volumes 4", "berth_container_exits_total 2",
		`berth_container_start_seconds_bucket{le="0.002"} 0`, `berth_container_start_seconds_bucket{le="0.005"} 1`, `berth_container_start_seconds_bucket{le="+Inf"} 2`,
		"berth_container_start_seconds_count 2",
	} {
		if !strings.Contains(out.String(), "\n"+want+"\n") {
			t.Errorf("no line %s in\n%s", want, out.String())
		}
	}
}

func TestWhatDoesNotRunIsMeasuredOnce(t *testing.T) {
	t.Parallel()
	life, end := context.WithCancel(context.Background())
	var work sync.WaitGroup
	defer work.Wait()
	defer end()
	p := NewSampler(life, &work, vocabulary.Host{})
	c := container.New(&container.Record{ID: "x", Name: "n", State: container.State{Status: api.StateExited}})
	for _, oneShot := range []bool{true, false} {
		ch := p.Samples(t.Context(), c, false, oneShot)
		if s := <-ch; s.ID != "x" || s.Name != "/n" || !s.Read.IsZero() {
			t.Errorf("%+v", s)
		}
		if _, more := <-ch; more {
			t.Error("there is a second sample")
		}
	}
	// Whoever goes away is forgotten.
	ctx, leave := context.WithCancel(t.Context())
	ch := p.Samples(ctx, c, true, false)
	<-ch
	leave()
	for range ch {
	}
	if by := p.watched(); len(by) != 0 {
		t.Errorf("%v is still watched", by)
	}
}

func TestEveryByteHasAnOwner(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for path, size := range map[string]int{"containers/id/log": 5000, "containers/build-1/upper/f": 100, "containers/gone/upper/f": 100, "layers/l/file": 9000, "layers/m/file": 9000,
		"layers/.trash/x/file": 9000, "layers/.tmp/x/file": 9000, "volumes/v/file": 100, "content/blob": 70000, "build/ctx/file": 100, "metadata.db": 4096, "lock": 3} {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list, err := Owners(t.Context(), root, Names{Containers: map[string]string{"id": "web"}, Layers: map[string]string{"l": "web:1"}})
	if err != nil {
		t.Fatal(err)
	}
	total, owners := int64(0), []string{}
	for _, o := range list {
		total += o.Size
		owners = append(owners, o.Kind+" "+o.Owner)
	}
	slices.Sort(owners)
	if want := []string{"blobs images", "build build cache", "build step", "container nobody", "container web", "database engine", "layer nobody", "layer web:1",
		"other engine", "other engine", "other engine", "other engine", "other engine", "other engine", "removed nobody", "volume v"}; !slices.Equal(owners, want) {
		t.Errorf("%q, want %q", owners, want)
	}
	all, err := volume.DiskUsage(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	if total != all {
		t.Errorf("owners have %d bytes of %d", total, all)
	}
}
