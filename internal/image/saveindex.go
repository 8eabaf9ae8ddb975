package image

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// ManifestFor makes the manifest with which Save writes an image: its layers
// uncompressed, under their diff_ids. The caller holds the layers. It is what
// indexes that are made here name, so that an index has one digest in the store
// and in every archive.
func (s *Store) ManifestFor(ctx context.Context, config []byte, annotations map[string]string) ([]byte, error) {
	parsed, err := ParseConfig(config)
	if err != nil {
		return nil, err
	}
	id := digest.FromBytes(config)
	raw, err := makeManifest(id, int64(len(config)), parsed.RootFS.DiffIDs, annotations, func(d digest.Digest) (int64, error) { return s.tarSize(ctx, d) })
	return raw, fault.Wrap("make manifest", id.String(), err)
}

func makeManifest(id digest.Digest, configSize int64, diffIDs []digest.Digest, annotations map[string]string, size func(digest.Digest) (int64, error)) ([]byte, error) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}, Annotations: annotations}
	m.SchemaVersion = 2
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: id, Size: configSize}
	for _, d := range diffIDs {
		n, err := size(d)
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: n})
	}
	return json.Marshal(m)
}

// IsUnpacked reports whether a manifest names the layers of an image as they are
// uncompressed, which is how manifests are made here.
func IsUnpacked(m *ocispec.Manifest, diffIDs []digest.Digest) bool {
	return slices.EqualFunc(m.Layers, diffIDs, func(l ocispec.Descriptor, d digest.Digest) bool { return l.Digest == d })
}

// image adds one image with all it needs and returns its manifest: the one that
// its index names if that is of the archive's kind, and else one with the same
// annotations.
func (v *saver) image(ctx context.Context, member savedMember, tags []string) (ocispec.Descriptor, error) {
	rec := member.rec
	config, err := v.s.content.Read(rec.ID, MaxConfig)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	v.blobs[rec.ID] = saved{data: config}
	docker := dockerManifest{Config: blobs + rec.ID.Encoded(), Layers: []string{}, Parent: rec.Parent}
	for _, d := range rec.DiffIDs {
		v.blobs[d] = saved{layer: true}
		docker.Layers = append(docker.Layers, blobs+d.Encoded())
	}
	for _, t := range tags {
		docker.RepoTags = append(docker.RepoTags, familiarString(t))
	}
	v.manifests = append(v.manifests, docker)

	var annotations map[string]string
	raw, err := v.s.content.Read(member.entry.Digest, MaxManifest)
	if doc, perr := ParseDocument(raw, ""); err == nil && perr == nil && doc.Manifest != nil {
		annotations = doc.Manifest.Annotations
		if !IsUnpacked(doc.Manifest, rec.DiffIDs) {
			raw = nil
		}
	} else {
		raw = nil
	}
	size := func(d digest.Digest) (n int64, err error) {
		if n, ok := v.sizes[d]; ok {
			return n, nil
		}
		v.sizes[d], err = v.s.tarSize(ctx, d)
		return v.sizes[d], err
	}
	made, err := makeManifest(rec.ID, int64(len(config)), rec.DiffIDs, annotations, size) // which also finds the sizes
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if raw == nil {
		raw = made
	}
	d := v.raw(ocispec.MediaTypeImageManifest, raw)
	d.Platform, d.Annotations = &member.platform, maps.Clone(member.entry.Annotations)
	return d, nil
}

// raw adds a document as a blob.
func (v *saver) raw(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	v.blobs[d.Digest] = saved{data: data}
	return d
}

// whole adds an index, or a manifest that names mean, with its images.
func (v *saver) whole(ctx context.Context, t *target) error {
	members, err := v.members(t)
	if err != nil {
		return err
	}
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	x.SchemaVersion = 2
	for i, m := range members {
		var tags []string
		if i == 0 {
			tags = t.tags // a docker that knows no index takes the first
		}
		d, err := v.image(ctx, m, tags)
		if err != nil {
			return err
		}
		x.Manifests = append(x.Manifests, d)
	}
	raw, err := v.s.content.Read(t.rec.ID, MaxManifest)
	if err != nil {
		return err
	}
	doc, err := ParseDocument(raw, "")
	if err != nil {
		return err
	}
	if doc.Index == nil {
		v.name(x.Manifests[0], t.tags, t.rec.Annotations)
		return nil
	}
	complete, err := v.about(t, doc.Index, &x)
	if err != nil {
		return err
	}
	switch {
	case complete:
		v.name(v.raw(ocispec.MediaTypeImageIndex, raw), t.tags, t.rec.Annotations)
		return nil
	case len(x.Manifests) == 1:
		v.name(x.Manifests[0], t.tags, nil)
		return nil
	}
	x.Annotations = doc.Index.Annotations
	data, err := json.Marshal(x)
	v.name(v.raw(ocispec.MediaTypeImageIndex, data), t.tags, t.rec.Annotations)
	return err
}

// about adds to x what the index of a target says about those images that are
// saved as it has them, and reports whether that is all that there is in it.
func (v *saver) about(t *target, whole, x *ocispec.Index) (complete bool, err error) {
	saved := map[digest.Digest]bool{}
	for _, d := range x.Manifests {
		saved[d.Digest] = true
	}
	complete = true
	for _, d := range whole.Manifests {
		about := digest.Digest(d.Annotations[attestationDigest])
		switch {
		case saved[d.Digest]:
		case saved[about] && slices.Contains(t.rec.Blobs, d.Digest):
			if err := v.attestation(d); err != nil {
				return false, err
			}
			x.Manifests = append(x.Manifests, d)
		default:
			complete = false
		}
	}
	return complete, nil
}

// attestationDigest is the annotation that says what an attestation is about.
const attestationDigest = "vnd.docker.reference.digest"

// attestation adds a manifest that is about an image, with what it names.
func (v *saver) attestation(d ocispec.Descriptor) error {
	raw, err := v.s.content.Read(d.Digest, MaxManifest)
	if err != nil {
		return err
	}
	doc, err := ParseAny(raw, d.MediaType)
	if err != nil || doc.Manifest == nil {
		return badDocument("attestation", "%w: %s is no manifest", ErrDocument, d.Digest)
	}
	for _, b := range append([]ocispec.Descriptor{doc.Manifest.Config}, doc.Manifest.Layers...) {
		data, err := v.s.content.Read(b.Digest, b.Size)
		if err != nil {
			return err
		}
		v.raw(b.MediaType, data)
	}
	v.raw(d.MediaType, raw)
	return nil
}

// name adds an entry to the archive's index for each tag, or one without.
func (v *saver) name(d ocispec.Descriptor, tags []string, annotations map[string]string) {
	if annotations != nil {
		d.Annotations = annotations
	}
	if len(tags) == 0 {
		v.index = append(v.index, d)
	}
	own := d.Annotations
	for _, t := range tags {
		_, tag := cutTag(t)
		d.Annotations = map[string]string{}
		maps.Copy(d.Annotations, own)
		d.Annotations[containerdName], d.Annotations[ocispec.AnnotationRefName] = t, tag
		v.index = append(v.index, d)
	}
}
