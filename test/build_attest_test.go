package test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// statement is the part of an in-toto statement that a policy looks at first.
type statement struct {
	PredicateType string
	Subject       []struct{ Digest map[string]string }
	Predicate     struct {
		BuildDefinition struct {
			ResolvedDependencies []struct {
				URI    string
				Digest map[string]string
			}
			ExternalParameters struct {
				Request struct{ Args map[string]string }
			}
		}
	}
}

// attested returns what is said of an image of an index at a registry.
func (h *host) attested(name string, x ocispec.Index, d digest.Digest) (s statement) {
	h.t.Helper()
	repository := name[:strings.LastIndex(name, ":")]
	i := slices.IndexFunc(x.Manifests, func(m ocispec.Descriptor) bool { return m.Annotations["vnd.docker.reference.digest"] == d.String() })
	if i < 0 || x.Manifests[i].Platform.OS != "unknown" || x.Manifests[i].Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
		h.t.Fatalf("nothing is said of %s in %+v", d, x)
	}
	var m ocispec.Manifest
	h.atRegistry(repository+"@"+x.Manifests[i].Digest.String(), &m)
	var config ocispec.Image
	if err := json.Unmarshal(h.blobAt(repository, m.Config.Digest), &config); err != nil || config.OS != "unknown" || !slices.Equal(config.RootFS.DiffIDs, []digest.Digest{m.Layers[0].Digest}) {
		h.t.Errorf("the attestation's configuration is %+v, %v", config, err)
	}
	if err := json.Unmarshal(h.blobAt(repository, m.Layers[0].Digest), &s); err != nil {
		h.t.Fatal(err)
	}
	if s.PredicateType != m.Layers[0].Annotations["in-toto.io/predicate-type"] {
		h.t.Errorf("the annotation says %v, the statement %s", m.Layers[0].Annotations, s.PredicateType)
	}
	return s
}

func (h *host) blobAt(repository string, d digest.Digest) []byte {
	h.t.Helper()
	address, path, _ := strings.Cut(repository, "/")
	o := execute(h.t, h.within("busybox", "wget", "-qO", "-", "http://"+address+"/v2/"+path+"/blobs/"+d.String()))
	if digest.FromString(o.stdout) != d {
		h.t.Fatalf("blob %s: %s", d, o.stderr)
	}
	return []byte(o.stdout)
}

// What an image was made of is at the registry beside it, names the image by the
// digest that it has there, and stays with it through an archive.
func TestProvenanceGoesAlong(t *testing.T) {
	t.Parallel()
	h, registries := newPlatforms(t)
	base := registries[1] + "/base:1"
	h.build("-t", base, "--push", h.context("base", map[string]string{"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "x"}))
	var m ocispec.Manifest
	there := h.atRegistry(base, &m)
	dir := h.context("app", map[string]string{"Dockerfile": "FROM " + base + "\nARG TOKEN\nCOPY f /g\n", "f": "y"})
	for _, registry := range registries {
		name := registry + "/app:1"
		h.build("-t", name, "--provenance=mode=max", "--build-arg", "TOKEN=hush", "--annotation", "index:a=b", "--push", "--metadata-file", h.path("m"), dir)
		h.build("--platform", "linux/amd64", "-t", registry+"/app:2", "--attest", "type=provenance,mode=min,version=v0.2", "--build-arg", "TOKEN=hush", "--push", dir)
		check := func(name, when string) {
			t.Helper()
			var x ocispec.Index
			h.atRegistry(name, &x)
			if len(x.Manifests) != 2 || x.Annotations["a"] != "b" {
				t.Fatalf("%s: the index is %+v", when, x)
			}
			s := h.attested(name, x, x.Manifests[0].Digest)
			deps := s.Predicate.BuildDefinition.ResolvedDependencies
			if len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != x.Manifests[0].Digest.Encoded() {
				t.Errorf("%s: the subject is %+v, the image %s", when, s.Subject, x.Manifests[0].Digest)
			}
			if len(deps) != 1 || deps[0].Digest["sha256"] != there.Encoded() || !strings.HasPrefix(deps[0].URI, "pkg:docker/"+registries[1]+"/base@1?platform=linux%2Famd64") {
				t.Errorf("%s: it was made of %+v, the base is %s", when, deps, there)
			}
			if got := s.Predicate.BuildDefinition.ExternalParameters.Request.Args["build-arg:TOKEN"]; got != "hush" {
				t.Errorf("%s: the argument is %q", when, got)
			}
		}
		check(name, "pushed")
		h.berth("save", "-o", h.path("a.tar"), name)
		h.berth("rmi", name)
		h.berth("load", "-i", h.path("a.tar"))
		h.berth("tag", name, registry+"/app:3")
		h.berth("push", registry+"/app:3")
		check(registry+"/app:3", "loaded and pushed")

		var x ocispec.Index
		h.atRegistry(registry+"/app:2", &x)
		if s := h.attested(registry+"/app:2", x, x.Manifests[0].Digest); s.PredicateType != "https://slsa.dev/provenance/v0.2" {
			t.Errorf("it is of type %s", s.PredicateType)
		}
		if id := h.berth("create", name, "/x"); h.fileOf(id, "/g") != "y" {
			t.Error("the image is another")
		}
		both := registry + "/app:both"
		h.build("--platform", "linux/amd64,linux/arm64", "-t", both, "--provenance=true", "--push", h.path("base"))
		if h.atRegistry(both, &x); len(x.Manifests) != 4 {
			t.Fatalf("of two platforms: %+v", x)
		}
		for _, m := range x.Manifests[:2] {
			if s := h.attested(both, x, m.Digest); s.Subject[0].Digest["sha256"] != m.Digest.Encoded() {
				t.Errorf("of %s it says %+v", m.Digest, s.Subject)
			}
		}
	}
	for _, bad := range [][]string{{"--provenance=mode=full of holes"}, {"--attest", "type=vsa"}, {"--attest", "mode=min"}, {"--sbom=true"},
		{"--attest", "type=provenance,colour=red"}, {"--provenance=mode=max", "-o", h.path("out")}, {"--annotation", "a=b", "-o", h.path("out")}} {
		if o := h.run(append([]string{"build", dir}, bad...)...); o.code == 0 || len(o.stderr) < 20 {
			t.Errorf("%q: code %d %s", bad, o.code, o.stderr)
		}
	}
	h.build("--provenance=false", "--sbom=false", "-t", "plain", dir)
}
