package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

func platform(arch string) ocispec.Platform { return ocispec.Platform{OS: "linux", Architecture: arch} }

// several is a layout with one image for three platforms, the host's second.
// One entry's image is not in it, and one is an attestation.
func several(tag string) ([]byte, [3]digest.Digest) {
	o := new(layout)
	var ids [3]digest.Digest
	var ds []ocispec.Descriptor
	for i, arch := range []string{"s390x", HostPlatform().Architecture, "riscv64"} {
		d := o.image(arch, ocispec.MediaTypeImageLayerGzip, gz, oneFile("base", "same"), oneFile("arch", arch))
		c := config(oneFile("base", "same"), oneFile("arch", arch))
		c["architecture"] = arch
		ids[i] = digest.FromBytes(mustJSON(c))
		ds = append(ds, d)
	}
	gone := new(layout).image("ppc64le", ocispec.MediaTypeImageLayer, same, oneFile("x", "y"))
	statement := o.blob("application/vnd.in-toto+json", []byte(`{"_type":"statement"}`))
	about := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{statement},
		Config: o.blob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}`))}
	about.SchemaVersion = 2
	a := o.blob(ocispec.MediaTypeImageManifest, mustJSON(about))
	a.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	a.Annotations = map[string]string{attestationType: "attestation-manifest"}
	x := o.index(append(ds, gone, a)...)
	return o.finish(named(x, containerdName, "docker.io/library/"+tag)), ids
}

func TestIndexIsOneImageForItsName(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	data, ids := several("app:v1")
	loaded := h.mustLoad(t, data)
	if len(loaded) != 1 || loaded[0] != (Loaded{"app:v1", ids[1]}) {
		t.Errorf("loaded %v", loaded)
	}
	for range 2 {
		img, err := h.Get(ctx, "app:v1")
		if err != nil || img.ID != ids[1] || img.Index == "" || img.Dangling() || !slices.Equal(img.RepoTags, []string{"app:v1"}) {
			t.Fatalf("%+v, %v", img, err)
		}
		if all, _ := h.List(ctx); len(all) != 1 || all[0].ID != ids[1] {
			t.Errorf("listed %v", all)
		}
		p := platform("riscv64")
		if img, err := h.GetPlatform(ctx, "app:v1", &p); err != nil || img.ID != ids[2] || img.RepoTags[0] != "app:v1" {
			t.Errorf("riscv64 is %v, %v", img, err)
		}
		p = platform("ppc64le")
		if _, err := h.GetPlatform(ctx, "app:v1", &p); !errors.Is(err, ErrPlatform) || !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "linux/riscv64") {
			t.Errorf("ppc64le: %v", err)
		}
		if _, err := h.GetPlatform(ctx, string(ids[0]), &p); !errors.Is(err, ErrPlatform) {
			t.Errorf("another image's platform: %v", err)
		}
		members, raw, err := h.Members(ctx, "app:v1")
		if err != nil || len(members) != 4 || digest.FromBytes(raw) != img.Index {
			t.Fatalf("%v, %v", members, err)
		}
		for i, m := range members {
			if (m.Image == nil) != (i == 3) || i < 3 && m.Image.ID != ids[i] || m.Platform.Architecture == "" {
				t.Errorf("member %d: %+v", i, m)
			}
		}
		if m, _, err := h.Members(ctx, string(ids[0])); err != nil || len(m) != 1 || m[0].Image.ID != ids[0] || m[0].Descriptor.Digest == "" {
			t.Errorf("members of an image: %+v, %v", m, err)
		}
		h.noWaste(t)
		h.close()
		h = build(t, h.root)
	}
	if err := h.Tag(ctx, "app:v1", "other:v1"); err != nil {
		t.Fatal(err)
	}
	if answer, err := h.Remove(ctx, "app:v1", RemoveOptions{}); describe(answer, err) != "Untagged app:v1" {
		t.Error(describe(answer, err))
	}
	answer, err := h.Remove(ctx, "other:v1", RemoveOptions{})
	if err != nil || len(answer) != 1+3+3+2 { // name, images, own layers and the one they share, index
		t.Errorf("%s", describe(answer, err))
	}
	h.empty(t)
}

func TestRemoveOfMembers(t *testing.T) {
	ctx := context.Background()
	running := []User{{"0123456789abcdef", true}}
	stopped := []User{{"0123456789abcdef", false}}
	for _, tc := range []struct {
		name  string
		ref   string // 0, 1, 2: ids
		tag   string // a further name: of the index, or =1 of an image
		force bool
		users []User // of image 1
		want  string
		left  string // which images are there
	}{
		{"the name", "app:v1", "", false, nil, "", ""},
		{"the id of the one that stands for it", "1", "", false, nil, "", ""},
		{"the id of another", "0", "", false, nil, "", "12"},
		{"the name, in use", "app:v1", "", false, stopped, "must force", "012"},
		{"the name, in use, forced", "app:v1", "", true, stopped, "", ""},
		{"the name, running, forced", "app:v1", "", true, running, "", "1"},
		{"the id, running", "1", "", true, running, "cannot be forced", "012"},
		{"the id, two names", "1", "more:1", false, nil, "must be forced", "012"},
		{"the id, two names, forced", "1", "more:1", true, nil, "", ""},
		{"the name, an image has its own", "app:v1", "=1", false, stopped, "", "1"},
		{"the image's own name", "own:1", "=1", false, nil, "", "012"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := build(t, t.TempDir())
			data, ids := several("app:v1")
			h.mustLoad(t, data)
			if tc.tag == "=1" {
				if err := h.Tag(ctx, string(ids[1]), "own:1"); err != nil {
					t.Fatal(err)
				}
			} else if tc.tag != "" {
				h.Tag(ctx, "app:v1", tc.tag)
			}
			ref := tc.ref
			if len(ref) == 1 {
				ref = string(ids[ref[0]-'0'])
			}
			answer, err := h.Remove(ctx, ref, RemoveOptions{Force: tc.force, InUse: func(id digest.Digest) []User {
				if id == ids[1] {
					return tc.users
				}
				return nil
			}})
			if (err == nil) != (tc.want == "") || err != nil && (!fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%s", describe(answer, err))
			}
			for range 2 {
				left := ""
				for i, id := range ids {
					if _, err := h.Get(ctx, string(id)); err == nil {
						left += fmt.Sprint(i)
					}
				}
				if left != tc.left {
					t.Errorf("left are %q, want %q: %s", left, tc.left, describe(answer, err))
				}
				h.noWaste(t)
				h.close()
				h = build(t, h.root)
			}
		})
	}
}

// TestIndexGrowsAndKeepsItsName: what is pulled of an index later joins it.
func TestIndexGrowsAndKeepsItsName(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	tag, _ := reference.WithTag(mustNamed("app"), "v1")
	var raws [][]byte
	var ds []ocispec.Descriptor
	for _, arch := range []string{HostPlatform().Architecture, "s390x"} {
		c := config(oneFile("arch", arch))
		c["architecture"] = arch
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig,
			Digest: digest.FromBytes(mustJSON(c)), Size: int64(len(mustJSON(c)))}}
		m.SchemaVersion = 2
		p := platform(arch)
		ds = append(ds, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(mustJSON(m)), Size: int64(len(mustJSON(m))), Platform: &p})
		raws = append(raws, mustJSON(c), mustJSON(m))
	}
	index := mustJSON(indexOf(ds...))
	canonical, _ := reference.WithDigest(mustNamed("app"), digest.FromBytes(index))
	register := func(i int, x *IndexMembership) digest.Digest {
		t.Helper()
		hold := h.lay.Hold()
		defer h.Release(hold)
		var c map[string]any
		json.Unmarshal(raws[2*i], &c)
		if _, err := hold.Apply(ctx, "", bytes.NewReader(oneFile("arch", c["architecture"].(string)))); err != nil {
			t.Fatal(err)
		}
		images, err := h.Register(ctx, hold, []Registration{{Config: raws[2*i], Manifests: [][]byte{raws[2*i+1]}, Index: x,
			Tags: []reference.NamedTagged{tag}, Digests: []reference.Canonical{canonical}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return images[0].ID
	}
	of := func(i int) *IndexMembership { return &IndexMembership{Raw: index, Manifest: ds[i].Digest} }
	register(0, nil) // alone at first
	if img, _ := h.Get(ctx, "app:v1"); img == nil || img.Index != "" {
		t.Fatalf("%+v", img)
	}
	mine, other := register(0, of(0)), register(1, nil) // one platform alone joins
	register(0, nil)                                    // pulled again for this machine only: it is the index's name still
	img, err := h.Get(ctx, "app:v1")
	if err != nil || img.ID != mine || img.Index != digest.FromBytes(index) || len(img.RepoDigests) != 1 {
		t.Fatalf("%+v, %v", img, err)
	}
	if img, err := h.Get(ctx, "app@"+string(digest.FromBytes(index))); err != nil || img.ID != mine {
		t.Errorf("by digest: %v, %v", img, err)
	}
	p := platform("s390x")
	if img, err := h.GetPlatform(ctx, "app:v1", &p); err != nil || img.ID != other {
		t.Errorf("%v, %v", img, err)
	}
	if m, err := h.Manifest(ctx, mine); err != nil || !bytes.Equal(m, raws[1]) {
		t.Errorf("manifest %s, %v", m, err)
	}
	if answer, err := h.Remove(ctx, "app:v1", RemoveOptions{}); err != nil {
		t.Error(describe(answer, err))
	}
	h.empty(t)
}

func mustNamed(s string) reference.Named {
	n, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		panic(err)
	}
	return reference.TrimNamed(n)
}

func TestSaveOfSeveralPlatforms(t *testing.T) {
	h := build(t, t.TempDir())
	ctx := context.Background()
	data, ids := several("app:v1")
	h.mustLoad(t, data)
	saved := h.save(t, SaveOptions{}, "app:v1")
	again := build(t, t.TempDir())
	again.mustLoad(t, saved)
	for i, arch := range []string{"s390x", HostPlatform().Architecture, "riscv64"} {
		p := platform(arch)
		if img, err := again.GetPlatform(ctx, "app:v1", &p); err != nil || img.ID != ids[i] {
			t.Errorf("%s is %v, %v", arch, img, err)
		}
	}
	if !bytes.Equal(saved, again.save(t, SaveOptions{}, "app:v1")) {
		t.Error("saved again it has other bytes")
	}
	h.mustLoad(t, saved) // an index of other manifests, and of the same images, takes the name over
	if all, _ := h.List(ctx); len(all) != 1 || len(h.images) != 4 {
		t.Errorf("%d images, %d records", len(all), len(h.images))
	}
	h.noWaste(t)
	one := h.save(t, SaveOptions{Platforms: []ocispec.Platform{platform("s390x")}}, "app:v1")
	third := build(t, t.TempDir())
	if l := third.mustLoad(t, one); len(l) != 1 || l[0] != (Loaded{"app:v1", ids[0]}) {
		t.Errorf("loaded %v", l)
	}
	err := h.Save(ctx, []string{"app:v1"}, new(bytes.Buffer), SaveOptions{Platforms: []ocispec.Platform{platform("ppc64le")}})
	if !errors.Is(err, ErrPlatform) || !fault.Is(err, fault.NotFound) {
		t.Errorf("got %v", err)
	}
	fourth := build(t, t.TempDir())
	if _, err := fourth.Load(ctx, bytes.NewReader(saved), LoadOptions{Platforms: []ocispec.Platform{platform("riscv64")}}); err != nil {
		t.Fatal(err)
	}
	if img, err := fourth.Get(ctx, "app:v1"); err != nil || img.ID != ids[2] {
		t.Errorf("%v, %v", img, err)
	}
	if all, _ := fourth.List(ctx); len(all) != 1 {
		t.Errorf("%d images", len(all))
	}
}

// TestWhatDockerWithContainerdSaves is both forms at once: the layout has the
// whole index but only the blobs of some platforms, manifest.json one image.
func TestWhatDockerWithContainerdSaves(t *testing.T) {
	ctx := context.Background()
	data, ids := several("app:v1")
	names, files := []string{}, map[string][]byte{}
	for tr := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := tr.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
		files[h.Name], _ = io.ReadAll(tr)
	}
	var mine ocispec.Manifest
	var others []string // manifests for other platforms
	for name, data := range files {
		if doc, err := ParseDocument(data, ""); err == nil && doc.Manifest != nil {
			if doc.Manifest.Config.Digest == ids[1] {
				mine = *doc.Manifest
			} else {
				others = append(others, name)
			}
		}
	}
	docker := dockerManifest{Config: blobs + ids[1].Encoded(), RepoTags: []string{"app:v1"}}
	for _, l := range mine.Layers {
		docker.Layers = append(docker.Layers, blobs+l.Digest.Encoded())
	}
	for want, missing := range map[int][]string{3: nil, 1: others} {
		b := new(tarball)
		for _, n := range names {
			if !slices.Contains(missing, n) {
				b.file(n, files[n])
			}
		}
		h := build(t, t.TempDir())
		loaded := h.mustLoad(t, b.json("manifest.json", []dockerManifest{docker}).bytes())
		if len(loaded) != 1 || loaded[0] != (Loaded{"app:v1", ids[1]}) {
			t.Errorf("loaded %v", loaded)
		}
		here := 0
		for _, id := range ids {
			if _, err := h.Get(ctx, string(id)); err == nil {
				here++
			}
		}
		if img, err := h.Get(ctx, "app:v1"); err != nil || img.ID != ids[1] || here != want || (img.Index != "") != (want > 1) {
			t.Errorf("%d images, want %d: %+v, %v", here, want, img, err)
		}
		h.noWaste(t)
	}
}
