package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
	"berth/internal/layer"
)

func TestLoadForms(t *testing.T) {
	base, top := oneFile("who", "base"), oneFile("what", "top")
	multi := func() []byte {
		o := new(layout)
		mine := o.image(HostPlatform().Architecture, ocispec.MediaTypeImageLayerGzip, gz, base, top)
		other := o.image("s390x", ocispec.MediaTypeImageLayerGzip, gz, oneFile("who", "s390x"))
		attestation := o.blob(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{},"layers":[]}`))
		attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
		x := o.index(other, mine, attestation)
		return o.finish(named(x, containerdName, "docker.io/library/app:v1"))
	}
	oci := func(layerType string, pack func([]byte) []byte, key, name string) []byte {
		o := new(layout)
		d := o.image(HostPlatform().Architecture, layerType, pack, base, top)
		d.Platform = nil
		return o.finish(named(d, key, name))
	}
	linked := func() []byte {
		b := dockerArchive([]string{"app:v1"}, base, top)
		first := b.ents[0].h.Name
		b.link(tar.TypeSymlink, "aaaa/layer.tar", "../"+first)
		b.link(tar.TypeLink, "bbbb/layer.tar", first)
		last := b.ents[len(b.ents)-3]
		b.ents = slices.Delete(b.ents, len(b.ents)-3, len(b.ents)-2)
		last.data = bytes.ReplaceAll(last.data, []byte(first), []byte("aaaa/layer.tar"))
		return b.file("manifest.json", last.data).bytes()
	}
	first := func() []byte { // the manifest comes first
		b := dockerArchive([]string{"app:v1"}, base, top)
		slices.Reverse(b.ents)
		return b.bytes()
	}
	plain := dockerArchive([]string{"app:v1"}, base, top).bytes()
	packedInside := func() []byte {
		b := new(tarball)
		c := mustJSON(config(base, top))
		return b.file("c.json", c).file("1.tar.gz", gz(base)).file("2.tar", zst(top)).
			json("manifest.json", []map[string]any{{"Config": "c.json", "RepoTags": []string{"app:v1"}, "Layers": []string{"1.tar.gz", "2.tar"}}}).bytes()
	}
	for name, data := range map[string][]byte{
		"docker-archive":                 plain,
		"docker-archive, manifest first": first(),
		"docker-archive, gzip":           gz(plain),
		"docker-archive, zstd":           zst(plain),
		"docker-archive, packed layers":  packedInside(),
		"docker-archive, linked layers":  linked(),
		"OCI, plain layers":              oci(ocispec.MediaTypeImageLayer, same, containerdName, "docker.io/library/app:v1"),
		"OCI, gzip layers":               oci(ocispec.MediaTypeImageLayerGzip, gz, ocispec.AnnotationRefName, "app:v1"),
		"OCI, zstd layers":               oci(ocispec.MediaTypeImageLayerZstd, zst, containerdName, "app:v1"),
		"OCI, several platforms":         multi(),
		"OCI, gzip":                      gz(multi()),
		"legacy":                         legacyArchive(base, top).bytes(),
	} {
		t.Run(name, func(t *testing.T) {
			h := build(t, t.TempDir())
			loaded := h.mustLoad(t, data)
			if len(loaded) != 1 || loaded[0].Ref != "app:v1" {
				t.Fatalf("loaded %v", loaded)
			}
			img, err := h.Get(context.Background(), "app:v1")
			if err != nil {
				t.Fatal(err)
			}
			if img.ID != loaded[0].ID || img.Size != int64(len("base")+len("top")) || len(img.DiffIDs) != 2 || !slices.Equal(img.RepoTags, []string{"app:v1"}) {
				t.Errorf("image %+v", img)
			}
			if got := h.read(t, "app:v1", "who") + " " + h.read(t, "app:v1", "what"); got != "base top" {
				t.Errorf("the files say %q", got)
			}
			h.noWaste(t)

			// Loading again changes nothing; opening again finds the same.
			if again := h.mustLoad(t, data); !reflect.DeepEqual(again, loaded) {
				t.Errorf("loaded again: %v", again)
			}
			h.close()
			h = build(t, h.root)
			again, err := h.Get(context.Background(), string(img.ID))
			if err != nil || again.Config.Config.Cmd[0] != "/bin/true" || again.Size != img.Size {
				t.Errorf("after opening anew: %+v, %v", again, err)
			}
			h.noWaste(t)
		})
	}
}

// legacyArchive is what docker save wrote before 1.10.
func legacyArchive(layers ...[]byte) *tarball {
	b := new(tarball)
	parent := ""
	id := ""
	for i, l := range layers {
		id = digest.FromString(fmt.Sprint(i)).Encoded()
		v := map[string]any{"id": id, "created": "2015-01-02T03:04:05Z", "os": "linux", "architecture": HostPlatform().Architecture,
			"config": map[string]any{"Cmd": []string{"/bin/true"}}}
		if parent != "" {
			v["parent"] = parent
		}
		b.json(id+"/json", v).file(id+"/VERSION", []byte("1.0")).file(id+"/layer.tar", l)
		parent = id
	}
	return b.json("repositories", map[string]any{"app": map[string]string{"v1": id}})
}

func TestSeveralImagesOfOneArchive(t *testing.T) {
	base := oneFile("who", "base")
	o := new(layout)
	a := o.image(HostPlatform().Architecture, ocispec.MediaTypeImageLayer, same, base)
	b := o.image(HostPlatform().Architecture, ocispec.MediaTypeImageLayerGzip, gz, base, oneFile("x", "y"))
	a.Platform, b.Platform = nil, nil
	h := build(t, t.TempDir())
	loaded := h.mustLoad(t, o.finish(named(a, containerdName, "one"), named(b, ocispec.AnnotationRefName, "latest")))
	if len(loaded) != 2 || loaded[0].Ref != "one:latest" || loaded[1].Ref != "" {
		t.Errorf("loaded %v", loaded)
	}
	h.noWaste(t)
}

func TestPlatformThatIsNotThere(t *testing.T) {
	o := new(layout)
	x := o.index(o.image("s390x", ocispec.MediaTypeImageLayer, same, oneFile("a", "1")), o.image("riscv64", ocispec.MediaTypeImageLayer, same, oneFile("a", "2")))
	data := o.finish(x)
	h := build(t, t.TempDir())
	_, err := h.Load(context.Background(), bytes.NewReader(data), LoadOptions{Platforms: []ocispec.Platform{HostPlatform()}})
	if !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "linux/riscv64, linux/s390x") {
		t.Errorf("got %v", err)
	}
	h.empty(t)
	want, err := ParsePlatform("linux/s390x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Load(context.Background(), bytes.NewReader(data), LoadOptions{Platforms: []ocispec.Platform{*want}}); err != nil {
		t.Fatal(err)
	}
	h.noWaste(t)
}

// TestBadArchives: each is refused by its own error, and afterwards the store
// is as if it had never come.
func TestBadArchives(t *testing.T) {
	l := oneFile("a", "b")
	hexOf := func(data []byte) string { return digest.FromBytes(data).Encoded() }
	manifest := func(c, layers any) []map[string]any {
		return []map[string]any{{"Config": c, "RepoTags": []string{"app:v1"}, "Layers": layers}}
	}
	archive := func(c map[string]any, mutate func(*tarball)) []byte {
		b := new(tarball).file("layer.tar", l)
		b.json("c.json", c)
		mutate(b)
		return b.bytes()
	}
	good := func(b *tarball) { b.json("manifest.json", manifest("c.json", []string{"layer.tar"})) }
	bend := func(path string, v any) map[string]any {
		c := config(l)
		m := c
		keys := strings.Split(path, ".")
		for _, k := range keys[:len(keys)-1] {
			m = m[k].(map[string]any)
		}
		m[keys[len(keys)-1]] = v
		return c
	}
	oci := func(mutate func(o *layout, m *ocispec.Manifest)) []byte {
		o := new(layout)
		m := &ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
		m.SchemaVersion = 2
		m.Config = o.blob(ocispec.MediaTypeImageConfig, mustJSON(config(l)))
		m.Layers = []ocispec.Descriptor{o.blob(ocispec.MediaTypeImageLayer, l)}
		mutate(o, m)
		return o.finish(o.blob(ocispec.MediaTypeImageManifest, mustJSON(m)))
	}
	raw := func(doc string) []byte {
		o := new(layout)
		return o.finish(o.blob(ocispec.MediaTypeImageManifest, []byte(doc)))
	}
	legacy := func(mutate func(ids []string, b *tarball)) []byte {
		b := legacyArchive(l, oneFile("c", "d"))
		mutate([]string{digest.FromString("0").Encoded(), digest.FromString("1").Encoded()}, b)
		return b.bytes()
	}
	bomb := gz(oneFile("zeros", strings.Repeat("\x00", 8<<20)))
	for _, tc := range []struct {
		name string
		data []byte
		err  error
		says string // part of the message
	}{
		{"nothing", nil, ErrArchive, "manifest.json"},
		{"no archive", []byte(strings.Repeat("hello ", 200)), layer.ErrCorrupt, ""},
		{"a root file system", oneFile("etc/passwd", "root"), ErrArchive, "import"},
		{"entry above", archive(config(l), func(b *tarball) { b.file("../evil", []byte("x")); good(b) }), ErrTraversal, "../evil"},
		{"absolute entry", archive(config(l), func(b *tarball) { b.file("/etc/evil", []byte("x")); good(b) }), ErrTraversal, "/etc/evil"},
		{"config above", archive(config(l), func(b *tarball) { b.json("manifest.json", manifest("../../etc/passwd", []string{"layer.tar"})) }), ErrTraversal, "../../etc/passwd"},
		{"layer above", archive(config(l), func(b *tarball) { b.json("manifest.json", manifest("c.json", []string{"../../etc/passwd"})) }), ErrTraversal, "../../etc/passwd"},
		{"absolute layer", archive(config(l), func(b *tarball) { b.json("manifest.json", manifest("c.json", []string{"/etc/passwd"})) }), ErrTraversal, "/etc/passwd"},
		{"layer by a link out", archive(config(l), func(b *tarball) {
			b.link(tar.TypeSymlink, "x/layer.tar", "../../etc/passwd").json("manifest.json", manifest("c.json", []string{"x/layer.tar"}))
		}), ErrTraversal, "x/layer.tar"},
		{"layer by an absolute link", archive(config(l), func(b *tarball) {
			b.link(tar.TypeSymlink, "x/layer.tar", "/etc/passwd").json("manifest.json", manifest("c.json", []string{"x/layer.tar"}))
		}), ErrTraversal, "x/layer.tar"},
		{"links in a ring", archive(config(l), func(b *tarball) {
			b.link(tar.TypeSymlink, "x", "y").link(tar.TypeSymlink, "y", "x").json("manifest.json", manifest("c.json", []string{"x"}))
		}), ErrCycle, ""},
		{"config by a link to a layer", archive(config(l), func(b *tarball) {
			b.link(tar.TypeLink, "x", "layer.tar").json("manifest.json", manifest("x", []string{"layer.tar"}))
		}), ErrArchive, "x"},
		{"device", archive(config(l), func(b *tarball) { b.link(tar.TypeChar, "dev", ""); good(b) }), ErrArchive, "dev"},
		{"file twice", archive(config(l), func(b *tarball) { b.file("layer.tar", oneFile("z", "z")); good(b) }), ErrDuplicate, "layer.tar"},
		{"manifest twice", archive(config(l), func(b *tarball) { good(b); good(b) }), ErrDuplicate, "manifest.json"},
		{"manifest no JSON", archive(config(l), func(b *tarball) { b.file("manifest.json", []byte("{half")) }), ErrDocument, "manifest.json"},
		{"manifest of the wrong form", archive(config(l), func(b *tarball) { b.file("manifest.json", []byte(`{"Config":3}`)) }), ErrDocument, "manifest.json"},
		{"manifest empty", archive(config(l), func(b *tarball) { b.file("manifest.json", []byte(`[]`)) }), ErrDocument, "manifest.json"},
		{"config missing", archive(config(l), func(b *tarball) { b.json("manifest.json", manifest("gone.json", []string{"layer.tar"})) }), ErrMissing, "gone.json"},
		{"layer missing", archive(config(l), func(b *tarball) { b.json("manifest.json", manifest("c.json", []string{"gone.tar"})) }), ErrMissing, "gone.tar"},
		{"layer is a config", archive(config(l), func(b *tarball) { b.json("manifest.json", manifest("c.json", []string{"c.json"})) }), layer.ErrCorrupt, "c.json"},
		{"too few layers", archive(config(l), func(b *tarball) { b.json("manifest.json", manifest("c.json", []string{})) }), ErrDocument, "0 layers for 1"},
		{"wrong diff_id", archive(config(oneFile("other", "")), good), ErrDigest, "layer.tar"},
		{"diff_id that is a path", archive(bend("rootfs.diff_ids", []string{"sha256:../../x"}), good), nil, "diff_ids"},
		{"rootfs of another type", archive(bend("rootfs.type", "windows"), good), ErrDocument, "rootfs.type"},
		{"config of the wrong form", archive(bend("config.Cmd", 3), good), ErrDocument, "c.json"},
		{"for windows", archive(bend("os", "windows"), good), ErrPlatform, "windows"},
		{"config's name is another digest", new(tarball).file("layer.tar", l).json(hexOf(l)+".json", config(l)).json("manifest.json", manifest(hexOf(l)+".json", []string{"layer.tar"})).bytes(), ErrDigest, hexOf(l)},
		{"bad tag", archive(config(l), func(b *tarball) {
			b.json("manifest.json", []map[string]any{{"Config": "c.json", "RepoTags": []string{"UPPER:x"}, "Layers": []string{"layer.tar"}}})
		}), nil, "UPPER:x"},
		{"damaged layer", archive(config(l), func(b *tarball) {
			bad := gz(l)
			bad[len(bad)-5] ^= 0xff
			b.file("bad.tar.gz", bad).json("manifest.json", manifest("c.json", []string{"bad.tar.gz"}))
		}), layer.ErrCorrupt, "bad.tar.gz"},
		{"hostile layer", func() []byte {
			evil := oneFile("../evil", "x")
			return new(tarball).file("layer.tar", evil).json("c.json", config(evil)).json("manifest.json", manifest("c.json", []string{"layer.tar"})).bytes()
		}(), layer.ErrTraversal, "../evil"},
		{"bomb", archive(config(l), func(b *tarball) {
			b.file("bomb.tar", bomb).json("manifest.json", manifest("c.json", []string{"bomb.tar"}))
		}), layer.ErrBomb, "bomb.tar"},
		{"bomb around", gz(new(tarball).file("layer.tar", bytes.Repeat([]byte{0}, 8<<20)).bytes()), layer.ErrBomb, ""},

		{"blob of another digest", oci(func(o *layout, m *ocispec.Manifest) {
			o.file(blobs+hexOf([]byte("x")), oneFile("x", "x"))
			m.Layers[0].Digest, m.Layers[0].Size = digest.FromString("x"), int64(len(oneFile("x", "x")))
		}), ErrDigest, hexOf([]byte("x"))},
		{"config blob of another digest", oci(func(o *layout, m *ocispec.Manifest) { o.file(blobs+hexOf([]byte("x")), []byte("{}")) }), ErrDigest, hexOf([]byte("x"))},
		{"layer of wrong size", oci(func(o *layout, m *ocispec.Manifest) { m.Layers[0].Size++ }), ErrSize, hexOf(l)},
		{"config of wrong size", oci(func(o *layout, m *ocispec.Manifest) { m.Config.Size-- }), ErrSize, ""},
		{"negative size", oci(func(o *layout, m *ocispec.Manifest) { m.Layers[0].Size = -1 }), ErrSize, ""},
		{"layer missing from the layout", oci(func(o *layout, m *ocispec.Manifest) { m.Layers[0].Digest = digest.FromString("x") }), ErrMissing, ""},
		{"layer digest that is a path", oci(func(o *layout, m *ocispec.Manifest) { m.Layers[0].Digest = "sha256:../../x" }), nil, "sha256:../../x"},
		{"config digest that is a path", oci(func(o *layout, m *ocispec.Manifest) { m.Config.Digest = "sha256:../../../etc/passwd" }), nil, "etc/passwd"},
		{"unknown digest", oci(func(o *layout, m *ocispec.Manifest) { m.Layers[0].Digest = "md5:d41d8cd98f00b204e9800998ecf8427e" }), nil, "md5"},
		{"unknown layer type", oci(func(o *layout, m *ocispec.Manifest) { m.Layers[0].MediaType = "application/evil" }), ErrMediaType, "application/evil"},
		{"unknown config type", oci(func(o *layout, m *ocispec.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }), ErrMediaType, "helm"},
		{"foreign layer", oci(func(o *layout, m *ocispec.Manifest) {
			m.Layers[0].MediaType, m.Layers[0].URLs = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []string{"http://169.254.169.254/"}
		}), ErrForeignLayer, hexOf(l)},
		{"schema 1", raw(`{"schemaVersion":1,"fsLayers":[]}`), ErrMediaType, "schema 1"},
		{"no schema", raw(`{"config":{},"layers":[]}`), ErrDocument, "schemaVersion"},
		{"layers and manifests", raw(`{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`), ErrDocument, "both"},
		{"manifest that calls itself an index", raw(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`), ErrMediaType, ""},
		{"index.json that is no index", new(tarball).json("index.json", map[string]any{"schemaVersion": 2, "config": map[string]any{}}).bytes(), nil, "index.json"},
		{"empty index", new(layout).finish(), ErrDocument, "index.json"},
		{"indexes without end", func() []byte {
			o := new(layout)
			d := o.image(HostPlatform().Architecture, ocispec.MediaTypeImageLayer, same, l)
			for range maxNesting + 2 {
				d = o.index(d)
			}
			return o.finish(d)
		}(), ErrDocument, "nested"},

		{"parents in a ring", legacy(func(ids []string, b *tarball) {
			b.ents[0].data = mustJSON(map[string]any{"id": ids[0], "parent": ids[1]})
			b.ents[0].h.Size = int64(len(b.ents[0].data))
		}), ErrCycle, ""},
		{"parent that is a path", legacy(func(ids []string, b *tarball) {
			b.ents[0].data = mustJSON(map[string]any{"id": ids[0], "parent": "../../etc"})
			b.ents[0].h.Size = int64(len(b.ents[0].data))
		}), ErrDocument, "../../etc"},
		{"legacy layer missing", legacy(func(ids []string, b *tarball) { b.ents = slices.Delete(b.ents, 2, 3) }), ErrMissing, "layer.tar"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := build(t, t.TempDir())
			_, err := h.load(tc.data)
			if err == nil || tc.err != nil && !errors.Is(err, tc.err) {
				t.Fatalf("got %v, want %v", err, tc.err)
			}
			if !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%q does not say %q", err, tc.says)
			}
			if k := fault.KindOf(err); k != fault.Invalid && k != fault.Unsupported {
				t.Errorf("kind %v of %v", k, err)
			}
			h.empty(t)
		})
	}
}

