package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/engine/filter"
	"berth/internal/fault"
	"berth/internal/image"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	api "github.com/moby/moby/api/types/image"
)

// oneFile is the archive of one file.
func oneFile(t testing.TB, name, content string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// importImage makes an image that differs from others in what its layer holds.
func (b *bench) importImage(ref, content string, changes ...string) string {
	b.t.Helper()
	var out bytes.Buffer
	if err := b.ImageImport(b.t.Context(), ImageImportOptions{Ref: ref, Changes: changes}, bytes.NewReader(oneFile(b.t, "file", content)), &out); err != nil {
		b.t.Fatal(err)
	}
	img, err := b.ImageInspect(b.t.Context(), ref, ImageInspectOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return img.ID
}

// list returns the names that a list of images shows, in order.
func (b *bench) list(o ImageListOptions) []string {
	b.t.Helper()
	images, err := b.ImageList(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	names := []string{}
	for _, i := range images {
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

func TestImageListFilters(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.importImage("a:1", "one", "LABEL tier=front")
	time.Sleep(2 * time.Millisecond) // images made in one instant have no order
	b.importImage("reg.io/team/b:2", "two", "LABEL tier=back", "LABEL x=1")
	if err := b.ImageTag(t.Context(), "a:1", "a:alias"); err != nil {
		t.Fatal(err)
	}
	// A name that moves on leaves its image without one.
	b.importImage("old", "three")
	b.importImage("old", "four")
	all := []string{"", "a:1+a:alias", "image:latest", "old:latest", "reg.io/team/b:2"}
	for _, c := range []struct {
		f    filter.Set
		want []string
	}{
		{nil, all},
		{filters("dangling", "true"), []string{""}},
		{filters("dangling", "false"), all[1:]},
		{filters("reference", "a"), []string{"a:1+a:alias"}},
		{filters("reference", "a:al*"), []string{"a:alias"}},
		{filters("reference", "reg.io/*/b"), []string{"reg.io/team/b:2"}},
		{filters("reference", "nothing"), nil},
		{filters("label", "tier"), []string{"a:1+a:alias", "reg.io/team/b:2"}},
		{filters("label", "tier=back", "label", "x"), []string{"reg.io/team/b:2"}},
		{filters("before", "reg.io/team/b:2"), []string{"a:1+a:alias", "image:latest"}},
		{filters("since", "a:1", "dangling", "false"), []string{"old:latest", "reg.io/team/b:2"}},
		{filters("until", "1h"), nil},
		{filters("until", time.Now().Add(time.Hour).Format(time.RFC3339)), all},
	} {
		want := c.want
		if want == nil {
			want = []string{}
		}
		if got := b.list(ImageListOptions{Filters: c.f}); !slices.Equal(got, want) {
			t.Errorf("%v: %q, want %q", c.f, got, want)
		}
	}
	for _, bad := range []filter.Set{filters("colour", "red"), filters("dangling", "maybe"), filters("until", "soon"), filters("reference", "[a"), filters("until", "1h", "until", "2h")} {
		if _, err := b.ImageList(t.Context(), ImageListOptions{Filters: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := b.ImageList(t.Context(), ImageListOptions{Filters: filters("before", "nosuch")}); !fault.Is(err, fault.NotFound) {
		t.Errorf("before an image that is not there: %v", err)
	}
}

func TestSharedSizesOfImages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.importImage("a:1", strings.Repeat("x", 5000))
	b.importImage("a:2", strings.Repeat("x", 5000), "ENV other=1")
	images, err := b.ImageList(t.Context(), ImageListOptions{SharedSize: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range images {
		want := int64(5000)
		if i.RepoTags[0] == "image:latest" {
			want = 0
		}
		if i.SharedSize != want {
			t.Errorf("%v shares %d bytes, want %d", i.RepoTags, i.SharedSize, want)
		}
	}
}

// heard collects the events of images until the test asks for them.
func (b *bench) heard() func() []string {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.t.Cleanup(cancel)
	ch, err := b.Events(ctx, time.Time{}, time.Time{}, filters("type", "image"))
	if err != nil {
		b.t.Fatal(err)
	}
	return func() []string {
		b.bus.Publish(events.ImageEventType, "end", "", nil)
		var got []string
		for m := range ch {
			if m.Action == "end" {
				return got
			}
			got = append(got, string(m.Action)+" "+m.Actor.ID+" "+m.Actor.Attributes["name"]+" "+m.Actor.Attributes["tier"])
		}
		return got
	}
}

func TestImageEventsAreDockers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	heard := b.heard()
	id := b.importImage("a:1", "one", "LABEL tier=front")
	if err := b.ImageTag(t.Context(), "a:1", "reg.io/b"); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"a:1", "reg.io/b"} {
		if _, err := b.ImageRemove(t.Context(), ref, false, true); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"import " + id + " " + id + " front", "tag " + id + " a:1 front", "tag " + id + " reg.io/b:latest front",
		"untag " + id + " " + id + " front", "untag " + id + " " + id + " front", "delete " + id + " " + id + " front",
	}
	if got := heard(); !slices.Equal(got, want) {
		t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
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
		if left := b.list(ImageListOptions{All: true}); !slices.Equal(left, c.left) {
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

func TestInspectOfAnotherPlatform(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := image.HostPlatform()
	if _, err := b.ImageInspect(t.Context(), "image", ImageInspectOptions{Platform: &p}); err != nil {
		t.Error(err)
	}
	p.Architecture = "s390x"
	if _, err := b.ImageInspect(t.Context(), "image", ImageInspectOptions{Platform: &p}); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "s390x") {
		t.Error(err)
	}
}
