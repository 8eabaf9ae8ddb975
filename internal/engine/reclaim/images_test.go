package reclaim

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"berth/internal/container"
	"berth/internal/engine/filter"
	"berth/internal/engine/images"
	"berth/internal/engine/images/imagestest"
	"berth/internal/fault"
	"berth/internal/image"

	api "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// nobody keeps blobs beside images.
type nobody struct{}

func (nobody) Keeps(context.Context, digest.Digest) bool { return false }
func (nobody) KeepsLayer(digest.Digest) bool             { return false }

func TestPruneDoesWhatItsPlanSays(t *testing.T) {
	t.Parallel()
	b := imagestest.New(t, nil)
	pruner := NewImages(b.Stock, nobody{}, slog.New(slog.DiscardHandler))
	b.Import("image", "base")
	used := b.Import("used:1", strings.Repeat("u", 9000))
	b.Stock.Containers.Add(container.New(&container.Record{ID: "0123456789ab", ImageID: digest.Digest(used)}))
	b.Import("idle:1", strings.Repeat("i", 20000), "LABEL spare=no")
	if err := b.ImageTag(t.Context(), "idle:1", "idle:2"); err != nil {
		t.Fatal(err)
	}
	b.Import("spared:1", "s", "LABEL spare=yes")
	b.Import("moved:1", strings.Repeat("m", 50000))
	b.Import("moved:1", "n")

	reasons := func(list []Item) string {
		var out []string
		for _, p := range list {
			out = append(out, strings.Join(p.Names, "+")+": "+p.Reason)
		}
		slices.Sort(out)
		return strings.Join(out, "\n")
	}
	for _, c := range []struct {
		f     filter.Set
		space int64
		keep  []string // fragments, one for each kept image
		left  []string
	}{
		{nil, 57344, []string{"idle:1+idle:2: it has a tag", "image:latest: it has a tag", "moved:1: it has a tag", "spared:1: it has a tag", "used:1: used by container"},
			[]string{"idle:1+idle:2", "image:latest", "moved:1", "spared:1", "used:1"}},
		{imagestest.Filters("dangling", "false", "until", "1h"), 0, []string{"idle:1+idle:2: it is newer", "image", "moved", "spared", "used"}, []string{"idle:1+idle:2", "image:latest", "moved:1", "spared:1", "used:1"}},
		{imagestest.Filters("dangling", "false", "label!", "spare=yes", "label", "spare"), 24576,
			[]string{"image:latest: it has not the labels", "moved:1: it has not", "spared:1: it has the labels that the filter spares", "used:1: used"},
			[]string{"image:latest", "moved:1", "spared:1", "used:1"}},
	} {
		plan := pruner.Ahead()
		if err := pruner.PlanPrune(t.Context(), c.f, plan); err != nil {
			t.Fatal(err)
		}
		kept := strings.Split(reasons(plan.Keep), "\n")
		for i, want := range c.keep {
			if i >= len(kept) || !strings.HasPrefix(kept[i], want) {
				t.Errorf("%v keeps\n%s\nwant %q", c.f, strings.Join(kept, "\n"), c.keep)
				break
			}
		}
		known, err := b.Stock.Images.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		heard := imagestest.Heard(t, b.Stock.Bus)
		done, err := pruner.Prune(t.Context(), c.f)
		if err != nil {
			t.Fatal(err)
		}
		if done.SpaceReclaimed != uint64(plan.Freed) || plan.Freed&^4095 != c.space || !slices.Equal(deleted(done.ImagesDeleted, known), ids(plan.Remove)) {
			t.Errorf("%v: did %d %v, planned %d %v, want %d bytes", c.f, done.SpaceReclaimed, done.ImagesDeleted, plan.Freed, plan.Remove, c.space)
		}
		if got := heard(); len(got) == 0 || !strings.HasPrefix(got[len(got)-1], "prune ") {
			t.Errorf("%v: events %q end without that of the prune", c.f, got)
		}
		if left := b.Names(images.ListOptions{All: true}); !slices.Equal(left, c.left) {
			t.Errorf("%v leaves %q, want %q", c.f, left, c.left)
		}
	}
	for _, bad := range []filter.Set{imagestest.Filters("reference", "a"), imagestest.Filters("dangling", "x"), imagestest.Filters("until", "x")} {
		if _, err := pruner.Prune(t.Context(), bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// deleted lists the images that went, in order, without their layers.
func deleted(list []api.DeleteResponse, known []*image.Image) []string {
	var out []string
	for _, img := range known {
		if slices.Contains(list, api.DeleteResponse{Deleted: img.ID.String()}) {
			out = append(out, img.ID.String())
		}
	}
	slices.Sort(out)
	return out
}

func ids(list []Item) []string {
	var out []string
	for _, item := range list {
		out = append(out, item.ID)
	}
	slices.Sort(out)
	return out
}
