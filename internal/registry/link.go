package registry

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/registry/store"
)

// Link makes what the engine's content store holds a repository's, without
// copying a byte: the engine's push to its own registry. manifests come members
// first, the index last; the last one gets the tag ("" for none). A document is
// taken from its descriptor's Data, else from the content store. blobs are all
// configurations and layers that they need. The caller holds what it names
// until Link returns; all or nothing is visible.
//
// A registry whose storage does not share the engine's store is
// fault.Unsupported, and the engine pushes over HTTP as to any other. What is
// not in the content store is fault.NotFound.
func (r *Registry) Link(ctx context.Context, repo, tag string, manifests, blobs []ocispec.Descriptor) error {
	const op = "push to the engine's own registry"
	linker, ok := r.storage.(store.Linker)
	switch {
	case !ok:
		return fault.New(fault.Unsupported, op, repo, "its storage is not the engine's")
	case r.cfg.ReadOnly || r.cache != nil:
		return fault.New(fault.Forbidden, op, repo, "the registry is read-only or a cache")
	case !validName(repo) || tag != "" && !validTag(tag):
		return fault.New(fault.Invalid, op, repo, "not a valid repository and tag")
	case len(manifests) == 0:
		return fault.New(fault.Invalid, op, repo, "there is no manifest to push")
	}
	list := make([]store.Blob, 0, len(blobs))
	for _, b := range blobs {
		if b.Digest.Validate() != nil || b.Digest.Algorithm() != digest.SHA256 {
			return fault.New(fault.Invalid, op, b.Digest.String(), "not a sha256 digest")
		}
		list = append(list, store.Blob{Digest: b.Digest, Size: b.Size})
	}
	if err := linker.LinkBlobs(ctx, repo, list); err != nil {
		return fault.Wrap(op, repo, err)
	}
	for i, d := range manifests {
		raw := d.Data
		if raw == nil {
			var err error
			if raw, err = linker.ReadContent(ctx, d.Digest, limitManifest); err != nil {
				return fault.Wrap(op, repo, err)
			}
		}
		if digestOf(raw, d.Digest) != d.Digest {
			return fault.New(fault.Invalid, op, d.Digest.String(), "the manifest has another digest")
		}
		m, err := readManifest(raw, d.MediaType)
		if err != nil {
			return fault.New(fault.Invalid, op, d.Digest.String(), "%w", err)
		}
		m.Digest = d.Digest
		var tags []string
		if i == len(manifests)-1 && tag != "" {
			tags = []string{tag}
		}
		if err := r.storage.PutManifest(ctx, repo, m, raw, tags, r.cfg.AllowMissing); err != nil {
			return fault.Wrap(op, repo, err)
		}
		r.metrics.manifests.Add(1)
		r.touched.add(repo, d.Digest)
	}
	return nil
}
