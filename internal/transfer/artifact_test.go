package transfer

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/signature"
	"berth/internal/signature/cosign"
)

func TestDistribution(t *testing.T) {
	g := newRegistry(t)
	top, _ := g.pushIndex("all")
	_, one := g.push("one", "s390x", ociGzip, oneFile("a", "b"))
	c := New(Config{})
	got, err := c.Distribution(context.Background(), g.host+"/app:all", Auth{})
	if err != nil || got.Descriptor.Digest != top.Digest || got.Descriptor.MediaType != ocispec.MediaTypeImageIndex || got.Descriptor.Size != top.Size || len(got.Platforms) != 2 {
		t.Errorf("index: %+v, %v", got, err)
	}
	got, err = c.Distribution(context.Background(), g.host+"/app:one", Auth{})
	if err != nil || got.Descriptor.Digest != one.Digest || len(got.Platforms) != 1 || got.Platforms[0].Architecture != "s390x" {
		t.Errorf("image: %+v, %v", got, err)
	}
	if n := g.requests("/blobs/"); n != 1 {
		t.Errorf("%d blobs were fetched, want the config", n)
	}
	if _, err := c.Distribution(context.Background(), g.host+"/app:none", Auth{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a missing one: %v", err)
	}
}

// artifactOf makes an artifact about a manifest.
func artifactOf(t *testing.T, artifactType string, subject ocispec.Descriptor, text string) Artifact {
	t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType, Subject: &subject,
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{describe("text/plain", []byte(text))}}
	m.Config.Data = nil
	m.SchemaVersion = 2
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return Artifact{raw, [][]byte{[]byte("{}"), []byte(text)}}
}

// TestAttach: artifacts are found again, at registries that list referrers and
// at those that do not.
func TestAttach(t *testing.T) {
	for _, api := range []bool{true, false} {
		g := newPushRegistry(t)
		g.referrers = api
		src := newRegistry(t)
		src.push("v1", arch, ociGzip, oneFile("a", "b"))
		h := build(t, nil)
		h.pull(t, src.host+"/app:v1")
		ref := g.host + "/app:v1"
		h.tag(t, src.host+"/app:v1", ref)
		d, _ := h.push(t, ref, PushOptions{})
		subject := describe(ocispec.MediaTypeImageManifest, g.manifests[d.String()].data)
		var want []string
		for _, kind := range []string{"application/sbom", "application/notes", "application/sbom"} {
			a := artifactOf(t, kind, subject, kind+itoa(len(want)))
			got, err := h.Attach(context.Background(), ref, a, Auth{})
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, got.Digest.String())
			if again, err := h.Attach(context.Background(), ref, a, Auth{}); err != nil || again.Digest != got.Digest {
				t.Errorf("twice: %v", err)
			}
		}
		for kind, indexes := range map[string][]int{"": {0, 1, 2}, "application/sbom": {0, 2}, "application/none": {}} {
			list, err := h.Referrers(context.Background(), ref, kind, Auth{})
			var got, expected []string
			for _, r := range list {
				got = append(got, r.Digest.String())
			}
			for _, i := range indexes {
				expected = append(expected, want[i])
			}
			slices.Sort(got)
			slices.Sort(expected)
			if err != nil || !slices.Equal(got, expected) {
				t.Errorf("API %v, type %q: %v, want %v (%v)", api, kind, got, expected, err)
			}
		}
	}
}

func TestAttachRefuses(t *testing.T) {
	g := newPushRegistry(t)
	subject := describe(ocispec.MediaTypeImageManifest, []byte("x"))
	good := artifactOf(t, "a/b", subject, "text")
	for name, a := range map[string]Artifact{
		"subject that is not there": good,
		"no subject":                {[]byte(`{"schemaVersion":2,"config":{},"layers":[]}`), nil},
		"no JSON":                   {[]byte(`<`), nil},
		"another type":              {[]byte(`{"schemaVersion":2,"mediaType":"application/evil","subject":{}}`), nil},
		"digest that is a path":     {[]byte(strings.Replace(string(good.Manifest), "sha256:", "sha256:../", 1)), good.Blobs},
	} {
		if _, err := New(Config{}).Attach(context.Background(), g.host+"/app:v1", a, Auth{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if len(g.manifests) != 0 {
		t.Error("something was sent")
	}
}

// refusal is a Verifier.
type refusal struct {
	err   error
	asked []string
	src   func(context.Context, digest.Digest, signature.Source)
}

func (r *refusal) Check(ctx context.Context, named reference.Named, d digest.Digest, src signature.Source) error {
	r.asked = append(r.asked, reference.FamiliarString(named)+" "+d.String())
	if r.src != nil {
		r.src(ctx, d, src)
	}
	return r.err
}

// TestPolicyComesBeforeLayers: a refused image is not fetched.
func TestPolicyComesBeforeLayers(t *testing.T) {
	g := newRegistry(t)
	_, d := g.push("v1", arch, ociGzip, oneFile("a", "b"))
	no := &refusal{err: fault.New(fault.Forbidden, "", "", "the rule says no")}
	h := build(t, func(c *Config) { c.Policy = no })
	_, _, err := h.Pull(context.Background(), g.host+"/app:v1", Options{})
	if !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "the rule says no") {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(no.asked, []string{g.host + "/app:v1 " + d.Digest.String()}) || g.requests("/blobs/") != 0 {
		t.Errorf("asked %v; requests %v", no.asked, g.log)
	}
	h.empty(t)
}

// TestSignedImages signs with our own signer and checks with our own policy:
// two sign the same image, and each one's rule is content.
func TestSignedImages(t *testing.T) {
	for _, api := range []bool{true, false} {
		g := newPushRegistry(t)
		g.referrers = api
		src := newRegistry(t)
		src.push("v1", arch, ociGzip, oneFile("a", "b"))
		h := build(t, nil)
		h.pull(t, src.host+"/app:v1")
		ref := g.host + "/app:v1"
		h.tag(t, src.host+"/app:v1", ref)
		d, _ := h.push(t, ref, PushOptions{})
		subject := describe(ocispec.MediaTypeImageManifest, g.manifests[d.String()].data)
		named, err := reference.ParseNormalizedNamed(g.host + "/app")
		if err != nil {
			t.Fatal(err)
		}
		var houses []*house
		for range 2 {
			key, err := cosign.GenerateKey(cosign.KindP256)
			if err != nil {
				t.Fatal(err)
			}
			public, err := key.Public()
			if err != nil {
				t.Fatal(err)
			}
			policy, err := signature.WithKeys(public.PEM())
			if err != nil {
				t.Fatal(err)
			}
			strict := build(t, func(c *Config) { c.Policy = policy })
			houses = append(houses, strict)
			if _, _, err := strict.Pull(context.Background(), ref, Options{}); !fault.Is(err, fault.Forbidden) {
				t.Errorf("not signed by this one: %v", err)
			}
			a, err := signature.Sign(key, named, subject)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Attach(context.Background(), ref, Artifact{a.Manifest, a.Blobs}, Auth{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, strict := range houses {
			if _, _, err := strict.Pull(context.Background(), ref, Options{}); err != nil {
				t.Errorf("API %v, signed: %v", api, err)
			}
		}
	}
}
