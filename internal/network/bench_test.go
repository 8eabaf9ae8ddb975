package network

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// The benchmarks report medians: the machines are noisy.
type samples []time.Duration

func (s *samples) time(f func()) {
	t := time.Now()
	f()
	*s = append(*s, time.Since(t))
}

func (s samples) report(b *testing.B, name string) {
	slices.Sort(s)
	b.ReportMetric(float64(s[len(s)/2].Nanoseconds())/1000, name+"-us")
}

func BenchmarkAttach(b *testing.B) {
	if !onTestHost(b) {
		return
	}
	cfg := testConfig(b)
	cfg.Logger = nil
	cfg.PoolSize = 4
	m := startManager(b, cfg)
	ctx := context.Background()
	var plain, detach, tcp, detachTCP, both, udp, none, build, bare samples
	kinds := []struct {
		attach, detach *samples
		ports          []Port
	}{
		{&plain, &detach, nil},
		{&tcp, &detachTCP, []Port{{ContainerPort: 80, HostPort: 8080}}},
		{&both, new(samples), []Port{{ContainerPort: 80, HostPort: 8080}, {ContainerPort: 81, HostPort: 8081}, {ContainerPort: 82, HostPort: 8082}}},
		{&udp, new(samples), []Port{{ContainerPort: 80, HostPort: 8080, Proto: "udp"}}},
	}
	for range b.N {
		for _, k := range kinds {
			m.bridged.waitFull()
			k.attach.time(func() {
				if _, err := m.Attach(ctx, "x", Request{Ports: k.ports}); err != nil {
					b.Fatal(err)
				}
			})
			k.detach.time(func() { _ = m.Detach(ctx, "x") })
		}
		m.bare.waitFull()
		none.time(func() { _, _ = m.NewSandbox(ctx, "x") })
		_ = m.Detach(ctx, "x")
		var s *sandbox
		build.time(func() { s, _ = m.buildBridged(identity{}) })
		m.reaper.discard(s)
		bare.time(func() { s, _ = m.buildBare() })
		m.reaper.discard(s)
	}
	plain.report(b, "attach")
	detach.report(b, "detach")
	tcp.report(b, "attach-1port")
	detachTCP.report(b, "detach-1port")
	both.report(b, "attach-3ports")
	udp.report(b, "attach-udp")
	none.report(b, "none")
	build.report(b, "refill")
	bare.report(b, "refill-bare")
}

// BenchmarkAdopt measures the start of an engine with 200 containers.
func BenchmarkAdopt(b *testing.B) {
	if !onTestHost(b) {
		return
	}
	cfg := testConfig(b)
	cfg.Logger = nil
	cfg.PoolSize = -1
	m := startManager(b, cfg)
	var live []string
	for i := range 200 {
		id := fmt.Sprint("c", i)
		c := attach(b, m, id, Port{ContainerPort: 80})
		p := exec.Command("sleep", "1000")
		must(b, c.do(p.Start))
		b.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
		c.leave()
		live = append(live, id)
	}
	m.Close()
	var all, closing samples
	for range 10 {
		all.time(func() { m = startManager(b, cfg, live...) })
		closing.time(m.Close)
	}
	all.report(b, "adopt200")
	closing.report(b, "close200")
}

// BenchmarkBurst measures 200 starts, 8 at a time, against the pool.
func BenchmarkBurst(b *testing.B) {
	if !onTestHost(b) {
		return
	}
	cfg := testConfig(b)
	cfg.Logger = nil
	cfg.PoolSize = 0
	m := startManager(b, cfg)
	m.bridged.waitFull()
	ctx := context.Background()
	var each samples
	begin := time.Now()
	sem := make(chan struct{}, 8)
	took := make(chan time.Duration, 200)
	for i := range 200 {
		sem <- struct{}{}
		go func() {
			t := time.Now()
			_, _ = m.Attach(ctx, fmt.Sprint("c", i), Request{})
			took <- time.Since(t)
			<-sem
		}()
	}
	for range 200 {
		each = append(each, <-took)
	}
	b.ReportMetric(float64(time.Since(begin).Milliseconds()), "burst200-ms")
	each.report(b, "attach")
	begin = time.Now()
	for i := range 200 {
		_ = m.Detach(ctx, fmt.Sprint("c", i))
	}
	b.ReportMetric(float64(time.Since(begin).Milliseconds()), "detach200-ms")
	begin = time.Now()
	m.Close()
	b.ReportMetric(float64(time.Since(begin).Milliseconds()), "close-ms")
}
