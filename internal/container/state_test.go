package container

import (
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

func TestTransitions(t *testing.T) {
	now := time.Now()
	start := func(s State) (State, error) { return s.Running(7, now, "boot") }
	exit := func(s State) (State, error) { return s.Exited(Exit{Code: 3, At: now}) }
	restart := func(s State) (State, error) { return s.Restarting(Exit{Code: 3, At: now}) }
	steps := map[string]func(State) (State, error){
		"start": start, "exit": exit, "restart": restart, "pause": State.Paused, "resume": State.Resumed, "remove": State.Removing,
	}
	allowed := map[container.ContainerState][]string{
		container.StateCreated:    {"start", "exit", "remove"},
		container.StateRunning:    {"exit", "restart", "pause"},
		container.StatePaused:     {"start", "exit", "restart", "resume"},
		container.StateRestarting: {"start", "exit", "restart"},
		container.StateExited:     {"start", "exit", "restart", "remove"},
		container.StateRemoving:   {"remove"},
		container.StateDead:       {"remove"},
	}
	for from, list := range allowed {
		for name, step := range steps {
			want := false
			for _, a := range list {
				want = want || a == name
			}
			got, err := step(State{Status: from})
			if (err == nil) != want {
				t.Errorf("%s from %s: %v", name, from, err)
			}
			if err != nil && got.Status != from {
				t.Errorf("%s from %s failed and yet changed the state to %s", name, from, got.Status)
			}
		}
	}
}

func TestStatesKeepWhatInspectShows(t *testing.T) {
	t0 := time.Now().Add(-time.Hour)
	s := State{Status: container.StateCreated}
	s, _ = s.Running(42, t0, "b")
	if d := s.Docker(); !d.Running || d.Pid != 42 || d.ExitCode != 0 {
		t.Errorf("running: %+v", d)
	}
	s, _ = s.Exited(Exit{Code: 137, OOMKilled: true, At: t0.Add(time.Minute)})
	d := s.Docker()
	if d.Running || d.Pid != 0 || d.ExitCode != 137 || !d.OOMKilled || d.Status != "exited" {
		t.Errorf("exited: %+v", d)
	}
	if d.StartedAt != t0.UTC().Format(time.RFC3339Nano) || d.FinishedAt == d.StartedAt {
		t.Errorf("times: %+v", d)
	}
	s, _ = s.Running(43, time.Now(), "b")
	if d := s.Docker(); d.OOMKilled || d.ExitCode != 0 || d.FinishedAt != t0.Add(time.Minute).UTC().Format(time.RFC3339Nano) {
		t.Errorf("running again: %+v", d)
	}
}

func TestDescribe(t *testing.T) {
	now := time.Now()
	tests := []struct {
		state State
		want  string
	}{
		{State{Status: "created"}, "Created"},
		{State{Status: "running", StartedAt: now.Add(-3 * time.Minute)}, "Up 3 minutes"},
		{State{Status: "running", StartedAt: now}, "Up Less than a second"},
		{State{Status: "running", StartedAt: now.Add(-time.Hour), Health: &container.Health{Status: "healthy"}}, "Up About an hour (healthy)"},
		{State{Status: "running", StartedAt: now.Add(-time.Hour), Health: &container.Health{Status: "starting"}}, "Up About an hour (health: starting)"},
		{State{Status: "paused", StartedAt: now.Add(-2 * time.Second)}, "Up 2 seconds (Paused)"},
		{State{Status: "exited", FinishedAt: now.Add(-2 * time.Hour)}, "Exited (0) 2 hours ago"},
		{State{Status: "exited", ExitCode: 137, FinishedAt: now.Add(-50 * time.Hour)}, "Exited (137) 2 days ago"},
		{State{Status: "restarting", ExitCode: 1, FinishedAt: now.Add(-5 * time.Second)}, "Restarting (1) 5 seconds ago"},
		{State{Status: "removing"}, "Removal In Progress"},
		{State{Status: "dead"}, "Dead"},
	}
	for _, tt := range tests {
		if got := tt.state.Describe(now); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.state.Status, got, tt.want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for in, want := range map[string]int{
		"9": 9, "KILL": 9, "SIGKILL": 9, "sigterm": 15, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-1": 63, "64": 64,
	} {
		if got, err := ParseSignal(in); err != nil || got != want {
			t.Errorf("%s: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "65", "-1", "SIG", "NOPE", "RTMIN+31", "RTMIN-1", "RTMINx"} {
		if got, err := ParseSignal(in); err == nil {
			t.Errorf("%q is signal %d", in, got)
		}
	}
}

func FuzzParseSignal(f *testing.F) {
	f.Add("SIGTERM")
	f.Add("RTMIN+3")
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseSignal(s); err == nil && (n < 1 || n > 64) {
			t.Errorf("%q is %d", s, n)
		}
	})
}

func TestEndsAreRememberedUpToABound(t *testing.T) {
	t.Parallel()
	s := State{Status: "running"}
	for i := range 20 {
		s.Status = "running"
		var err error
		if s, err = s.Exited(Exit{Code: i, At: time.Unix(int64(i), 0)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.Ends) > 10 || s.Ends[len(s.Ends)-1].Code != 19 {
		t.Errorf("%d ends: %+v", len(s.Ends), s.Ends)
	}
	if last, ok := s.FailedStart(127, strings.Repeat("x", 3)).LastEnding(); !ok || !last.StartFailed || last.Code != 127 {
		t.Errorf("%+v", last)
	}
}
