package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"berth/internal/build/solve"
	"berth/internal/container"
	"berth/internal/image"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
)

func TestWhatGoesFirst(t *testing.T) {
	t.Parallel()
	now := time.Unix(100_000, 0)
	id := func(name string) digest.Digest { return digest.FromString(name) }
	e := &Engine{containers: container.NewIndex()}
	e.budget.used = map[digest.Digest]time.Time{id("used"): now.Add(-time.Hour), id("fresh"): now.Add(-time.Second)}
	plan := &imagePlan{}
	for name, tagged := range map[string]time.Duration{"used": 50 * time.Hour, "fresh": 50 * time.Hour, "old": 5 * time.Hour, "pulled": time.Minute} {
		plan.remove = append(plan.remove, &image.Image{ID: id(name), LastTagged: now.Add(-tagged)})
	}
	cache := []solve.Item{{ID: "ancient", LastUsed: now.Add(-100 * time.Hour), Size: 5}, {ID: "between", LastUsed: now.Add(-2 * time.Hour)},
		{ID: "running", LastUsed: now.Add(-100 * time.Hour), InUse: true}, {ID: "shared", LastUsed: now.Add(-100 * time.Hour), Shared: true}}
	var got []string
	for _, it := range e.budgetPlan(plan, &account{}, cache, now.Add(-10*time.Minute)) {
		name := it.cache
		for _, n := range []string{"used", "fresh", "old", "pulled"} {
			if it.img != nil && it.img.ID == id(n) {
				name = n
			}
		}
		got = append(got, name)
	}
	if want := "ancient old between used"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestAPullTellsWhatIsToCome(t *testing.T) {
	t.Parallel()
	b := &budget{limit: 1000 << 20, wake: make(chan struct{}, 1), spends: map[*spend]struct{}{}}
	stop := make(chan struct{})
	defer close(stop)
	go func() { // stands for the loop that looks at the directory
		for {
			select {
			case <-b.wake:
				for _, done := range b.waiting() {
					close(done)
				}
			case <-stop:
				return
			}
		}
	}()
	ctx, s := b.begin(context.Background(), "pull of x")
	told := 0
	send := s.watch(ctx, func(jsonstream.Message) { told++ })
	for _, m := range []jsonstream.Message{
		{ID: "a", Status: "Downloading", Progress: &jsonstream.Progress{Current: 10, Total: 100}},
		{ID: "a", Status: "Downloading", Progress: &jsonstream.Progress{Current: 60, Total: 100}},
		{ID: "b", Status: "Downloading", Progress: &jsonstream.Progress{Total: 1000}},
		{ID: "a", Status: "Extracting", Progress: &jsonstream.Progress{Current: 1, Total: 100_000}},
	} {
		send(m)
	}
	if told != 4 || s.ahead() != 2*(40+1000) {
		t.Errorf("%d messages, %d bytes ahead", told, s.ahead())
	}
	list, ahead := b.under()
	if len(list) != 1 || ahead != s.ahead() {
		t.Errorf("%v %d", list, ahead)
	}
	s.cancel(&OverBudget{What: s.what, Limit: b.limit, Needed: 5, Kept: 6})
	err := s.end(ctx, context.Canceled)
	if err == nil || !strings.Contains(err.Error(), "pull of x does not fit into the disk budget of 1000MiB: it needs 5B and more; 6B are in use") {
		t.Errorf("%v", err)
	}
	if list, _ := b.under(); len(list) != 0 {
		t.Error("it is not over")
	}
	// Without a budget nothing happens.
	var none budget
	ctx, s = none.begin(context.Background(), "x")
	if err := s.end(ctx, context.Canceled); err != context.Canceled {
		t.Error(err)
	}
}
