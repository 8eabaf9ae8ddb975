package registry

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// metrics are counted here and written in Prometheus' text format (0.0.4) by
// hand. The client library for it would bring protocol buffers, a dozen modules
// and a megabyte of memory at start, for a format of three kinds of lines.
type metrics struct {
	started  time.Time
	inFlight atomic.Int64
	sent     atomic.Int64
	received atomic.Int64
	refused  atomic.Int64

	blobs, mounts, manifests atomic.Int64

	gcRuns, gcFailed, gcManifests, gcBlobs, gcFreed atomic.Int64
	gcLast                                          atomic.Int64 // unix seconds

	mu       sync.Mutex // guards requests
	requests map[series]*histogram
}

// series is one combination of labels; the values come from closed sets.
type series struct {
	route, method string
	status        int
}

// bounds are the upper ends of the buckets for durations, in seconds.
var bounds = []float64{0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60}

type histogram struct {
	buckets [9]int64
	count   int64
	sum     float64
}

func newMetrics() *metrics {
	return &metrics{started: time.Now(), requests: map[series]*histogram{}}
}

func (m *metrics) begin() { m.inFlight.Add(1) }

func (m *metrics) end(req *request, took time.Duration) {
	m.inFlight.Add(-1)
	m.sent.Add(req.w.bytes)
	m.received.Add(req.body.bytes)
	method := req.Method
	if !slices.Contains(methods[req.route], method) && method != http.MethodOptions {
		method = "other"
	}
	key := series{req.route, method, req.w.status}
	seconds := took.Seconds()
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.requests[key]
	if h == nil {
		h = &histogram{}
		m.requests[key] = h
	}
	i, _ := slices.BinarySearch(bounds, seconds)
	h.buckets[i]++
	h.count++
	h.sum += seconds
}

func (r *Registry) serveMetrics(req *request) error {
	var b bytes.Buffer
	m := r.metrics
	one := func(kind, name, help string, v int64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s %d\n", name, help, name, kind, name, v)
	}
	one("gauge", "berth_registry_requests_in_flight", "Requests being served.", m.inFlight.Load())
	one("counter", "berth_registry_sent_bytes_total", "Bytes of bodies sent.", m.sent.Load())
	one("counter", "berth_registry_received_bytes_total", "Bytes of bodies received.", m.received.Load())
	one("counter", "berth_registry_refused_total", "Requests refused for want of credentials or rights.", m.refused.Load())
	one("counter", "berth_registry_blobs_pushed_total", "Blobs taken or mounted.", m.blobs.Load())
	one("counter", "berth_registry_blobs_mounted_total", "Blobs mounted from another repository.", m.mounts.Load())
	one("counter", "berth_registry_manifests_pushed_total", "Manifests taken.", m.manifests.Load())
	one("gauge", "berth_registry_uploads_unfinished", "Uploads begun and not finished.", int64(r.uploads.count()))
	one("counter", "berth_registry_gc_runs_total", "Garbage collections.", m.gcRuns.Load())
	one("counter", "berth_registry_gc_failures_total", "Garbage collections that met an error.", m.gcFailed.Load())
	one("counter", "berth_registry_gc_manifests_total", "Manifests that collections deleted.", m.gcManifests.Load())
	one("counter", "berth_registry_gc_blobs_total", "Blobs that collections unlinked.", m.gcBlobs.Load())
	one("counter", "berth_registry_gc_freed_bytes_total", "Bytes that collections freed.", m.gcFreed.Load())
	one("gauge", "berth_registry_gc_last_timestamp_seconds", "When the last collection ended.", m.gcLast.Load())
	if r.cache != nil {
		c := r.cache.Counts()
		one("counter", "berth_registry_cache_hits_total", "Blobs and manifests served from the cache.", c.Hits)
		one("counter", "berth_registry_cache_misses_total", "Blobs and manifests fetched from the upstream.", c.Misses)
		one("counter", "berth_registry_cache_fetched_bytes_total", "Bytes fetched from the upstream.", c.Fetched)
		one("counter", "berth_registry_cache_evicted_bytes_total", "Bytes that went for want of room.", c.Evicted)
		one("counter", "berth_registry_cache_errors_total", "Requests to the upstream that failed.", c.Errors)
		one("gauge", "berth_registry_cache_bytes", "Bytes in the cache.", c.Size)
	}
	m.write(&b)
	one("gauge", "process_start_time_seconds", "When the process began.", m.started.Unix())
	one("gauge", "process_resident_memory_bytes", "Resident memory.", residentMemory())
	h := req.w.Header()
	h.Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	req.w.WriteHeader(http.StatusOK)
	_, _ = req.w.Write(b.Bytes())
	return nil
}

// write writes the durations of requests.
func (m *metrics) write(b *bytes.Buffer) {
	const name = "berth_registry_request_duration_seconds"
	fmt.Fprintf(b, "# HELP %s How long requests took.\n# TYPE %s histogram\n", name, name)
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := make([]series, 0, len(m.requests))
	for k := range m.requests {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b series) int {
		return strings.Compare(fmt.Sprint(a.route, a.method, a.status), fmt.Sprint(b.route, b.method, b.status))
	})
	for _, k := range keys {
		h := m.requests[k]
		labels := fmt.Sprintf(`route=%q,method=%q,code="%d"`, k.route, k.method, k.status)
		var sum int64
		for i, end := range bounds {
			sum += h.buckets[i]
			fmt.Fprintf(b, "%s_bucket{%s,le=\"%g\"} %d\n", name, labels, end, sum)
		}
		fmt.Fprintf(b, "%s_bucket{%s,le=\"+Inf\"} %d\n%s_sum{%s} %g\n%s_count{%s} %d\n", name, labels, h.count, name, labels, h.sum, name, labels, h.count)
	}
}

// residentMemory reads the process's own; 0 where that cannot be told.
func residentMemory() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	if f := strings.Fields(string(text)); len(f) > 1 {
		pages, _ := strconv.ParseInt(f[1], 10, 64)
		return pages * int64(os.Getpagesize())
	}
	return 0
}
