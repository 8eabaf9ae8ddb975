package transfer

import (
	"context"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/signature"
)

// Verifier decides whether an image may be pulled. It is asked when it is known
// what a name means, and before anything of the image is fetched.
type Verifier interface {
	Check(ctx context.Context, named reference.Named, d digest.Digest, src signature.Source) error
}

// maxSmallBlob bounds blobs that are read into memory, in bytes.
const maxSmallBlob = 4 << 20

// source lets a Verifier look at what a repository holds.
type source struct{ s *session }

// Manifest returns any manifest by tag or digest.
func (x source) Manifest(ctx context.Context, ref string) (data []byte, mediaType string, err error) {
	m, err := x.s.fetchManifest(ctx, ref)
	return m.data, m.mediaType, err
}

// Blob returns a small blob.
func (x source) Blob(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	return x.s.document(ctx, d, maxSmallBlob)
}

// Referrers lists what refers to a manifest.
func (x source) Referrers(ctx context.Context, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	return x.s.referrers(ctx, d, artifactType)
}
