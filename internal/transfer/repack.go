package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/image"
)

// attestationDigest is the annotation that says what an attestation is about.
const attestationDigest = "vnd.docker.reference.digest"

// rebuilt makes an index of images whose manifests are others at the registry
// than here: because they were made here, where layers are not compressed, or
// because layers had to be packed again. What was attested of an image that was
// made here is true of the one at the registry, too, and goes with it; what
// somebody else said about other bytes does not.
func (p *push) rebuilt(ctx context.Context, members []image.Member, raw []byte, sent map[digest.Digest]manifestOut) (manifestOut, error) {
	old, err := image.ParseDocument(raw, "")
	if err != nil || old.Index == nil {
		return manifestOut{}, fault.New(fault.Internal, "make index", "", "%w: %w", image.ErrDocument, err)
	}
	r := &repack{push: p, sent: sent, members: members}
	x := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Annotations: old.Index.Annotations}
	x.SchemaVersion = 2
	for _, m := range members {
		d, err := r.image(ctx, m)
		if err != nil {
			return manifestOut{}, err
		}
		x.Manifests = append(x.Manifests, d)
	}
	for _, d := range old.Index.Manifests {
		about := digest.Digest(d.Annotations[attestationDigest])
		if about == "" {
			continue
		}
		if !r.madeHere(ctx, about) {
			r.dropped = true
			continue
		}
		moved, err := r.attestation(ctx, d, about)
		if err != nil {
			return manifestOut{}, err
		}
		x.Manifests = append(x.Manifests, moved)
	}
	if r.dropped {
		p.progress.Status("", "Some layers were not kept as they came and are packed again: the index gets a new digest, and attestations are left out")
	}
	data, err := json.Marshal(x)
	if err != nil {
		return manifestOut{}, fault.New(fault.Internal, "make index", "", "%w", err)
	}
	return manifestOut{desc: describe(x.MediaType, data), raw: data, inner: r.inner, docs: r.docs}, nil
}

// repack is an index on its way to a registry where it has another digest.
type repack struct {
	push    *push
	sent    map[digest.Digest]manifestOut
	members []image.Member
	dropped bool                 // something said about an image is left out
	inner   []ocispec.Descriptor // to be linked
	docs    [][]byte
}

// image puts an image's manifest to the registry and returns its entry.
func (r *repack) image(ctx context.Context, m image.Member) (ocispec.Descriptor, error) {
	d := m.Descriptor
	if out, ok := r.sent[d.Digest]; ok {
		if err := r.push.member(ctx, out, &r.inner); err != nil {
			return d, err
		}
		d.MediaType, d.Digest, d.Size = out.desc.MediaType, out.desc.Digest, out.desc.Size
		r.docs = append(r.docs, out.raw)
	}
	if d.Platform == nil {
		platform := m.Platform
		d.Platform = &platform
	}
	return d, nil
}

// madeHere reports whether an image's manifest is one that is made here: its
// layers are the same bytes, only compressed, at the registry.
func (r *repack) madeHere(ctx context.Context, d digest.Digest) bool {
	raw, err := r.push.c.c.Images.Document(ctx, d)
	if err != nil {
		return false
	}
	doc, err := image.ParseDocument(raw, "")
	if err != nil || doc.Manifest == nil {
		return false
	}
	for _, m := range r.members {
		if m.Descriptor.Digest == d && m.Image != nil {
			return image.IsUnpacked(doc.Manifest, m.Image.DiffIDs)
		}
	}
	return false
}

// attestation sends a manifest that is about an image, and what it names, with
// the digest that the image has at the registry in the place of the one here. All
// digests being of one length, nothing else of the documents changes.
func (r *repack) attestation(ctx context.Context, d ocispec.Descriptor, about digest.Digest) (ocispec.Descriptor, error) {
	p := r.push
	raw, err := p.c.c.Images.Document(ctx, d.Digest)
	if err != nil {
		return d, err
	}
	named, err := namedBlobs(raw)
	if err != nil {
		return d, err
	}
	target := r.sent[about].desc.Digest
	swap := func(data []byte, from, to digest.Digest) []byte {
		return bytes.ReplaceAll(data, []byte(from.Encoded()), []byte(to.Encoded()))
	}
	moved := map[digest.Digest]digest.Digest{about: target}
	for _, b := range named { // the config comes last, and names the others
		data, err := p.c.c.Content.Read(b.Digest, maxAttestation)
		if err != nil {
			return d, err
		}
		for from, to := range moved {
			data = swap(data, from, to)
		}
		now := describe(b.MediaType, data)
		if moved[b.Digest] = now.Digest; now.Digest == b.Digest {
			delete(moved, b.Digest)
		}
		if err := r.blob(ctx, now, data); err != nil {
			return d, err
		}
	}
	for from, to := range moved {
		raw = swap(raw, from, to)
	}
	out := manifestOut{desc: describe(d.MediaType, raw), raw: raw}
	if err := p.member(ctx, out, &r.inner); err != nil {
		return d, err
	}
	r.docs = append(r.docs, raw)
	d.Digest = out.desc.Digest
	d.Annotations = maps.Clone(d.Annotations)
	d.Annotations[attestationDigest] = target.String()
	return d, nil
}

// blob sends a document that was made for the push.
func (r *repack) blob(ctx context.Context, d ocispec.Descriptor, data []byte) error {
	p := r.push
	if p.local != nil { // which takes it from the content store
		p.blobs.Add(d.Digest)
		if _, err := p.c.c.Content.Ingest(ctx, bytes.NewReader(data), d.Digest, d.Size); err != nil {
			return err
		}
	}
	return p.document(ctx, d, data)
}
