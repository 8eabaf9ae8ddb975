package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"github.com/distribution/reference"
	api "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/signature/cosign"
)

// Distribution tells what a name means at its registry, and for which platforms
// it is, without fetching the image.
func (c *Client) Distribution(ctx context.Context, ref string, auth Auth) (api.DistributionInspect, error) {
	var out api.DistributionInspect
	s, version, err := c.at(ctx, ref, auth)
	if err != nil {
		return out, err
	}
	subject := reference.FamiliarName(s.name)
	m, err := s.fetchManifest(ctx, version)
	if err != nil {
		return out, fault.Wrap("inspect", subject, err)
	}
	doc, err := s.parse(m)
	if err != nil {
		return out, err
	}
	out.Descriptor = ocispec.Descriptor{MediaType: doc.mediaType, Digest: doc.digest, Size: int64(len(doc.raw))}
	out.Platforms = []ocispec.Platform{}
	if doc.Index != nil {
		for _, d := range doc.Index.Manifests {
			if d.Platform != nil && d.Platform.OS != "unknown" {
				out.Platforms = append(out.Platforms, *d.Platform)
			}
		}
		return out, nil
	}
	config, err := s.document(ctx, doc.Manifest.Config, image.MaxConfig)
	if err != nil {
		return out, fault.Wrap("inspect", subject, err)
	}
	var p ocispec.Platform
	if err := json.Unmarshal(config, &p); err != nil {
		return out, fault.New(fault.Invalid, "inspect", subject, "%w: the config: %w", image.ErrDocument, err)
	}
	if p.OS != "" || p.Architecture != "" {
		out.Platforms = append(out.Platforms, p)
	}
	return out, nil
}

// at opens a session for reading what ref names, and returns the tag or digest
// in it.
func (c *Client) at(ctx context.Context, ref string, auth Auth) (*session, string, error) {
	named, err := image.ParseName(ref)
	if err != nil {
		return nil, "", err
	}
	s, err := c.open(ctx, reference.TrimNamed(named), actionPull, auth)
	if err != nil {
		return nil, "", err
	}
	return s, (&pull{ref: named}).version(), nil
}

// digestOf finds out what a tag or digest means at the registry.
func (s *session) digestOf(ctx context.Context, version string) (digest.Digest, error) {
	if d := digest.Digest(version); content.CheckDigest(d) == nil {
		return d, nil
	}
	m, err := s.fetchManifest(ctx, version)
	return m.digest, err
}

// Referrers lists the artifacts (signatures, attestations, ...) that refer to
// what ref names; artifactType "" means all.
func (c *Client) Referrers(ctx context.Context, ref, artifactType string, auth Auth) ([]ocispec.Descriptor, error) {
	s, version, err := c.at(ctx, ref, auth)
	if err != nil {
		return nil, err
	}
	d, err := s.digestOf(ctx, version)
	if err == nil {
		var list []ocispec.Descriptor
		if list, err = s.referrers(ctx, d, artifactType); err == nil {
			return list, nil
		}
	}
	return nil, fault.Wrap("list referrers of", reference.FamiliarName(s.name), err)
}

// Artifact is a manifest about an image and the blobs that it names.
type Artifact struct {
	Manifest []byte
	Blobs    [][]byte
}

