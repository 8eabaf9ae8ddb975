package transfer

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
)

// fetch brings a layer here. Bytes that turn out wrong and may have been spoilt
// on the way, in an earlier try or at a mirror, are fetched again.
func (c *Client) fetch(ctx context.Context, f *flight, s *session, d ocispec.Descriptor, diffID digest.Digest) error {
	if err := takeSlot(ctx, c.slots, func() { f.show(report{status: "Waiting"}) }); err != nil {
		return err
	}
	defer func() { <-c.slots }()
	if err := c.unpackKept(ctx, f, d, diffID); err == nil || ctx.Err() != nil {
		return err
	}
	for {
		blob, err := c.download(ctx, f, s, d, diffID)
		if err == nil {
			f.show(report{status: "Extracting", current: d.Size, total: d.Size})
			return nil
		}
		if ctx.Err() != nil || !fault.Is(err, fault.Invalid) || !blob.doubtful() {
			return err
		}
		if !blob.resumed {
			s.failed(blob.from, err)
		}
	}
}

// errNotKept says that a blob is not here.
var errNotKept = errors.New("the blob is not here")

// unpackKept makes a layer of the packed blob if that was kept.
func (c *Client) unpackKept(ctx context.Context, f *flight, d ocispec.Descriptor, diffID digest.Digest) error {
	info, err := c.c.Content.Stat(d.Digest)
	if err != nil || info.Size != d.Size {
		return errNotKept
	}
	file, err := c.c.Content.Open(d.Digest)
	if err != nil {
		return errNotKept
	}
	defer file.Close()
	f.show(report{status: "Extracting", current: 0, total: d.Size})
	_, err = c.c.Layers.Apply(ctx, diffID, file) // diffID is the digest that counts
	return err
}

// download streams a layer from the registry through the digest and the
// decompressor into its tree. Of what comes, a copy is kept until the layer is
// there, or for good.
func (c *Client) download(ctx context.Context, f *flight, s *session, d ocispec.Descriptor, diffID digest.Digest) (*blobReader, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	part, err := c.partial(d)
	if err != nil {
		return nil, err
	}
	blob := s.blob(ctx, d, part)
	src := readAhead(&countingReader{r: blob, f: f, total: d.Size})
	_, err = c.c.Layers.Apply(ctx, diffID, src)
	cancel() // a download that goes on has nobody to read it
	src.stop()
	blob.Close()
	return blob, c.settle(blob, d, diffID, err)
}

// partial opens what is kept of a blob on its way; nil where somebody else does
// it.
func (c *Client) partial(d ocispec.Descriptor) (*content.Partial, error) {
	part, err := c.c.Content.Resume(d.Digest.Encoded())
	if fault.Is(err, fault.Conflict) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if part.Size() > d.Size {
		err = part.Truncate(0)
	}
	if err != nil {
		part.Discard()
		return nil, err
	}
	return part, nil
}

// settle decides what becomes of the copy: kept for good when the layer is
// there and blobs are, or when the layer's tree alone does not tell what was in
// it; kept for the next try when the network failed; and else dropped.
func (c *Client) settle(blob *blobReader, d ocispec.Descriptor, diffID digest.Digest, err error) error {
	if blob.part == nil {
		return err
	}
	kind := fault.KindOf(err)
	switch {
	case err == nil && blob.err == io.EOF && (c.c.KeepBlobs || !c.exact(diffID)):
		_, err = blob.part.Commit(d.Digest, d.Size)
		return errors.Join(err, blob.part.Close())
	case err != nil && (kind == fault.Unavailable || kind == fault.Canceled || kind == fault.Unauthorized || kind == fault.Forbidden) &&
		blob.part.Size() > 0:
		return errors.Join(err, blob.part.Close())
	}
	return errors.Join(err, blob.part.Discard())
}

// exact reports whether a layer's tree is enough to pack it again.
func (c *Client) exact(diffID digest.Digest) bool {
	l, err := c.c.Layers.Stat(diffID)
	return err == nil && l.Exact
}
