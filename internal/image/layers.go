package image

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/layer"
)

// WriteLayer writes a layer's uncompressed tar, byte for byte, from its tree or
// from a blob of it that an image keeps. Its digest is verified while it is
// written; after an error what was written is of no use.
func (s *Store) WriteLayer(ctx context.Context, diffID digest.Digest, w io.Writer) error {
	hold, blobs := s.layers.Hold(), s.content.Hold()
	defer s.Release(hold)
	defer func() { s.collectBlobs(blobs.Release()) }()
	hold.Add(diffID)
	l, err := s.layers.Stat(diffID)
	if err != nil {
		return err
	}
	if !l.Exact {
		if b := s.source(blobs, diffID); b != "" {
			return s.unpackBlob(ctx, b, diffID, w)
		}
	}
	err = s.layers.Export(ctx, diffID, w)
	if fault.Is(err, fault.Unsupported) {
		err = fault.Wrap("read layer", diffID.String(), err)
	}
	return err
}

// unpackBlob writes the uncompressed tar of a packed layer.
func (s *Store) unpackBlob(ctx context.Context, blob, diffID digest.Digest, w io.Writer) error {
	const op = "read layer from blob"
	f, err := s.content.Open(blob)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := layer.NewReader(ctx, f, s.layers.Limits())
	if err != nil {
		return fault.Wrap(op, blob.String(), err)
	}
	defer r.Close()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), r); err != nil {
		return fault.Wrap(op, blob.String(), err)
	}
	if got := digest.NewDigest(digest.SHA256, sum); got != diffID {
		return fault.New(fault.Internal, op, blob.String(), "%w: the layer has diff_id %s and the blob's is %s", content.ErrDigest, diffID, got).
			WithHint("the disk or another program changed the file; remove the image and pull or load it again")
	}
	return nil
}

// tarSize returns the length of a layer's uncompressed tar in bytes.
func (s *Store) tarSize(ctx context.Context, diffID digest.Digest) (int64, error) {
	if i, err := s.content.Stat(diffID); err == nil {
		return i.Size, nil // the tar itself is kept
	}
	if l, err := s.layers.Stat(diffID); err == nil && l.Exact {
		return s.layers.TarSize(diffID)
	}
	var n counter
	err := s.WriteLayer(ctx, diffID, &n)
	return int64(n), err
}

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}
