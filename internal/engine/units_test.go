package engine

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/internal/container"
	"berth/internal/engine/filter"
	"berth/internal/engine/networks"
	"berth/internal/engine/session"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

func TestBackOffDoublesAndResets(t *testing.T) {
	var r restarts
	r.init()
	rec := &container.Record{ID: "x", HostConfig: &api.HostConfig{RestartPolicy: api.RestartPolicy{Name: "always"}}}
	last := time.Duration(0)
	for i := range 12 {
		d, again := r.next(rec, container.Exit{Ran: time.Second})
		if !again || (i == 0 && d != restartFirst) || (i > 0 && d != min(2*last, restartLast)) {
			t.Fatalf("restart %d after %s, then %s", i, last, d)
		}
		last = d
	}
	if last != restartLast {
		t.Errorf("the delay grew to %s", last)
	}
	if d, _ := r.next(rec, container.Exit{Ran: restartReset}); d != restartFirst {
		t.Errorf("after a long run: %s", d)
	}
	rec.State.StoppedByHand = true
	if _, again := r.next(rec, container.Exit{}); again {
		t.Error("restarted although it was stopped by hand")
	}
}

func TestPolicies(t *testing.T) {
	for _, tt := range []struct {
		policy   api.RestartPolicy
		code, n  int
		restarts bool
	}{
		{api.RestartPolicy{}, 1, 0, false},
		{api.RestartPolicy{Name: "no"}, 1, 0, false},
		{api.RestartPolicy{Name: "always"}, 0, 99, true},
		{api.RestartPolicy{Name: "unless-stopped"}, 0, 99, true},
		{api.RestartPolicy{Name: "on-failure"}, 0, 0, false},
		{api.RestartPolicy{Name: "on-failure"}, 1, 99, true},
		{api.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}, 1, 1, true},
		{api.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}, 1, 2, false},
	} {
		if got := policyWants(tt.policy, tt.code, tt.n); got != tt.restarts {
			t.Errorf("%+v", tt)
		}
	}
}