// Attach sends an artifact to the repository of ref. Its manifest must have a
// subject, which is at the registry. Where the registry does not keep lists of
// referrers itself, the list under the fallback tag is brought up to date. A
// signature in cosign's form is put under cosign's tag, together with those
// that are there. It returns what the artifact is called at the registry.
func (c *Client) Attach(ctx context.Context, ref string, a Artifact, auth Auth) (ocispec.Descriptor, error) {
	const op = "attach to"
	named, err := image.ParseName(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m, err := parseArtifact(a)
	if err != nil {
		return ocispec.Descriptor{}, fault.Wrap(op, reference.FamiliarString(named), err)
	}
	s, err := c.open(ctx, reference.TrimNamed(named), actionPush, auth)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := s.attach(ctx, a, m)
	return d, fault.Wrap(op, reference.FamiliarString(named), err)
}

// artifactManifest is what Attach looks at.
type artifactManifest struct {
	ocispec.Manifest
	raw []byte
}

// parseArtifact makes sure that manifest and blobs belong together.
func parseArtifact(a Artifact) (*artifactManifest, error) {
	const op = "read artifact"
	if len(a.Manifest) > image.MaxManifest {
		return nil, fault.New(fault.Invalid, op, "", "%w: more than %d bytes", image.ErrTooLarge, image.MaxManifest)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(a.Manifest, &m); err != nil {
		return nil, fault.New(fault.Invalid, op, "", "%w: %w", image.ErrDocument, err)
	}
	if m.SchemaVersion != 2 || m.MediaType != "" && m.MediaType != ocispec.MediaTypeImageManifest {
		return nil, fault.New(fault.Invalid, op, "", "%w %.100q: an artifact has an OCI manifest", image.ErrMediaType, m.MediaType)
	}
	if m.Subject == nil {
		return nil, fault.New(fault.Invalid, op, "", "%w: the manifest has no subject", image.ErrDocument)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config, *m.Subject}, m.Layers...) {
		if err := content.CheckDigest(d.Digest); err != nil {
			return nil, err
		}
		if d.Size < 0 {
			return nil, fault.New(fault.Invalid, op, d.Digest.String(), "%w: %d bytes", image.ErrSize, d.Size)
		}
	}
	return &artifactManifest{m, a.Manifest}, nil
}

func (s *session) attach(ctx context.Context, a Artifact, m *artifactManifest) (ocispec.Descriptor, error) {
	subject := *m.Subject
	if has, err := s.hasManifest(ctx, subject.Digest); err != nil || !has {
		if err == nil {
			err = fault.New(fault.NotFound, "", "", "the registry does not have %s, which the artifact is about", subject.Digest)
		}
		return ocispec.Descriptor{}, err
	}
	to := ""
	if cosign.IsSignature(m.artifactType()) {
		to = cosign.Tag(subject.Digest.String())
	}
	if to != "" {
		var err error
		if a, err = s.mergeSignature(ctx, a, to); err != nil {
			return ocispec.Descriptor{}, err
		}
		if m, err = parseArtifact(a); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if err := s.sendArtifactBlobs(ctx, a, m); err != nil {
		return ocispec.Descriptor{}, err
	}
	d := describe(ocispec.MediaTypeImageManifest, m.raw)
	d.ArtifactType, d.Annotations = m.artifactType(), m.Annotations
	if to == "" {
		to = d.Digest.String()
	}
	header, err := s.putManifest(ctx, to, d.MediaType, m.raw)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if header.Get("OCI-Subject") == "" {
		err = s.listReferrer(ctx, subject.Digest, d)
	}
	return d, err
}

func (m *artifactManifest) artifactType() string {
	if m.ArtifactType != "" {
		return m.ArtifactType
	}
	return m.Config.MediaType
}

// mergeSignature adds the signatures that a tag has already.
func (s *session) mergeSignature(ctx context.Context, a Artifact, tag string) (Artifact, error) {
	before, err := s.fetchManifest(ctx, tag)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return a, err
	}
	merged, err := cosign.Merge(before.data, cosign.Artifact{Manifest: a.Manifest, Blobs: a.Blobs, Tag: tag})
	if err != nil {
		return a, err
	}
	return Artifact{merged.Manifest, merged.Blobs}, nil
}

// sendArtifactBlobs sends what is given and makes sure that the rest is there.
func (s *session) sendArtifactBlobs(ctx context.Context, a Artifact, m *artifactManifest) error {
	given := map[digest.Digest][]byte{}
	for _, b := range a.Blobs {
		given[digest.FromBytes(b)] = b
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		has, err := s.hasBlob(ctx, d)
		if err != nil {
			return err
		}
		if has {
			continue
		}
		data, ok := given[d.Digest]
		if !ok || int64(len(data)) != d.Size {
			return fault.New(fault.Invalid, "", "", "the manifest names %s of %d bytes, which is neither given nor at the registry", d.Digest, d.Size)
		}
		if err := s.sendBlob(ctx, nil, d, bytes.NewReader(data), func(int64) {}); err != nil {
			return err
		}
	}
	return nil
}

// listReferrer adds an artifact to the list under the fallback tag. Two who do
// that at the same time may lose one another's entry, which is why registries
// have come to do it themselves; a second look makes that unlikely.
func (s *session) listReferrer(ctx context.Context, subject digest.Digest, d ocispec.Descriptor) error {
	for range 3 {
		x, err := s.fallbackIndex(ctx, subject)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(x.Manifests, func(o ocispec.Descriptor) bool { return o.Digest == d.Digest }) {
			return nil
		}
		x.SchemaVersion, x.MediaType = 2, ocispec.MediaTypeImageIndex
		x.Manifests = append(x.Manifests, d)
		raw, err := json.Marshal(x)
		if err != nil {
			return fault.New(fault.Internal, "list referrer", "", "%w", err)
		}
		if _, err := s.putManifest(ctx, fallbackTag(subject), x.MediaType, raw); err != nil {
			return err
		}
	}
	return nil
}
