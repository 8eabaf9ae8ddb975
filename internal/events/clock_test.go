package events

import (
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
)

// TestAClockPutBackLosesNoEvent replays events of a machine whose clock went back
// by an hour after the third one.
func TestAClockPutBackLosesNoEvent(t *testing.T) {
	now := time.Now()
	minutes := func(n int) time.Time { return now.Add(time.Duration(n) * time.Minute) }
	var b Bus
	for _, e := range []struct {
		name string
		at   int
	}{{"a", -50}, {"b", 0}, {"c", 10}, {"d", -50}, {"e", -10}} {
		b.append(events.Message{Actor: events.Actor{ID: e.name}, TimeNano: minutes(e.at).UnixNano()})
	}
	for _, tt := range []struct {
		name         string
		since, until time.Time
		want         []string
	}{
		{"everything until now", time.Unix(1, 0), minutes(1), []string{"a", "b", "d", "e"}},
		{"from the last one seen before the jump", minutes(10), minutes(11), []string{"c", "d", "e"}},
		{"from a time before the jump when nothing happened", minutes(12), minutes(13), []string{"d", "e"}},
		{"from a time that came twice", minutes(-20), minutes(5), []string{"b", "d", "e"}},
		{"from now on", minutes(-5), minutes(-1), []string{"d", "e"}},
	} {
		live := b.Subscribe(t.Context(), tt.since, tt.until, nil)
		var got []string
		for len(got) < len(tt.want) {
			got = append(got, next(t, live).Actor.ID)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, not %v", tt.name, got, tt.want)
		}
		select {
		case m, more := <-live:
			if more {
				t.Errorf("%s: %s as well", tt.name, m.Actor.ID)
			}
		default: // its end is still to come
		}
	}
}

// TestAnEventAfterItsEndEndsASubscription though its timer was set by a clock that
// has been put forward since.
func TestAnEventAfterItsEndEndsASubscription(t *testing.T) {
	var b Bus
	ch := b.Subscribe(t.Context(), time.Time{}, time.Now().Add(time.Hour), nil)
	b.mu.Lock()
	b.append(events.Message{TimeNano: time.Now().Add(2 * time.Hour).UnixNano()})
	b.mu.Unlock()
	b.Publish("container", "start", "1", nil)
	if m, more := <-ch; more {
		t.Errorf("%+v came", m)
	}
}
