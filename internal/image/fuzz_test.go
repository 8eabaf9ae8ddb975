package image

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
)

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:x"}]}`), ocispec.MediaTypeImageIndex)
	f.Fuzz(func(t *testing.T, data []byte, mediaType string) {
		doc, err := ParseDocument(data, mediaType)
		any, anyErr := ParseAny(data, mediaType)
		if err == nil && (anyErr != nil || any.ArtifactType() != "") {
			t.Fatalf("a document and not any: %v, %q", anyErr, any.ArtifactType())
		}
		if anyErr == nil && any.Manifest != nil {
			for _, d := range append(any.Manifest.Layers, any.Manifest.Config) {
				if content.CheckDigest(d.Digest) != nil || d.Size < 0 {
					t.Fatalf("let through %+v", d)
				}
			}
		}
		if err == nil && (doc.Manifest == nil) == (doc.Index == nil) {
			t.Fatal("neither or both")
		}
		if err == nil && doc.Index != nil {
			Select(doc.Index, nil)
			new(archive).oneEach(doc.Index.Manifests)
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add(mustJSON(config(oneFile("a", "b"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseConfig(data); err == nil && c.OS != "linux" {
			t.Fatal(c.OS)
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"app", "app:1", "registry:5000/a/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "sha256:ab", "../x"} {
		f.Add(s)
	}
	s := &Store{images: map[digest.Digest]*state{}, tags: map[string]digest.Digest{}, digests: map[string]digest.Digest{}, refs: newReferences()}
	f.Fuzz(func(t *testing.T, ref string) {
		if _, err := s.find(ref); err == nil {
			t.Fatal("found something in nothing")
		}
		ParseName(ref)
		ParsePlatform(ref)
		if named, err := tagToGive("fuzz", ref); err == nil {
			if again, err := parseTag(named.String()); err != nil || again.String() != named.String() {
				t.Fatalf("%q became %v, %v", named, again, err)
			}
		}
		if id, tags, err := s.target(ref); err == nil {
			t.Fatal(id, tags)
		}
	})
}

func FuzzChanges(f *testing.F) {
	f.Add("ENV A=${B:-\"x\"} c='d'")
	f.Add("EXPOSE 1-65535/udp")
	f.Fuzz(func(t *testing.T, line string) { ApplyChanges(v1.DockerOCIImageConfig{}, []string{line}) })
}

// FuzzIndex looks at an index with documents within it.
func FuzzIndex(f *testing.F) {
	inner := mustJSON(indexOf(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 1}))
	f.Add(mustJSON(indexOf(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(inner), Size: int64(len(inner))})), inner)
	f.Add(inner, inner)
	f.Fuzz(func(t *testing.T, raw, document []byte) {
		members, err := parseMembers(raw, [][]byte{document, raw})
		if err != nil {
			return
		}
		if members == nil || len(members) > maxEntries {
			t.Fatalf("%d members", len(members))
		}
		for _, m := range members {
			if content.CheckDigest(m.Descriptor.Digest) != nil {
				t.Fatal(m.Descriptor.Digest)
			}
		}
	})
}

// FuzzLoad loads archives: nothing of one that is refused stays, and what is
// taken can be verified, saved and loaded again.
func FuzzLoad(f *testing.F) {
	needRoot(f)
	data, _ := several("app:v1")
	f.Add(data)
	f.Add(dockerArchive([]string{"app:v1"}, oneFile("a", "b")).bytes())
	f.Add(legacyArchive(oneFile("a", "b")).bytes())
	f.Add(gz(withHistory("app:1")))
	f.Add(legacyArchive(oneFile("a", "b"), oneFile("c", "d")).bytes())
	o := new(layout)
	f.Add(o.finish(o.index(o.image("amd64", ocispec.MediaTypeImageLayerGzip, gz, oneFile("a", "b")))))
	h := build(f, f.TempDir())
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		loaded, err := h.load(data)
		for _, l := range loaded {
			ref := l.Ref
			if ref == "" {
				ref = string(l.ID)
			}
			if err := h.Verify(ctx, ref, nil); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := h.Save(ctx, []string{ref}, &b, SaveOptions{}); err != nil {
				t.Fatal(err)
			}
			if again, err := h.load(b.Bytes()); err != nil || !slices.ContainsFunc(again, func(a Loaded) bool { return a.ID == l.ID }) {
				t.Fatalf("loaded again: %v, %v, was %v", again, err, l)
			}
		}
		if err == nil && len(loaded) == 0 || fault.Is(err, fault.Internal) {
			t.Fatalf("unclassified, or nothing: %v", err)
		}
		images, err := h.List(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range images {
			if _, err := h.Remove(ctx, string(img.ID), RemoveOptions{Force: true}); err != nil {
				t.Fatal(err)
			}
		}
		h.empty(t)
	})
}
