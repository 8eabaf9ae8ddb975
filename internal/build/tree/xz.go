package tree

import (
	"context"
	"io"

	"github.com/ulikunitz/xz"

	"berth/internal/fault"
)

// openXZ returns the plain bytes of an xz stream. Pure Go: nothing of the host
// or of an image is executed to unpack an archive.
func openXZ(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	z, err := xz.ReaderConfig{DictCap: 64 << 20}.NewReader(&ctxReader{ctx, r})
	if err != nil {
		return nil, fault.New(fault.Invalid, "read archive", "", "%w", err)
	}
	return layerReader(ctx, z)
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
