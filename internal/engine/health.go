package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"berth/internal/container"
	"berth/internal/engine/session"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// Docker's defaults of a health check.
const (
	probeInterval      = 30 * time.Second
	probeTimeout       = 30 * time.Second
	probeStartInterval = 5 * time.Second
	probeRetries       = 3
	probeKept          = 5    // results shown by inspect
	probeOutput        = 4096 // bytes kept of one result
)

// probes are the running health checks, one goroutine each; a container without
// a check costs nothing.
type probes struct {
	mu sync.Mutex // guards by; nothing else is locked under it
	by map[string]context.CancelFunc
}

func (p *probes) init() { p.by = make(map[string]context.CancelFunc) }

// healthTest returns the command of a check, nil when there is none.
func healthTest(c *api.Config) []string {
	h := c.Healthcheck
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	switch h.Test[0] {
	case "CMD":
		return h.Test[1:]
	case "CMD-SHELL":
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(append([]string(nil), shell...), h.Test[1])
	}
	return nil
}

// initialHealth is the health of a container which has just started.
func initialHealth(c *api.Config) *api.Health {
	if healthTest(c) == nil {
		return nil
	}
	return &api.Health{Status: api.Starting, Log: []*api.HealthcheckResult{}}
}

// unhealthyAtEnd is the health of a container that has ended.
func unhealthyAtEnd(h *api.Health) *api.Health {
	n := *h
	n.Status = api.Unhealthy
	return &n
}

// start begins to check a container that has just started or was taken over.
func (p *probes) start(e *Engine, c *container.Container) {
	if healthTest(c.Record().Config) == nil {
		return
	}
	ctx, cancel := context.WithCancel(e.life)
	p.mu.Lock()
	if stop := p.by[c.ID]; stop != nil {
		stop()
	}
	p.by[c.ID] = cancel
	p.mu.Unlock()
	e.work.Go(func() { e.probeForever(ctx, c) })
}

func (p *probes) stop(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cancel := p.by[id]; cancel != nil {
		cancel()
		delete(p.by, id)
	}
}

func orDefault(d, byDefault time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return byDefault
}

// probeForever checks one run of a container at its intervals.
func (e *Engine) probeForever(ctx context.Context, c *container.Container) {
	rec := c.Record()
	h := rec.Config.Healthcheck
	starting := func() bool { return rec.State.Ran(time.Now()) < h.StartPeriod }
	timer := time.NewTimer(0)
	defer timer.Stop()
	if !timer.Stop() {
		<-timer.C
	}
	for {
		timer.Reset(e.nextProbe(c, starting()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if c.State().Status == api.StatePaused {
			continue
		}
		inStart := starting()
		result := e.probe(ctx, c, orDefault(h.Timeout, probeTimeout))
		if ctx.Err() != nil {
			return
		}
		e.judge(c, result, inStart)
	}
}

// nextProbe is the time until the next check: often while the container starts,
// at the interval afterwards.
func (e *Engine) nextProbe(c *container.Container, starting bool) time.Duration {
	rec := c.Record()
	h := rec.Config.Healthcheck
	if starting && rec.State.Health != nil && rec.State.Health.Status == api.Starting {
		return orDefault(h.StartInterval, probeStartInterval)
	}
	return orDefault(h.Interval, probeInterval)
}

// judge puts a result into the container's health and tells of a change.
func (e *Engine) judge(c *container.Container, result *api.HealthcheckResult, inStart bool) {
	retries := c.Record().Config.Healthcheck.Retries
	if retries <= 0 {
		retries = probeRetries
	}
	var before, after api.HealthStatus
	rec := c.Change(func(s *container.State) {
		if s.Health == nil || !s.Alive() {
			return
		}
		before = s.Health.Status
		h := *s.Health
		h.Log = append(append([]*api.HealthcheckResult(nil), h.Log...), result)
		if len(h.Log) > probeKept {
			h.Log = h.Log[len(h.Log)-probeKept:]
		}
		switch {
		case result.ExitCode == 0:
			h.FailingStreak, h.Status = 0, api.Healthy
		case inStart && h.Status == api.Starting:
			// Failures do not count while it starts.
		default:
			if h.FailingStreak++; h.FailingStreak >= retries {
				h.Status = api.Unhealthy
			}
		}
		after = h.Status
		s.Health = &h
	})
	if before != after {
		e.laggards.add(c) // the next engine goes on from there
		e.emit(rec, events.Action("health_status: "+string(after)), nil)
		if after == api.Unhealthy {
			e.unhealthy(c)
		}
	}
}

// probe runs the check once.
func (e *Engine) probe(ctx context.Context, c *container.Container, timeout time.Duration) *api.HealthcheckResult {
	rec := c.Record()
	result := &api.HealthcheckResult{Start: time.Now()}
	x := container.NewExec(newID(), c.ID, api.ExecCreateRequest{Cmd: healthTest(rec.Config), AttachStdout: true, AttachStderr: true})
	x.Quiet = true
	e.execs.Add(x)
	defer e.execs.Remove(x.ID)
	output, err := e.runProbe(ctx, x, rec, timeout)
	result.End = result.Start.Add(time.Since(result.Start)) // an hour's jump of the clock is no hour's check
	result.Output = output
	switch {
	case errors.Is(err, errProbeTimeout):
		result.ExitCode = -1
		result.Output = "Health check exceeded timeout (" + timeout.String() + ")" + prefixed(output)
	case err != nil:
		result.ExitCode = -1
		result.Output = err.Error()
	default:
		_, _, code := x.Status()
		if code != nil {
			result.ExitCode = *code
		}
		if pid, _, _ := x.Status(); pid == 0 { // it did not start, and its output says why
			result.ExitCode, result.Output = -1, strings.TrimSpace(output)
		}
	}
	return result
}

func prefixed(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}

var errProbeTimeout = errors.New("timeout")

// runProbe starts the check's process with its output on a socket and waits for
// its end.
func (e *Engine) runProbe(ctx context.Context, x *container.Exec, rec *container.Record, timeout time.Duration) (string, error) {
	near, far, err := session.Pair()
	if err != nil {
		return "", err
	}
	defer near.Close()
	x.Claim()
	err = e.runExec(ctx, x, rec, ExecStartOptions{}, far)
	far.Close()
	if err != nil {
		return "", err
	}
	output := make(chan string, 1)
	go func() { output <- readFrames(near) }()
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case <-x.Done():
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = errProbeTimeout
	}
	if err != nil {
		if kerr := e.monitor.SignalGroup(context.WithoutCancel(ctx), rec.ID, x.ID, int(unix.SIGKILL)); kerr != nil {
			e.log.Debug("end a health check", "container", rec.ID, "error", kerr)
		}
	}
	// A process that the check left behind may hold the other end.
	_ = near.SetReadDeadline(time.Now().Add(time.Second))
	return <-output, err
}

// readFrames returns the payload of multiplexed frames, up to what is kept of
// one result; dots stand for the rest, as in docker's.
func readFrames(r io.Reader) string {
	var out bytes.Buffer
	var head [8]byte
	var rest int64
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			break
		}
		n := int64(head[4])<<24 | int64(head[5])<<16 | int64(head[6])<<8 | int64(head[7])
		keep := min(n, int64(probeOutput-out.Len()))
		if _, err := io.CopyN(&out, r, keep); err != nil {
			break
		}
		rest += n - keep
		if _, err := io.CopyN(io.Discard, r, n-keep); err != nil {
			break
		}
	}
	if rest > 0 {
		out.WriteString("...")
	}
	return out.String()
}
