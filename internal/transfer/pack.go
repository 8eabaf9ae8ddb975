package transfer

import (
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
)

// packed is a layer that was packed here. It must be closed.
type packed struct {
	io.ReaderAt
	io.Closer
	desc ocispec.Descriptor
}

// pack packs a layer; see packed.
func (c *Client) pack(ctx context.Context, diffID digest.Digest, keep *content.Hold, also io.Writer, passed func(n int64)) (*packed, error) {
	return c.packed(ocispec.MediaTypeImageLayerGzip, keep, also, func(w io.Writer) error { return c.compress(ctx, diffID, w, passed) })
}

// packed keeps what write gives, and on the way writes it to also; what happens
// there does not stop it. With keep, the result stays in the content store, where
// keep holds it; else it is gone when it is closed.
func (c *Client) packed(mediaType string, keep *content.Hold, also io.Writer, write func(io.Writer) error) (*packed, error) {
	part, err := c.c.Content.Resume("push-" + strconv.FormatInt(c.packs.Add(1), 36))
	if err != nil {
		return nil, err
	}
	p, err := c.packInto(mediaType, part, keep, also, write)
	if err != nil {
		return nil, errors.Join(err, part.Discard())
	}
	return p, nil
}

func (c *Client) packInto(mediaType string, part *content.Partial, keep *content.Hold, also io.Writer, write func(io.Writer) error) (*packed, error) {
	if err := part.Truncate(0); err != nil { // a process that was killed may have left it
		return nil, err
	}
	if err := write(&tee{w: part, also: also}); err != nil {
		return nil, err
	}
	d, err := part.Digest()
	if err != nil {
		return nil, err
	}
	p := &packed{desc: ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: part.Size()}}
	if keep == nil {
		at, ok := part.Reader().(io.ReaderAt)
		if !ok {
			return nil, fault.New(fault.Internal, "pack", d.String(), "what was packed cannot be read again")
		}
		p.ReaderAt, p.Closer = at, closerFunc(part.Discard)
		return p, nil
	}
	keep.Add(d)
	if _, err := part.Commit(d, part.Size()); err != nil {
		return nil, err
	}
	f, err := c.c.Content.Open(d)
	if err != nil {
		return nil, err
	}
	p.ReaderAt, p.Closer = f, f
	return p, nil
}

type closerFunc func() error

// Close calls the function.
func (f closerFunc) Close() error { return f() }

// compress writes a layer's tar, packed, to w. The tar is put together in one
// goroutine and packed in others.
func (c *Client) compress(ctx context.Context, diffID digest.Digest, w io.Writer, passed func(n int64)) error {
	return gzipped(ctx, w, func(ctx context.Context, w io.Writer) error {
		return c.c.Layers.Export(ctx, diffID, &counted{w: w, passed: passed})
	})
}

// gzipped packs what write gives.
func gzipped(ctx context.Context, w io.Writer, write func(context.Context, io.Writer) error) error {
	z := newGzipWriter(w)
	err := write(ctx, z)
	return errors.Join(err, z.Close())
}

// counted tells how much was written.
type counted struct {
	w      io.Writer
	n      int64
	passed func(n int64)
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.passed(c.n)
	return n, err
}

// tee writes to two, and forgets the second when it fails.
type tee struct{ w, also io.Writer }

func (t *tee) Write(p []byte) (int, error) {
	if t.also != nil {
		if _, err := t.also.Write(p); err != nil {
			t.also = nil
		}
	}
	return t.w.Write(p)
}
