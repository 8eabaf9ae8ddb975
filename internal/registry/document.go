package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/registry/store"
)

// Media types of docker's registry, version 2 schema 2.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// mostReferences bounds the descriptors of one document.
const mostReferences = 20000

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerIndex
}

// isForeign reports whether a layer is by its type one that registries need not
// have.
func isForeign(mediaType string) bool {
	return strings.Contains(mediaType, ".nondistributable.") || strings.Contains(mediaType, ".foreign.")
}

// topLevel splits a JSON object. Names that appear twice, and names that differ
// from one we know in case only, are refused: other programs would read another
// document than we do (CVE-2021-41190 is of that kind).
func topLevel(raw []byte) (map[string]json.RawMessage, error) {
	known := []string{"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations", "fsLayers", "blobs"}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object")
	}
	fields := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		name, _ := t.(string)
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("the field %.40q is there twice", name)
		}
		for _, k := range known {
			if k != name && strings.EqualFold(k, name) {
				return nil, fmt.Errorf("the field %.40q is misspelt: %s", name, k)
			}
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		fields[name] = v
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if dec.More() {
		return nil, fmt.Errorf("something comes after the object")
	}
	return fields, nil
}

// document is a manifest's fields, each read once.
type document struct {
	SchemaVersion int
	MediaType     string
	ArtifactType  string
	Config        *ocispec.Descriptor
	Layers        []ocispec.Descriptor
	Manifests     []ocispec.Descriptor
	Subject       *ocispec.Descriptor
	Annotations   map[string]string
}

// parseManifest reads a document of the given type ("" if the client did not
// say) and checks it; problems are MANIFEST_INVALID.
func parseManifest(raw []byte, contentType string) (store.Manifest, error) {
	m, err := readManifest(raw, contentType)
	if err != nil {
		return m, fail(http.StatusBadRequest, codeManifestInvalid, "%s", err)
	}
	return m, nil
}

func readManifest(raw []byte, contentType string) (store.Manifest, error) {
	var m store.Manifest
	fields, err := topLevel(raw)
	if err != nil {
		return m, err
	}
	var doc document
	for name, to := range map[string]any{
		"schemaVersion": &doc.SchemaVersion, "mediaType": &doc.MediaType, "artifactType": &doc.ArtifactType, "config": &doc.Config, "layers": &doc.Layers,
		"manifests": &doc.Manifests, "subject": &doc.Subject, "annotations": &doc.Annotations,
	} {
		if v, ok := fields[name]; ok {
			if err := json.Unmarshal(v, to); err != nil {
				return m, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	mediaType, err := documentType(doc, fields, contentType)
	if err != nil {
		return m, err
	}
	m = store.Manifest{MediaType: mediaType, Size: int64(len(raw)), ArtifactType: doc.ArtifactType}
	if isIndex(mediaType) {
		err = addMembers(&m, doc, fields)
	} else {
		err = addBlobs(&m, doc, fields)
	}
	if err == nil && doc.Subject != nil {
		if _, ok := parseDigest(doc.Subject.Digest.String()); !ok {
			return m, fmt.Errorf("subject: not a digest")
		}
		m.Subject, m.Annotations = doc.Subject.Digest, doc.Annotations
		if m.ArtifactType == "" && doc.Config != nil {
			m.ArtifactType = doc.Config.MediaType
		}
	}
	return m, err
}

// documentType decides what a document is: what the client says, what it says
// itself, and what it looks like must not contradict each other.
func documentType(doc document, fields map[string]json.RawMessage, contentType string) (string, error) {
	if doc.SchemaVersion == 1 || fields["fsLayers"] != nil {
		return "", fmt.Errorf("schema version 1 is not supported: it cannot be verified")
	}
	if doc.SchemaVersion != 2 {
		return "", fmt.Errorf("schemaVersion is not 2")
	}
	mediaType := doc.MediaType
	if contentType != "" {
		given, _, err := mime.ParseMediaType(contentType)
		if err != nil {
			return "", fmt.Errorf("the Content-Type is not one")
		}
		if mediaType != "" && given != mediaType {
			return "", fmt.Errorf("it says that it is %.80q and was sent as %.80q", mediaType, given)
		}
		mediaType = given
	}
	switch mediaType {
	case ocispec.MediaTypeImageManifest, dockerManifest, ocispec.MediaTypeImageIndex, dockerIndex:
		return mediaType, nil
	case "":
		return "", fmt.Errorf("neither the Content-Type nor the document says what it is")
	}
	return "", fmt.Errorf("documents of the type %.80q are not supported", mediaType)
}

// checkDescriptor checks what points from a document to something else.
func checkDescriptor(what string, d ocispec.Descriptor) error {
	if _, ok := parseDigest(d.Digest.String()); !ok {
		return fmt.Errorf("%s: not a sha256 or sha512 digest", what)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s: the size %d is negative", what, d.Size)
	}
	return nil
}

func addBlobs(m *store.Manifest, doc document, fields map[string]json.RawMessage) error {
	if fields["manifests"] != nil {
		return fmt.Errorf("an image manifest with the field manifests is ambiguous")
	}
	if doc.Config == nil {
		return fmt.Errorf("config is missing")
	}
	if len(doc.Layers) > mostReferences {
		return fmt.Errorf("more than %d layers", mostReferences)
	}
	for i, d := range append([]ocispec.Descriptor{*doc.Config}, doc.Layers...) {
		what := "config"
		if i > 0 {
			what = fmt.Sprintf("layer %d", i-1)
		}
		if err := checkDescriptor(what, d); err != nil {
			return err
		}
		if m.Content += d.Size; m.Content < 0 {
			return fmt.Errorf("the sizes sum up to more than there can be")
		}
		if i > 0 && isForeign(d.MediaType) && len(d.URLs) > 0 {
			m.Foreign = append(m.Foreign, d.Digest)
		} else if b := (store.Blob{Digest: d.Digest, Size: d.Size}); !slices.Contains(m.Blobs[max(0, len(m.Blobs)-64):], b) {
			m.Blobs = append(m.Blobs, b)
		}
	}
	return nil
}

func addMembers(m *store.Manifest, doc document, fields map[string]json.RawMessage) error {
	for _, name := range []string{"config", "layers"} {
		if fields[name] != nil {
			return fmt.Errorf("an index with the field %s is ambiguous", name)
		}
	}
	if fields["manifests"] == nil {
		return fmt.Errorf("manifests is missing")
	}
	if len(doc.Manifests) > mostReferences {
		return fmt.Errorf("more than %d manifests", mostReferences)
	}
	for i, d := range doc.Manifests {
		if err := checkDescriptor(fmt.Sprintf("manifest %d", i), d); err != nil {
			return err
		}
		m.Manifests = append(m.Manifests, d.Digest)
	}
	return nil
}

// digestOf computes the digest of raw with the algorithm of like; sha256 when
// like is "".
func digestOf(raw []byte, like digest.Digest) digest.Digest {
	if like != "" && like.Algorithm() == digest.SHA512 {
		return digest.SHA512.FromBytes(raw)
	}
	return digest.SHA256.FromBytes(raw)
}
