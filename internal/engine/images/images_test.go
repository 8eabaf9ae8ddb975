package images_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"berth/internal/engine/filter"
	"berth/internal/engine/images"
	"berth/internal/engine/images/imagestest"
	"berth/internal/fault"
	"berth/internal/image"
)

// list returns the names that a list of images shows, in order.
func list(t *testing.T, b *imagestest.Bench, o images.ListOptions) []string {
	t.Helper()
	all, err := b.ImageList(t.Context(), o)
	if err != nil {
		t.Fatal(err)
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

func TestImageListFilters(t *testing.T) {
	t.Parallel()
	b := imagestest.New(t, nil)
	b.Import("image", "base")
	b.Import("a:1", "one", "LABEL tier=front")
	time.Sleep(2 * time.Millisecond) // images made in one instant have no order
	b.Import("reg.io/team/b:2", "two", "LABEL tier=back", "LABEL x=1")
	if err := b.ImageTag(t.Context(), "a:1", "a:alias"); err != nil {
		t.Fatal(err)
	}
	// A name that moves on leaves its image without one.
	b.Import("old", "three")
	b.Import("old", "four")
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
		if got := list(t, b, images.ListOptions{Filters: c.f}); !slices.Equal(got, want) {
			t.Errorf("%v: %q, want %q", c.f, got, want)
		}
	}
	for _, bad := range []filter.Set{filters("colour", "red"), filters("dangling", "maybe"), filters("until", "soon"), filters("reference", "[a"), filters("until", "1h", "until", "2h")} {
		if _, err := b.ImageList(t.Context(), images.ListOptions{Filters: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := b.ImageList(t.Context(), images.ListOptions{Filters: filters("before", "nosuch")}); !fault.Is(err, fault.NotFound) {
		t.Errorf("before an image that is not there: %v", err)
	}
}

func TestSharedSizesOfImages(t *testing.T) {
	t.Parallel()
	b := imagestest.New(t, nil)
	b.Import("image", "base")
	b.Import("a:1", strings.Repeat("x", 5000))
	b.Import("a:2", strings.Repeat("x", 5000), "ENV other=1")
	all, err := b.ImageList(t.Context(), images.ListOptions{SharedSize: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		want := int64(5000)
		if i.RepoTags[0] == "image:latest" {
			want = 0
		}
		if i.SharedSize != want {
			t.Errorf("%v shares %d bytes, want %d", i.RepoTags, i.SharedSize, want)
		}
	}
}

func TestImageEventsAreDockers(t *testing.T) {
	t.Parallel()
	b := imagestest.New(t, nil)
	b.Import("image", "base")
	heard := imagestest.Heard(t, b.Stock.Bus)
	id := b.Import("a:1", "one", "LABEL tier=front")
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

func TestInspectOfAnotherPlatform(t *testing.T) {
	t.Parallel()
	b := imagestest.New(t, nil)
	b.Import("image", "base")
	p := image.HostPlatform()
	if _, err := b.ImageInspect(t.Context(), "image", images.InspectOptions{Platform: &p}); err != nil {
		t.Error(err)
	}
	p.Architecture = "s390x"
	if _, err := b.ImageInspect(t.Context(), "image", images.InspectOptions{Platform: &p}); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "s390x") {
		t.Error(err)
	}
}
