package events

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
)

func next(t *testing.T, ch <-chan events.Message) events.Message {
	t.Helper()
	select {
	case m, ok := <-ch:
		if !ok {
			t.Fatal("the subscription ended")
		}
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("no event came")
		return events.Message{}
	}
}

func TestReplayThenLive(t *testing.T) {
	var b Bus
	b.Publish("container", "create", "1", nil)
	before := time.Now()
	b.Publish("container", "start", "1", nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ch := b.Subscribe(ctx, before, time.Time{}, nil)
	live := b.Subscribe(ctx, time.Time{}, time.Time{}, nil)
	b.Publish("container", "die", "1", map[string]string{"exitCode": "0"})
	if m := next(t, ch); m.Action != "start" || m.Scope != "local" || m.TimeNano == 0 {
		t.Errorf("replayed %+v", m)
	}
	if m := next(t, ch); m.Action != "die" {
		t.Errorf("then %+v", m)
	}
	if m := next(t, live); m.Action != "die" || m.Actor.Attributes["exitCode"] != "0" {
		t.Errorf("live %+v", m)
	}
	cancel()
	for range ch {
		t.Error("an event after the end")
	}
}

func TestUntilEndsTheSubscription(t *testing.T) {
	var b Bus
	b.Publish("image", "pull", "1", nil)
	ch := b.Subscribe(context.Background(), time.Unix(1, 0), time.Now(), nil)
	if m := next(t, ch); m.Action != "pull" {
		t.Errorf("%+v", m)
	}
	if _, more := <-ch; more {
		t.Error("more than one event")
	}
}

func TestMatch(t *testing.T) {
	var b Bus
	b.Publish("image", "pull", "1", nil)
	b.Publish("container", "start", "2", nil)
	ch := b.Subscribe(context.Background(), time.Unix(1, 0), time.Now(), func(m *events.Message) bool { return m.Type == "container" })
	if m := next(t, ch); m.Actor.ID != "2" {
		t.Errorf("%+v", m)
	}
	if _, more := <-ch; more {
		t.Error("more than one event")
	}
}

func TestSlowReadersMissEventsAndHoldNobodyUp(t *testing.T) {
	var b Bus
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	slow := b.Subscribe(ctx, time.Time{}, time.Time{}, nil)
	const many = kept * 3
	for i := range many {
		b.Publish("container", "start", fmt.Sprint(i), nil) // never blocks, or the test hangs
	}
	last, count := "", 0
	for last != fmt.Sprint(many-1) {
		last = next(t, slow).Actor.ID
		count++
	}
	if count >= many {
		t.Errorf("%d events were kept for a reader that did not read", count)
	}
	if b.Readers() != 1 {
		t.Errorf("%d readers", b.Readers())
	}
	cancel()
	for range slow {
	}
	if b.Readers() != 0 {
		t.Errorf("%d readers after the end", b.Readers())
	}
}

func TestHas(t *testing.T) {
	var b Bus
	before := time.Now()
	for i := range kept + 10 {
		b.Publish("container", "start", fmt.Sprint(i), nil)
	}
	after := time.Now().Add(time.Second)
	for _, tt := range []struct {
		action events.Action
		id     string
		since  time.Time
		want   bool
	}{
		{"start", fmt.Sprint(kept + 9), before, true}, {"start", "10", before, true}, {"start", "9", before, false},
		{"die", "10", before, false}, {"start", "10", after, false},
	} {
		if got := b.Has(tt.action, tt.id, tt.since); got != tt.want {
			t.Errorf("%s of %s since %v: %v", tt.action, tt.id, tt.since, got)
		}
	}
}
