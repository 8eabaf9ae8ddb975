package transfer

import (
	"context"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
)

// packLevel is the effort of packing. The same layer always gives the same
// bytes with one version of the library, so it has the same digest wherever and
// whenever it is pushed.
const packLevel = gzip.DefaultCompression

// pack writes a layer, packed, into the content store, where hold keeps it, and
// on the way to also; what happens there does not stop it.
func (c *Client) pack(ctx context.Context, diffID digest.Digest, hold *content.Hold, also io.Writer, passed func(n int64)) (ocispec.Descriptor, error) {
	w, err := c.c.Content.Writer("", -1)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer w.Close()
	both := &tee{w: w, also: also}
	z, err := gzip.NewWriterLevel(both, packLevel)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	pipe, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := c.c.Layers.Export(ctx, diffID, in)
		in.CloseWithError(err)
		done <- err
	}()
	_, err = io.CopyBuffer(onlyWriter{z}, &passing{r: pipe, passed: passed}, make([]byte, 256<<10))
	pipe.CloseWithError(err)
	if exportErr := <-done; exportErr != nil {
		err = exportErr
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	info, err := w.CommitTo(hold)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: info.Digest, Size: info.Size}, err
}

// onlyWriter hides every other method, so that a buffer of the right size is
// used.
type onlyWriter struct{ io.Writer }

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
