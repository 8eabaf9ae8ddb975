package cosign

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"berth/internal/fault"
)

// Media types and names of the layout (cosign's SIGNATURE_SPEC.md).
const (
	MediaTypeManifest  = "application/vnd.oci.image.manifest.v1+json"
	MediaTypePayload   = "application/vnd.dev.cosign.simplesigning.v1+json"
	MediaTypeBundle    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	ArtifactType       = "application/vnd.dev.cosign.artifact.sig.v1+json"
	annotation         = "dev.cosignproject.cosign/signature"
	mediaTypeConfig    = "application/vnd.oci.image.config.v1+json"
	mediaTypeDockerOld = "application/vnd.docker.distribution.manifest.v2+json"
	bundlePrefix       = "application/vnd.dev.sigstore.bundle"
)

// Bounds on what one signature manifest may hold.
const (
	maxManifest  = 4 << 20
	maxLayers    = 128
	maxSignature = 4 << 10
)

// Descriptor names a blob or a manifest.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// manifest is an OCI image manifest.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	ArtifactType  string       `json:"artifactType,omitempty"`
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"`
	Subject       *Descriptor  `json:"subject,omitempty"`
}

// Artifact is a signature ready to be sent to a registry: the manifest, and the
// blobs that it names, which must be there first.
type Artifact struct {
	Manifest []byte
	Blobs    [][]byte
	Tag      string // for registries and tools without referrers
}

// Sign makes the signature of an image. subject names the image's manifest or
// index as the registry has it; reference is its repository.
func Sign(key *PrivateKey, reference string, subject Descriptor) (Artifact, error) {
	payload, err := Payload(reference, subject.Digest)
	if err != nil {
		return Artifact{}, err
	}
	signed, err := key.Sign(payload)
	if err != nil {
		return Artifact{}, fault.New(fault.Internal, "sign", reference, "%w", err)
	}
	layer := describe(MediaTypePayload, payload)
	layer.Annotations = map[string]string{annotation: base64.StdEncoding.EncodeToString(signed)}
	config := configOf([]Descriptor{layer})
	m := manifest{SchemaVersion: 2, MediaType: MediaTypeManifest, ArtifactType: ArtifactType,
		Config: describe(mediaTypeConfig, config), Layers: []Descriptor{layer}}
	if subject.MediaType != "" && subject.Size > 0 {
		m.Subject = &Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return Artifact{}, fault.New(fault.Internal, "sign", reference, "%w", err)
	}
	return Artifact{Manifest: text, Blobs: [][]byte{config, payload}, Tag: Tag(subject.Digest)}, nil
}

// configOf returns the image configuration that cosign puts beside signatures,
// one diffID for each.
func configOf(layers []Descriptor) []byte {
	ids := make([]string, len(layers))
	for i := range layers {
		ids[i] = layers[i].Digest
	}
	text, _ := json.Marshal(map[string]any{"architecture": "", "os": "", "config": struct{}{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": ids}}) // plain values always encode
	return text
}

// Merge adds the signatures of a newly made artifact to those that the tag
// already carries, as cosign does: a tag holds one manifest with all of them.
// existing may be nil.
func Merge(existing []byte, added Artifact) (Artifact, error) {
	if existing == nil {
		return added, nil
	}
	var before, after manifest
	if err := json.Unmarshal(existing, &before); err != nil || len(existing) > maxManifest {
		return Artifact{}, fault.New(fault.Invalid, "read signatures", added.Tag, "they are malformed")
	}
	if err := json.Unmarshal(added.Manifest, &after); err != nil {
		return Artifact{}, fault.New(fault.Invalid, "read signature", "", "%w", err)
	}
	for _, layer := range after.Layers {
		if !holds(before.Layers, layer) {
			before.Layers = append(before.Layers, layer)
		}
	}
	if len(before.Layers) > maxLayers {
		return Artifact{}, fault.New(fault.Exhausted, "sign", added.Tag, "it carries %d signatures already", maxLayers)
	}
	config := configOf(before.Layers)
	after.Layers, after.Config = before.Layers, describe(mediaTypeConfig, config)
	text, err := json.Marshal(after)
	if err != nil {
		return Artifact{}, fault.New(fault.Internal, "merge signatures", added.Tag, "%w", err)
	}
	return Artifact{Manifest: text, Blobs: append([][]byte{config}, added.Blobs...), Tag: added.Tag}, nil
}

func holds(layers []Descriptor, one Descriptor) bool {
	for _, layer := range layers {
		if layer.Digest == one.Digest && layer.Annotations[annotation] == one.Annotations[annotation] {
			return true
		}
	}
	return false
}

func describe(mediaType string, content []byte) Descriptor {
	return Descriptor{MediaType: mediaType, Digest: Digest(content), Size: int64(len(content))}
}

// Digest returns the SHA-256 of content as algorithm:hex.
func Digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Entry is one signature that a manifest carries, not verified yet.
type Entry struct {
	Blob      Descriptor // of the payload, or of the bundle
	Signature []byte     // nil for a bundle, which holds its own
}

// ParseManifest returns the signatures that a manifest carries. Layers of other
// kinds are passed over; a signature that cannot be read is an error.
func ParseManifest(raw []byte) ([]Entry, error) {
	var m manifest
	if len(raw) > maxManifest {
		return nil, fault.New(fault.Invalid, "read signatures", "", "the manifest has more than %d bytes", maxManifest)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fault.New(fault.Invalid, "read signatures", "", "the manifest is malformed: %w", err)
	}
	if m.MediaType != "" && m.MediaType != MediaTypeManifest && m.MediaType != mediaTypeDockerOld {
		return nil, fault.New(fault.Invalid, "read signatures", "", "a manifest of the type %q carries none", m.MediaType)
	}
	if len(m.Layers) > maxLayers {
		return nil, fault.New(fault.Invalid, "read signatures", "", "the manifest has %d layers, more than %d", len(m.Layers), maxLayers)
	}
	var entries []Entry
	for _, layer := range m.Layers {
		entry, ours, err := parseLayer(layer)
		if err != nil {
			return nil, fault.New(fault.Invalid, "read signatures", "", "%w", err)
		}
		if ours {
			entries = append(entries, entry)
		}
	}
	return entries, nil
}

func parseLayer(layer Descriptor) (entry Entry, ours bool, err error) {
	switch {
	case layer.MediaType == MediaTypePayload:
		encoded := layer.Annotations[annotation]
		if encoded == "" || len(encoded) > maxSignature {
			return entry, false, fmt.Errorf("a payload comes without a signature of sensible length")
		}
		if entry.Signature, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return entry, false, fmt.Errorf("a signature is not base64")
		}
	case layer.MediaType == MediaTypeBundle:
	case strings.HasPrefix(layer.MediaType, bundlePrefix):
		return entry, false, fmt.Errorf("bundles of the form %q are not offered, only %s", layer.MediaType, MediaTypeBundle)
	default:
		return entry, false, nil
	}
	if layer.Size < 0 || layer.Size > MaxPayload {
		return entry, false, fmt.Errorf("a payload of %d bytes is more than the %d that are accepted", layer.Size, MaxPayload)
	}
	entry.Blob = layer
	return entry, true, nil
}

// IsSignature reports whether a referrer of this artifact type is a signature in
// one of the forms read here, or in a form of the same family that is not.
func IsSignature(artifactType string) bool {
	return artifactType == ArtifactType || artifactType == MediaTypePayload || strings.HasPrefix(artifactType, bundlePrefix)
}