func TestEventFilters(t *testing.T) {
	m := &events.Message{Type: "container", Action: "exec_create: sh -c x", Scope: "local",
		Actor: events.Actor{ID: "abcdef", Attributes: map[string]string{"image": "reg:5000/web:1", "name": "shop", "tier": "front"}}}
	for in, want := range map[string]bool{
		`{}`: true, `{"type":{"container":true}}`: true, `{"type":{"image":true}}`: false,
		`{"event":{"exec_create":true}}`: true, `{"event":{"start":true,"exec_create: sh -c x":true}}`: true, `{"event":{"start":true}}`: false,
		`{"container":{"shop":true}}`: true, `{"container":{"abc":true}}`: true, `{"container":{"db":true}}`: false,
		`{"image":{"reg:5000/web":true}}`: true, `{"image":{"reg:5000/web:1":true}}`: true, `{"image":{"web":true}}`: false,
		`{"label":{"tier=front":true}}`: true, `{"label":{"tier=back":true}}`: false, `{"volume":{"shop":true}}`: false,
		`{"scope":{"local":true}}`: true, `{"scope":{"swarm":true}}`: false,
	} {
		f, err := filter.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := eventMatches(f, m); got != want {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func TestListFiltersWithoutOtherRooms(t *testing.T) {
	port := network.MustParsePort("80/tcp")
	rec := &container.Record{ID: "abc", Name: "web-1", Config: &api.Config{
		Labels: map[string]string{"k": "v"}, ExposedPorts: network.PortSet{port: {}},
	}, HostConfig: &api.HostConfig{NetworkMode: "container:x"}, State: container.State{Status: "exited", ExitCode: 3}}
	e := &Engine{containers: container.NewIndex(), nets: new(networks.Set)}
	for in, want := range map[string]bool{
		`{}`:                               true,
		`{"name":{"web":true}}`:            true,
		`{"name":{"^/web-1$":true}}`:       true,
		`{"name":{"^web-1$":true}}`:        true,
		`{"name":{"^/web$":true}}`:         false,
		`{"name":{"we[":true}}`:            false,
		`{"id":{"ab":true}}`:               true,
		`{"id":{"bc":true}}`:               false,
		`{"label":{"k":true}}`:             true,
		`{"label":{"k=w":true}}`:           false,
		`{"status":{"exited":true}}`:       true,
		`{"status":{"running":true}}`:      false,
		`{"exited":{"3":true}}`:            true,
		`{"exited":{"0":true}}`:            false,
		`{"health":{"none":true}}`:         true,
		`{"health":{"healthy":true}}`:      false,
		`{"expose":{"80":true}}`:           true,
		`{"expose":{"79-81/tcp":true}}`:    true,
		`{"expose":{"80/udp":true}}`:       false,
		`{"publish":{"80":true}}`:          false,
		`{"volume":{"data":true}}`:         false,
		`{"network":{"container:x":true}}`: true,
	} {
		f, err := filter.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		sel, err := e.newSelection(ListOptions{All: true, Filters: f})
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if _, got := sel.take(rec); got != want {
			t.Errorf("%s: %v", in, got)
		}
	}
	for _, in := range []string{`{"wat":{"x":true}}`, `{"exited":{"x":true}}`, `{"status":{"x":true}}`, `{"health":{"x":true}}`, `{"publish":{"x":true}}`} {
		f, _ := filter.Parse(in)
		if _, err := e.newSelection(ListOptions{Filters: f}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", in, err)
		}
	}
	f, _ := filter.Parse(`{"before":{"nope":true}}`)
	if _, err := e.newSelection(ListOptions{Filters: f}); !fault.Is(err, fault.NotFound) {
		t.Errorf("before a container that does not exist: %v", err)
	}
}

func TestTheSecondEngineIsRefusedByName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lockRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockRoot(path)
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "the engine with pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v", err)
	}
	first.Close()
	again, err := lockRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestReadFramesKeepsTheBeginning(t *testing.T) {
	var b bytes.Buffer
	for _, text := range []string{"one\n", strings.Repeat("x", probeOutput), "last"} {
		if _, err := (session.Frames{To: &b, Stream: 1}).Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	got := readFrames(&b)
	if len(got) != probeOutput+len("...") || !strings.HasPrefix(got, "one\nxxx") || !strings.HasSuffix(got, "x...") {
		t.Errorf("%d bytes: %.10q", len(got), got)
	}
}

func TestHealthTest(t *testing.T) {
	check := func(test, shell []string) []string {
		return healthTest(&api.Config{Shell: shell, Healthcheck: &api.HealthConfig{Test: test}})
	}
	if got := check([]string{"CMD", "a", "b"}, nil); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%v", got)
	}
	if got := check([]string{"CMD-SHELL", "a b"}, nil); !slices.Equal(got, []string{"/bin/sh", "-c", "a b"}) {
		t.Errorf("%v", got)
	}
	if got := check([]string{"CMD-SHELL", "a b"}, []string{"/bin/bash", "-ec"}); !slices.Equal(got, []string{"/bin/bash", "-ec", "a b"}) {
		t.Errorf("%v", got)
	}
	if check([]string{"NONE"}, nil) != nil || healthTest(&api.Config{}) != nil {
		t.Error("a check where there is none")
	}
}

func TestJudgeCountsFailuresAfterTheStart(t *testing.T) {
	e := &Engine{}
	c := container.New(&container.Record{ID: "x", Config: &api.Config{Healthcheck: &api.HealthConfig{Retries: 2}},
		State: container.State{Status: "running", Health: &api.Health{Status: api.Starting}}})
	result := func(code int) *api.HealthcheckResult { return &api.HealthcheckResult{ExitCode: code} }
	step := func(code int, inStart bool, want api.HealthStatus, streak int) {
		t.Helper()
		e.judge(c, result(code), inStart)
		if h := c.State().Health; h.Status != want || h.FailingStreak != streak {
			t.Errorf("after %d: %s with streak %d", code, h.Status, h.FailingStreak)
		}
	}
	step(1, true, api.Starting, 0)
	step(1, false, api.Starting, 1)
	step(1, false, api.Unhealthy, 2)
	step(0, false, api.Healthy, 0)
	step(1, true, api.Healthy, 1) // once healthy, the start is over
	for range 9 {
		e.judge(c, result(0), false)
	}
	if n := len(c.State().Health.Log); n != probeKept {
		t.Errorf("%d results are kept", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := map[events.Action]bool{}
	sub := e.bus.Subscribe(ctx, time.Unix(1, 0), time.Now(), nil)
	for m := range sub {
		seen[m.Action] = true
	}
	if !seen["health_status: unhealthy"] || !seen["health_status: healthy"] {
		t.Errorf("events: %v", seen)
	}
}
