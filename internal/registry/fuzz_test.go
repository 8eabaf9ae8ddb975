package registry

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"regexp"
)

var specName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
var specTag = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

func FuzzNames(f *testing.F) {
	for _, s := range []string{"a", "a/b", "a--b", "a__b", "a_b", "a.b", "a._b", "a/../b", "a-/b", "a_-b", "0", "a___b", "-", "a/", "/a", "ä"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := validName(s), len(s) <= longestName && specName.MatchString(s) && !strings.HasSuffix(s, "\n"); got != want {
			t.Errorf("name %q: %v, the specification says %v", s, got, want)
		}
		if got, want := validTag(s), specTag.MatchString(s) && !strings.HasSuffix(s, "\n"); got != want {
			t.Errorf("tag %q: %v, the specification says %v", s, got, want)
		}
		if d, ok := parseDigest(s); ok && digest.Digest(s).Validate() != nil {
			t.Errorf("digest %q was accepted as %q", s, d)
		}
		if x := parsePath("/v2/" + s); x.route != routeNone && validName(x.repo) && strings.Contains(x.repo, "..") {
			t.Errorf("%q: %+v", s, x)
		}
	})
}

func FuzzChunkRanges(f *testing.F) {
	for _, s := range []string{"0-0", "5-9", "bytes 0-4/10", "-5", "9-5", "0-9223372036854775807", "0x1-2", "1-2-3", "+1-2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		start, end, ok := parseChunk(s)
		if ok && (start < 0 || end < start || end-start+1 <= 0) {
			t.Errorf("%q: %d-%d", s, start, end)
		}
	})
}

func FuzzManifests(f *testing.F) {
	d := digest.FromString("x").String()
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"a","digest":"`+d+`","size":1},"layers":[]}`), ocispec.MediaTypeImageManifest)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"`+d+`","size":1}],"subject":{"digest":"`+d+`","size":1}}`), ocispec.MediaTypeImageIndex)
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[]}`), "")
	f.Fuzz(func(t *testing.T, raw []byte, kind string) {
		m, err := readManifest(raw, kind)
		if err != nil {
			return
		}
		// What we understood is what any JSON parser understands.
		var doc map[string]json.RawMessage
		if json.Unmarshal(raw, &doc) != nil {
			t.Fatalf("accepted what is no JSON: %q", raw)
		}
		for _, b := range m.Blobs {
			if _, ok := parseDigest(b.Digest.String()); !ok || b.Size < 0 {
				t.Errorf("blob %+v", b)
			}
		}
		for _, x := range append(m.Manifests, m.Foreign...) {
			if _, ok := parseDigest(x.String()); !ok {
				t.Errorf("digest %q", x)
			}
		}
		if _, both := doc["layers"]; both && doc["manifests"] != nil {
			t.Error("layers and manifests")
		}
	})
}
