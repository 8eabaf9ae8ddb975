package measure

import (
	"bufio"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/container"
	"berth/internal/image"

	api "github.com/moby/moby/api/types/container"
)

// startBounds are the upper bounds of the histogram of start latencies.
var startBounds = [...]time.Duration{
	2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second,
}

// Counters count what an operator wants to see of an engine over time.
type Counters struct {
	StartFailures, Exits, OOMs, Restarts atomic.Int64

	mu      sync.Mutex // guards the histogram
	buckets [len(startBounds)]int64
	sum     time.Duration
	count   int64
}

// Census is what there is now.
type Census struct {
	Version, Commit   string
	Opened            time.Time         // when the engine was started
	Containers        []container.State //
	Images            image.Usage
	Volumes, Networks int
	EventReaders      int
}

// Started notes how long a start took.
func (m *Counters) Started(took time.Duration) {
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

// Write writes the counters and a census in the text format of Prometheus.
func (m *Counters) Write(out io.Writer, now Census) error {
	w := bufio.NewWriter(out)
	family := func(name, kind, help string) { fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind) }
	family("berth_info", "gauge", "The version of the engine; always 1.")
	fmt.Fprintf(w, "berth_info{version=%q,commit=%q} 1\n", now.Version, now.Commit)
	family("berth_start_time_seconds", "gauge", "When this engine was started, in seconds since 1970.")
	fmt.Fprintf(w, "berth_start_time_seconds %d\n", now.Opened.Unix())

	states := map[api.ContainerState]int{}
	health := map[api.HealthStatus]int{}
	for _, s := range now.Containers {
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
	family("berth_images", "gauge", "Images.")
	fmt.Fprintf(w, "berth_images %d\n", len(now.Images.Images))
	family("berth_image_layers_bytes", "gauge", "Bytes of all unpacked layers of images.")
	fmt.Fprintf(w, "berth_image_layers_bytes %d\n", now.Images.Layers)
	family("berth_image_blobs_bytes", "gauge", "Bytes of the packed blobs that images keep.")
	fmt.Fprintf(w, "berth_image_blobs_bytes %d\n", now.Images.Blobs)
	family("berth_volumes", "gauge", "Volumes.")
	fmt.Fprintf(w, "berth_volumes %d\n", now.Volumes)
	family("berth_networks", "gauge", "User-defined networks.")
	fmt.Fprintf(w, "berth_networks %d\n", now.Networks)
	family("berth_event_readers", "gauge", "Clients that listen to events.")
	fmt.Fprintf(w, "berth_event_readers %d\n", now.EventReaders)
	m.write(w, family)
	return w.Flush()
}

// write writes the counters and the histogram.
func (m *Counters) write(w io.Writer, family func(name, kind, help string)) {
	for _, c := range []struct {
		name, help string
		n          *atomic.Int64
	}{
		{"berth_container_start_failures_total", "Starts of containers that failed.", &m.StartFailures},
		{"berth_container_exits_total", "Ends of containers.", &m.Exits},
		{"berth_container_restarts_total", "Starts that a restart policy asked for.", &m.Restarts},
		{"berth_container_ooms_total", "Times that the kernel killed in a container for lack of memory.", &m.OOMs},
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