func TestBadLayerOfAnotherPlatformDoesNotMatter(t *testing.T) {
	o := new(layout)
	evil := o.image("s390x", ocispec.MediaTypeImageLayer, same, oneFile("../evil", "x"))
	mine := o.image(HostPlatform().Architecture, ocispec.MediaTypeImageLayer, same, oneFile("a", "b"))
	h := build(t, t.TempDir())
	data := o.finish(named(o.index(evil, mine), containerdName, "app"))
	if _, err := h.load(data); !errors.Is(err, layer.ErrTraversal) {
		t.Errorf("all platforms: %v", err)
	}
	h.empty(t)
	if _, err := h.Load(context.Background(), bytes.NewReader(data), LoadOptions{Platforms: []ocispec.Platform{HostPlatform()}}); err != nil {
		t.Error(err)
	}
	h.noWaste(t)
}

func TestTruncatedArchives(t *testing.T) {
	plain := dockerArchive([]string{"app:v1"}, oneFile("a", strings.Repeat("a", 5000)), oneFile("b", strings.Repeat("b", 5000))).bytes()
	h := build(t, t.TempDir())
	for how, data := range map[string][]byte{"plain": plain[:len(plain)-1024], "gzip": gz(plain), "zstd": zst(plain)} {
		for i := range 16 {
			_, err := h.load(data[:len(data)*i/16])
			if k := fault.KindOf(err); err == nil || k != fault.Invalid {
				t.Errorf("%s cut at %d/16: %v", how, i, err)
			}
			h.empty(t)
		}
	}
}

