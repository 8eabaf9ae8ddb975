package engine

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"berth/internal/engine/filter"
	"berth/internal/engine/images"
	"berth/internal/engine/images/imagestest"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
	api "github.com/moby/moby/api/types/image"
)

// importImage makes an image that differs from others in what its layer holds.
func (b *bench) importImage(ref, content string, changes ...string) string {
	b.t.Helper()
	var out bytes.Buffer
	if err := b.ImageImport(b.t.Context(), images.ImportOptions{Ref: ref, Changes: changes}, bytes.NewReader(imagestest.OneFile(b.t, "file", content)), &out); err != nil {
		b.t.Fatal(err)
	}
	img, err := b.ImageInspect(b.t.Context(), ref, images.InspectOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return img.ID
}

// list returns the names that a list of images shows, in order.
func (b *bench) list(o images.ListOptions) []string {
	b.t.Helper()
	all, err := b.ImageList(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	names := []string{}
	for _, i := range all {
		names = append(names, strings.Join(i.RepoTags, "+"))
	}
	slices.Sort(names)
	return names
}

func filters(pairs ...string) filter.Set {
	f := filter.Set{}
	for i := 0; i < len(pairs); i += 2 {
		f.Add(pairs[i], pairs[i+1])
	}
	return f
}

// heard collects the events of images until the test asks for them.
func (b *bench) heard() func() []string {
	b.t.Helper()
	return imagestest.Heard(b.t, &b.bus)
}

func TestPruneDoesWhatItsPlanSays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.importImage("used:1", strings.Repeat("u", 9000))
	b.create("user", func(r *container.CreateRequest) { r.Config.Image = "used:1"; r.Config.Cmd = []string{"x"} })
	b.importImage("idle:1", strings.Repeat("i", 20000), "LABEL spare=no")
	if err := b.ImageTag(t.Context(), "idle:1", "idle:2"); err != nil {
		t.Fatal(err)
	}
	b.importImage("spared:1", "s", "LABEL spare=yes")
	b.importImage("moved:1", strings.Repeat("m", 50000))
	b.importImage("moved:1", "n")

	reasons := func(list []PlanItem) string {
		var out []string
		for _, p := range list {
			out = append(out, strings.Join(p.Names, "+")+": "+p.Reason)
		}
		slices.Sort(out)
		return strings.Join(out, "\n")
	}
	for _, c := range []struct {
		f     filter.Set
		space uint64
		keep  []string // fragments, one for each kept image
		left  []string
	}{
		{nil, 57344, []string{"idle:1+idle:2: it has a tag", "image:latest: it has a tag", "moved:1: it has a tag", "spared:1: it has a tag", "used:1: used by container"},
			[]string{"idle:1+idle:2", "image:latest", "moved:1", "spared:1", "used:1"}},
		{filters("dangling", "false", "until", "1h"), 0, []string{"idle:1+idle:2: it is newer", "image", "moved", "spared", "used"}, []string{"idle:1+idle:2", "image:latest", "moved:1", "spared:1", "used:1"}},
		{filters("dangling", "false", "label!", "spare=yes", "label", "spare"), 24576,
			[]string{"image:latest: it has not the labels", "moved:1: it has not", "spared:1: it has the labels that the filter spares", "used:1: used"},
			[]string{"image:latest", "moved:1", "spared:1", "used:1"}},
	} {
		plan, err := b.ImagePrune(t.Context(), ImagePruneOptions{Filters: c.f, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		kept := strings.Split(reasons(plan.Keep), "\n")
		for i, want := range c.keep {
			if i >= len(kept) || !strings.HasPrefix(kept[i], want) {
				t.Errorf("%v keeps\n%s\nwant %q", c.f, strings.Join(kept, "\n"), c.keep)
				break
			}
		}
		heard := b.heard()
		done, err := b.ImagePrune(t.Context(), ImagePruneOptions{Filters: c.f})
		if err != nil {
			t.Fatal(err)
		}
		if done.SpaceReclaimed != plan.SpaceReclaimed || plan.SpaceReclaimed&^4095 != c.space || !slices.Equal(deleted(done.ImagesDeleted), deleted(plan.ImagesDeleted)) {
			t.Errorf("%v: did %d %v, planned %d %v, want %d bytes", c.f, done.SpaceReclaimed, done.ImagesDeleted, plan.SpaceReclaimed, plan.ImagesDeleted, c.space)
		}
		if got := heard(); len(got) == 0 || !strings.HasPrefix(got[len(got)-1], "prune ") {
			t.Errorf("%v: events %q end without that of the prune", c.f, got)
		}
		if left := b.list(images.ListOptions{All: true}); !slices.Equal(left, c.left) {
			t.Errorf("%v leaves %q, want %q", c.f, left, c.left)
		}
	}
	for _, bad := range []filter.Set{filters("reference", "a"), filters("dangling", "x"), filters("until", "x")} {
		if _, err := b.ImagePrune(t.Context(), ImagePruneOptions{Filters: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func deleted(list []api.DeleteResponse) []string {
	var out []string
	for _, d := range list {
		if d.Untagged != "" {
			out = append(out, "untagged "+d.Untagged)
		} else if strings.HasPrefix(d.Deleted, "sha256:") {
			out = append(out, "deleted")
		}
	}
	return slices.Compact(out)
}
