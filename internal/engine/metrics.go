package engine

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	api "github.com/moby/moby/api/types/container"
)

// startBounds are the upper bounds of the histogram of start latencies.
var startBounds = [...]time.Duration{
	2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second,
}

// metrics counts what an operator wants to see of an engine over time.
type metrics struct {
	startFailures, exits, ooms, restarts atomic.Int64

	mu      sync.Mutex // guards the histogram
	buckets [len(startBounds)]int64
	sum     time.Duration
	count   int64
}

// started notes how long a start took.
func (m *metrics) started(took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, bound := range startBounds {
		if took <= bound {
			m.buckets[i]++
		}
	}
	m.sum += took
	m.count++
}

// Metrics writes what there is to know about the engine in the text format of
// Prometheus.
func (e *Engine) Metrics(ctx context.Context, out io.Writer) error {
	w := bufio.NewWriter(out)
	family := func(name, kind, help string) { fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	family("berth_info", "gauge", "The version of the engine; always 1.")
	fmt.Fprintf(w, "berth_info{version=%q,commit=%q} 1\n", e.cfg.Version, e.cfg.Commit)
	family("berth_start_time_seconds", "gauge", "When this engine was started, in seconds since 1970.")
	fmt.Fprintf(w, "berth_start_time_seconds %d\n", e.opened.Unix())

	states := map[api.ContainerState]int{}
	health := map[api.HealthStatus]int{}
	for _, c := range e.containers.All() {
		s := c.State()
		states[s.Status]++
		if s.Health != nil && s.Alive() {
			health[s.Health.Status]++
		}
	}
	family("berth_containers", "gauge", "Containers by state.")
	for _, s := range []api.ContainerState{api.StateCreated, api.StateRunning, api.StatePaused, api.StateRestarting, api.StateRemoving, api.StateExited, api.StateDead} {
		fmt.Fprintf(w, "berth_containers{state=%q} %d\n", s, states[s])
	}
	family("berth_containers_health", "gauge", "Running containers that have a health check, by what it says.")
	for _, s := range []api.HealthStatus{api.Starting, api.Healthy, api.Unhealthy} {
		fmt.Fprintf(w, "berth_containers_health{status=%q} %d\n", s, health[s])
	}
	usage, err := e.images.Usage(ctx)
	if err != nil {
		return err
	}
	family("berth_images", "gauge", "Images.")
	fmt.Fprintf(w, "berth_images %d\n", len(usage.Images))
	family("berth_image_layers_bytes", "gauge", "Bytes of all unpacked layers of images.")
	fmt.Fprintf(w, "berth_image_layers_bytes %d\n", usage.Layers)
	family("berth_image_blobs_bytes", "gauge", "Bytes of the packed blobs that images keep.")
	fmt.Fprintf(w, "berth_image_blobs_bytes %d\n", usage.Blobs)
	family("berth_volumes", "gauge", "Volumes.")
	fmt.Fprintf(w, "berth_volumes %d\n", len(e.volumes.List()))
	family("berth_networks", "gauge", "User-defined networks.")
	fmt.Fprintf(w, "berth_networks %d\n", len(e.nets.all()))
	family("berth_event_readers", "gauge", "Clients that listen to events.")
	fmt.Fprintf(w, "berth_event_readers %d\n", e.bus.Readers())
	e.metrics.write(w, family)
	return w.Flush()
}

// write writes the counters and the histogram.
func (m *metrics) write(w io.Writer, family func(name, kind, help string)) {
	for _, c := range []struct {
		name, help string
		n          *atomic.Int64
	}{
		{"berth_container_start_failures_total", "Starts of containers that failed.", &m.startFailures},
		{"berth_container_exits_total", "Ends of containers.", &m.exits},
		{"berth_container_restarts_total", "Starts that a restart policy asked for.", &m.restarts},
		{"berth_container_ooms_total", "Times that the kernel killed in a container for lack of memory.", &m.ooms},
	} {
		family(c.name, "counter", c.help)
		fmt.Fprintf(w, "%s %d\n", c.name, c.n.Load())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	const name = "berth_container_start_seconds"
	family(name, "histogram", "How long starts of containers took.")
	for i, bound := range startBounds {
		fmt.Fprintf(w, "%s_bucket{le=\"%g\"} %d\n", name, bound.Seconds(), m.buckets[i])
	}
	fmt.Fprintf(w, "%s_bucket{le=\"+Inf\"} %d\n%s_sum %g\n%s_count %d\n", name, m.count, name, m.sum.Seconds(), name, m.count)
}
