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
