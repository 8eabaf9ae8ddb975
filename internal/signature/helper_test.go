package signature

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/signature/cosign"
)

// store is a registry's repository in memory.
type store struct {
	manifests map[string][]byte
	blobs     map[digest.Digest][]byte
	referrers []ocispec.Descriptor
	failing   error // what every request answers, if not nil
	fetched   int
}

func newStore() *store {
	return &store{manifests: map[string][]byte{}, blobs: map[digest.Digest][]byte{}}
}

var errMissing = fault.New(fault.NotFound, "get", "it", "not there")

func (s *store) Manifest(_ context.Context, ref string) ([]byte, string, error) {
	s.fetched++
	if s.failing != nil {
		return nil, "", s.failing
	}
	if raw, ok := s.manifests[ref]; ok {
		return raw, cosign.MediaTypeManifest, nil
	}
	return nil, "", errMissing
}

func (s *store) Blob(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
	s.fetched++
	if raw, ok := s.blobs[d.Digest]; ok {
		return raw, nil
	}
	return nil, errMissing
}

func (s *store) Referrers(context.Context, digest.Digest, string) ([]ocispec.Descriptor, error) {
	return s.referrers, s.failing
}

// tag stores an artifact as cosign's tag.
func (s *store) tag(t testing.TB, a cosign.Artifact) {
	t.Helper()
	merged, err := cosign.Merge(s.manifests[a.Tag], a)
	if err != nil {
		t.Fatal(err)
	}
	s.manifests[merged.Tag] = merged.Manifest
	s.keep(merged.Blobs...)
}

// refer stores an artifact as a referrer.
func (s *store) refer(a cosign.Artifact, artifactType string) {
	d := digest.FromBytes(a.Manifest)
	s.manifests[d.String()] = a.Manifest
	s.keep(a.Blobs...)
	s.referrers = append(s.referrers, ocispec.Descriptor{MediaType: cosign.MediaTypeManifest, Digest: d,
		Size: int64(len(a.Manifest)), ArtifactType: artifactType})
}

func (s *store) keep(blobs ...[]byte) {
	for _, b := range blobs {
		s.blobs[digest.FromBytes(b)] = b
	}
}

// bundle stores an image's signature as cosign 3 writes it.
func (s *store) bundle(t testing.TB, key *cosign.PrivateKey, statement string) {
	t.Helper()
	kind := "application/vnd.in-toto+json"
	signed, err := key.Sign([]byte("DSSEv1 28 " + kind + " " + itoa(len(statement)) + " " + statement))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(map[string]any{"mediaType": cosign.MediaTypeBundle,
		"verificationMaterial": map[string]any{"publicKey": map[string]string{"hint": "x"}},
		"dsseEnvelope": map[string]any{"payload": base64.StdEncoding.EncodeToString([]byte(statement)), "payloadType": kind,
			"signatures": []any{map[string]string{"sig": base64.StdEncoding.EncodeToString(signed)}}}})
	s.bundleText(text)
}

func (s *store) bundleText(text []byte) {
	m, _ := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": cosign.MediaTypeManifest,
		"layers": []any{map[string]any{"mediaType": cosign.MediaTypeBundle, "digest": digest.FromBytes(text), "size": len(text)}}})
	s.refer(cosign.Artifact{Manifest: m, Blobs: [][]byte{text}}, cosign.MediaTypeBundle)
}

func itoa(n int) string {
	text, _ := json.Marshal(n)
	return string(text)
}

func key(t testing.TB, kind string) *cosign.PrivateKey {
	t.Helper()
	k, err := cosign.GenerateKey(kind)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sameKey returns a key that is the same in every process.
func sameKey(t testing.TB) *cosign.PrivateKey {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	k, err := cosign.ParsePrivateKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t testing.TB, k *cosign.PrivateKey) []byte {
	t.Helper()
	p, err := k.Public()
	if err != nil {
		t.Fatal(err)
	}
	return p.PEM()
}

func named(t testing.TB, text string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func imageDigest(text string) digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, func() []byte { s := sha256.Sum256([]byte(text)); return s[:] }())
}

func subject(d digest.Digest) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: cosign.MediaTypeManifest, Digest: d, Size: 500}
}

func signed(t testing.TB, k *cosign.PrivateKey, repository string, d digest.Digest) cosign.Artifact {
	t.Helper()
	a, err := Sign(k, named(t, repository), subject(d))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// policy parses a policy whose key files are given by name.
func policy(t testing.TB, text string, keys map[string][]byte) *Policy {
	t.Helper()
	p, err := parsePolicy("/etc/berth/policy.toml", text, keyFiles(keys))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func keyFiles(keys map[string][]byte) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if text, ok := keys[name]; ok {
			return text, nil
		}
		return nil, errors.New("no such file")
	}
}

// refused asserts that an error forbids and says all the words.
func refused(t testing.TB, err error, words ...string) {
	t.Helper()
	if !fault.Is(err, fault.Forbidden) {
		t.Errorf("got %v, want a refusal", err)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%v\ndoes not say %q", err, word)
		}
	}
}
