package transfer

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
)

// answers is a registry that says one thing to everybody.
type answers struct{ status, mediaType, body string }

// RoundTrip answers without a network.
func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Status: a.status, Header: http.Header{"Content-Type": {a.mediaType}, "Link": {`</v2/x?last=` + a.mediaType + `>; rel="next"`}},
		Body: io.NopCloser(strings.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: r}, nil
}

// FuzzManifest: whatever a registry serves as a manifest, nothing but errors
// comes of it, and every digest that is accepted can be a file's name.
func FuzzManifest(f *testing.F) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{ocispec.DescriptorEmptyJSON}}
	m.SchemaVersion = 2
	m.Config.MediaType, m.Layers[0].MediaType = ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayerGzip
	m.Subject = &m.Config
	x := ocispec.Index{Manifests: []ocispec.Descriptor{m.Config}}
	x.SchemaVersion = 2
	for _, v := range []any{m, x, map[string]any{"tags": []string{"a"}}} {
		data, _ := json.Marshal(v)
		f.Add(ocispec.MediaTypeImageManifest, string(data))
		f.Add("", string(data))
	}
	f.Add("text/html", "<html>")
	store, err := content.Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	named, _ := reference.ParseNormalizedNamed("registry.example/x")
	f.Fuzz(func(t *testing.T, mediaType, body string) {
		s := &session{c: New(Config{Content: store}), name: named, action: actionPull, scopes: []string{"pull"}}
		s.endpoints = []*endpoint{{access: &Access{}, base: "https://registry.example", host: "registry.example", registry: "registry.example",
			path: "x", client: &http.Client{Transport: answers{"200 OK", mediaType, body}}}}
		check := func(all ...ocispec.Descriptor) {
			for _, d := range all {
				if content.CheckDigest(d.Digest) != nil || d.Size < 0 {
					t.Errorf("accepted %q of %d bytes", d.Digest, d.Size)
				}
			}
		}
		if doc, err := s.manifest(context.Background(), "v1"); err == nil && doc.Manifest != nil {
			check(append(doc.Manifest.Layers, doc.Manifest.Config)...)
		} else if err == nil {
			check(doc.Index.Manifests...)
		}
		if list, err := namedBlobs([]byte(body)); err == nil {
			check(list...)
		}
		if a, err := parseArtifact(Artifact{Manifest: []byte(body)}); err == nil {
			check(append(a.Layers, *a.Subject, a.Config)...)
		}
		if x, err := parseReferrers([]byte(body)); err == nil {
			check(x.Manifests...)
		}
		if _, err := s.manifest(context.Background(), digest.FromString(body+"x").String()); err == nil {
			t.Error("accepted under another digest")
		}
	})
}

func tarWriter(w io.Writer, name string, size int64) *tar.Writer {
	t := tar.NewWriter(w)
	t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size})
	return t
}
