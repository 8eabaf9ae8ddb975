package transfer

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/image"
)

const arch = runtime.GOARCH

func TestPullForms(t *testing.T) {
	for name, p := range map[string]packing{"OCI gzip": ociGzip, "OCI zstd": ociZstd, "OCI plain": ociPlain, "docker": dockerTwo} {
		t.Run(name, func(t *testing.T) {
			g := newRegistry(t)
			_, d := g.push("v1", arch, p, oneFile("a", "1"), oneFile("b", "2"))
			h := build(t, nil)
			img, got, err := h.Pull(context.Background(), g.host+"/team/app:v1", Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got != d.Digest || h.read(t, img, "a")+h.read(t, img, "b") != "12" {
				t.Errorf("digest %s, want %s", got, d.Digest)
			}
			if !slices.Equal(img.RepoTags, []string{g.host + "/team/app:v1"}) || !slices.Equal(img.RepoDigests, []string{g.host + "/team/app@" + d.Digest.String()}) {
				t.Errorf("names %v %v", img.RepoTags, img.RepoDigests)
			}
			// By digest, and with both.
			for _, ref := range []string{"@" + d.Digest.String(), ":v9@" + d.Digest.String()} {
				again, _, err := h.Pull(context.Background(), g.host+"/team/app"+ref, Options{})
				if err != nil || again.ID != img.ID || len(again.RepoTags) != 1 {
					t.Errorf("%s: %v, %v", ref, again, err)
				}
			}
			if n := g.requests("/blobs/"); n != 3 {
				t.Errorf("%d blobs were fetched, want 3", n)
			}
		})
	}
}

func TestPullPicksThePlatform(t *testing.T) {
	g := newRegistry(t)
	_, mine := g.push("", arch, ociGzip, oneFile("a", arch))
	_, other := g.push("", "s390x", ociGzip, oneFile("a", "s390x"))
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{other, mine}}
	x.SchemaVersion = 2
	top := g.manifest("v1", ocispec.MediaTypeImageIndex, x)
	h := build(t, nil)
	img, d, err := h.Pull(context.Background(), g.host+"/app:v1", Options{})
	if err != nil || d != top.Digest || h.read(t, img, "a") != arch {
		t.Fatalf("%v, %v", d, err)
	}
	want, _ := image.ParsePlatform("linux/s390x")
	if img, _, err = h.Pull(context.Background(), g.host+"/app:v1", Options{Platform: want}); err != nil || h.read(t, img, "a") != "s390x" {
		t.Fatal(err)
	}
	for _, s := range []string{"linux/riscv64", "windows/amd64"} {
		want, _ := image.ParsePlatform(s)
		_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Platform: want})
		if !errors.Is(err, image.ErrPlatform) || !strings.Contains(err.Error(), "linux/s390x") {
			t.Errorf("%s: %v", s, err)
		}
	}
	g.push("single", "s390x", ociGzip, oneFile("a", "s390x"))
	mineOnly := image.HostPlatform()
	if _, _, err := h.Pull(context.Background(), g.host+"/app:single", Options{Platform: &mineOnly}); !errors.Is(err, image.ErrPlatform) {
		t.Errorf("a single image of another platform: %v", err)
	}
}

// TestProgress checks the messages that docker's clients make bars of.
func TestProgress(t *testing.T) {
	g := newRegistry(t)
	m, d := g.push("v1", arch, ociGzip, oneFile("a", noise(3<<20, 1)), oneFile("b", "2"))
	h := build(t, nil)
	pull := func() []string {
		t.Helper()
		var got []string
		var busy atomic.Bool
		_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{Progress: func(m jsonstream.Message) {
			if !busy.CompareAndSwap(false, true) {
				t.Error("called concurrently")
			}
			got = append(got, strings.TrimSpace(m.ID+" "+m.Status))
			busy.Store(false)
		}})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	first := pull()
	a, b := m.Layers[0].Digest.Encoded()[:12], m.Layers[1].Digest.Encoded()[:12]
	for _, want := range []string{"v1 Pulling from app", a + " Pulling fs layer", b + " Pulling fs layer", a + " Downloading", a + " Download complete",
		a + " Pull complete", b + " Pull complete", "Digest: " + d.Digest.String(), "Status: Downloaded newer image for " + g.host + "/app:v1"} {
		if !slices.Contains(first, want) {
			t.Errorf("%q is missing from %q", want, first)
		}
	}
	second := pull()
	if want := []string{"v1 Pulling from app", a + " Already exists", b + " Already exists", "Digest: " + d.Digest.String(),
		"Status: Image is up to date for " + g.host + "/app:v1"}; !slices.Equal(second, want) {
		t.Errorf("again: %q", second)
	}
}
