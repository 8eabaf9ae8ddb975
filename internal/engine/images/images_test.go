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
		{imagestest.Filters("dangling", "true"), []string{""}},
		{imagestest.Filters("dangling", "false"), all[1:]},
		{imagestest.Filters("reference", "a"), []string{"a:1+a:alias"}},
		{imagestest.Filters("reference", "a:al*"), []string{"a:alias"}},
		{imagestest.Filters("reference", "reg.io/*/b"), []string{"reg.io/team/b:2"}},
		{imagestest.Filters("reference", "nothing"), nil},
		{imagestest.Filters("label", "tier"), []string{"a:1+a:alias", "reg.io/team/b:2"}},
		{imagestest.Filters("label", "tier=back", "label", "x"), []string{"reg.io/team/b:2"}},
		{imagestest.Filters("before", "reg.io/team/b:2"), []string{"a:1+a:alias", "image:latest"}},
		{imagestest.Filters("since", "a:1", "dangling", "false"), []string{"old:latest", "reg.io/team/b:2"}},
		{imagestest.Filters("until", "1h"), nil},
		{imagestest.Filters("until", time.Now().Add(time.Hour).Format(time.RFC3339)), all},
	} {
		want := c.want
		if want == nil {
			want = []string{}
		}
		if got := b.Names(images.ListOptions{Filters: c.f}); !slices.Equal(got, want) {
			t.Errorf("%v: %q, want %q", c.f, got, want)
		}
	}
	for _, bad := range []filter.Set{imagestest.Filters("colour", "red"), imagestest.Filters("dangling", "maybe"), imagestest.Filters("until", "soon"), imagestest.Filters("reference", "[a"), imagestest.Filters("until", "1h", "until", "2h")} {
		if _, err := b.ImageList(t.Context(), images.ListOptions{Filters: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := b.ImageList(t.Context(), images.ListOptions{Filters: imagestest.Filters("before", "nosuch")}); !fault.Is(err, fault.NotFound) {
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
