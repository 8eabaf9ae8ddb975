package reclaim

import (
	"strings"
	"testing"
	"time"

	"berth/internal/build/solve"
	"berth/internal/container"
	"berth/internal/engine/images"
	"berth/internal/image"

	"github.com/opencontainers/go-digest"
)

func TestWhatGoesFirst(t *testing.T) {
	t.Parallel()
	now := time.Unix(100_000, 0)
	id := func(name string) digest.Digest { return digest.FromString(name) }
	b := &budget{uses: uses{stock: &images.Stock{Containers: container.NewIndex()},
		last: map[digest.Digest]time.Time{id("used"): now.Add(-time.Hour), id("fresh"): now.Add(-time.Second)}}}
	plan := &imagePlan{}
	for name, tagged := range map[string]time.Duration{"used": 50 * time.Hour, "fresh": 50 * time.Hour, "old": 5 * time.Hour, "pulled": time.Minute} {
		plan.remove = append(plan.remove, &image.Image{ID: id(name), LastTagged: now.Add(-tagged)})
	}
	cache := []solve.Item{{ID: "ancient", LastUsed: now.Add(-100 * time.Hour), Size: 5}, {ID: "between", LastUsed: now.Add(-2 * time.Hour)},
		{ID: "running", LastUsed: now.Add(-100 * time.Hour), InUse: true}, {ID: "shared", LastUsed: now.Add(-100 * time.Hour), Shared: true}}
	var got []string
	for _, it := range b.candidates(plan, cache, now.Add(-10*time.Minute)) {
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
