package engine

import (
	"testing"
	"time"

	"berth/internal/container"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
)

// backOff is the delay after which a container was last started again.
func (b *bench) backOff(id string) time.Duration {
	b.restarts.mu.Lock()
	defer b.restarts.mu.Unlock()
	return b.restarts.delays[id]
}

// TestBackOffIsDeafToTheClock ends a container at once after each start, while the
// clock jumps: to its user it was never up for long.
func TestBackOffIsDeafToTheClock(t *testing.T) {
	b := newBench(t)
	id := b.create("web", policy("always"))
	b.start(id)
	want := restartFirst
	for i, jump := range []time.Duration{time.Hour, -2 * time.Hour, time.Hour} {
		b.monitor.jump(jump)
		b.monitor.exit(id, 1)
		b.eventually("it runs again", func() bool {
			c, err := b.ContainerInspect(t.Context(), id, false)
			return err == nil && c.State.Status == "running" && c.RestartCount == i+1
		})
		if got := b.backOff(id); got != want {
			t.Errorf("after a jump by %s: the delay is %s, not %s", jump, got, want)
		}
		want *= 2
	}
	b.monitor.handle(func(id string, _ int) { b.monitor.exit(id, 0) })
	if err := b.ContainerStop(t.Context(), id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestStartsThatFailAreNotTriedOftener the longer they fail: the last run that
// succeeded says nothing about them.
func TestStartsThatFailAreNotTriedOftener(t *testing.T) {
	b := newBench(t)
	id := b.create("web", policy("always"))
	b.start(id)
	c := b.containers.Get(id)
	c.Change(func(s *container.State) { // up for an hour
		s.StartedAt, s.StartedUp = s.StartedAt.Add(-time.Hour), s.StartedUp-time.Hour
	})
	b.monitor.fail(fault.New(fault.Unavailable, "start", id, "not now"))
	b.monitor.exit(id, 1)
	b.eventually("the first attempt has failed", func() bool { return b.backOff(id) == 2*restartFirst })
	b.eventually("it runs again", func() bool { return b.state(id).Status == "running" })
	b.monitor.handle(func(id string, _ int) { b.monitor.exit(id, 0) })
	if err := b.ContainerStop(t.Context(), id, StopOptions{}); err != nil {
		t.Fatal(err)
	}
}

// TestAnEndBeforeThePreviousOne is an end which nobody recorded and which, because
// the clock went back, seems to lie before the one that is recorded.
func TestAnEndBeforeThePreviousOne(t *testing.T) {
	b := newBench(t)
	id := b.create("web", nil)
	b.start(id)
	ended := b.wait(id, "")
	b.monitor.exit(id, 3)
	ended()
	b.monitor.jump(-time.Hour)
	b.start(id)
	b.crash()
	b.monitor.end(id, 5)
	b.open()
	if s := b.state(id); s.Status != "exited" || s.ExitCode != 5 {
		t.Errorf("%+v", s)
	}
}

// TestStartPeriodIsDeafToTheClock looks at a container that has just begun, or has
// been up for a day, when the clock has jumped.
func TestStartPeriodIsDeafToTheClock(t *testing.T) {
	for _, tt := range []struct {
		up, jump time.Duration
		want     bool
	}{{75 * time.Second, time.Hour, true}, {75 * time.Second, -time.Hour, true}, {30 * time.Minute, -time.Hour, false}} {
		s := container.State{StartedUp: container.Uptime() - tt.up, StartedAt: time.Now().Add(-tt.up - tt.jump)}
		if got := s.Ran(time.Now()) < 5*time.Minute; got != tt.want {
			t.Errorf("up for %s, clock jumped by %s: in its start period %v", tt.up, tt.jump, got)
		}
		s.Status = api.StateRunning
		if got, want := s.Describe(time.Now()), map[bool]string{true: "Up About a minute", false: "Up 30 minutes"}[tt.want]; got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}