func TestProgress(t *testing.T) {
	h := build(t, t.TempDir())
	data := dockerArchive([]string{"app:v1"}, oneFile("a", strings.Repeat("a", 3<<20))).bytes()
	var got []jsonstream.Message
	if _, err := h.Load(context.Background(), bytes.NewReader(data), LoadOptions{Progress: func(m jsonstream.Message) { got = append(got, m) }}); err != nil {
		t.Fatal(err)
	}
	if len(got) < 3 || got[0].Status != "Loading layer" || got[len(got)-1].Progress.Current != got[len(got)-1].Progress.Total {
		t.Errorf("got %+v", got)
	}
}

func TestFullDisk(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	if err := unix.Mount("small", root, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	h := build(t, root)
	small := dockerArchive([]string{"small:1"}, oneFile("a", "b")).bytes()
	h.mustLoad(t, small)
	free := func() uint64 {
		h.lay.Flush()
		var st unix.Statfs_t
		unix.Statfs(root, &st)
		return st.Bfree
	}
	before := free()
	noise := make([]byte, 40<<20)
	for i := range noise {
		noise[i] = byte(i * i >> 7)
	}
	_, err := h.load(dockerArchive([]string{"big:1"}, oneFile("fits", string(noise[:4<<20])), oneFile("toobig", string(noise))).bytes())
	if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "toobig") {
		t.Errorf("got %v", err)
	}
	if after := free(); after < before {
		t.Errorf("%d blocks free before, %d after", before, after)
	}
	if _, err := h.Get(context.Background(), "small:1"); err != nil {
		t.Error(err)
	}
	h.noWaste(t)
}

// TestParentsThatCannotBe: an archive's word about parents counts only where
// the histories agree, so never in a circle.
func TestParentsThatCannotBe(t *testing.T) {
	h := build(t, t.TempDir())
	l := oneFile("a", "1")
	a, b := config(l), config(l)
	b["author"] = "b"
	id := func(c any) string { return string(digest.FromBytes(mustJSON(c))) }
	h.mustLoad(t, new(tarball).file("l.tar", l).json("a.json", a).json("b.json", b).json("manifest.json", []map[string]any{
		{"Config": "a.json", "Layers": []string{"l.tar"}, "RepoTags": []string{"a:1"}, "Parent": id(b)},
		{"Config": "b.json", "Layers": []string{"l.tar"}, "RepoTags": []string{"b:1"}, "Parent": id(a)},
	}).bytes())
	for _, ref := range []string{"a:1", "b:1"} {
		if img, err := h.Get(context.Background(), ref); err != nil || img.Parent != "" {
			t.Errorf("%+v, %v", img, err)
		}
		if _, err := h.Remove(context.Background(), ref, RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
	h.empty(t)
}
