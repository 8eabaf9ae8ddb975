package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/image"
)

// Bounds on how often a download that breaks is taken up again.
const (
	maxCuts     = 200      // over a whole blob
	maxIdleCuts = 5        // one after another with less than progressMin between
	progressMin = 32 << 10 // bytes
)

// blobReader yields a blob's bytes as one stream, however often the connection
// breaks, and ends with io.EOF only if they had the right length and digest.
type blobReader struct {
	ctx  context.Context
	s    *session
	desc ocispec.Descriptor
	hash hash.Hash
	off  int64 // bytes handed out

	body    io.ReadCloser
	cuts    int
	idle    int   // cuts without progress
	lastCut int64 // off at the last cut
	err     error // final
}

func (s *session) blob(ctx context.Context, d ocispec.Descriptor) *blobReader {
	return &blobReader{ctx: ctx, s: s, desc: d, hash: sha256.New()}
}

func (b *blobReader) Close() error {
	b.drop()
	if b.err == nil {
		b.err = errors.New("blob reader is closed")
	}
	return nil
}

func (b *blobReader) drop() {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
}

// Read reads on, over broken connections.
func (b *blobReader) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.off == b.desc.Size {
			b.err = b.finish()
			break
		}
		if b.body == nil {
			if err := b.connect(); err != nil {
				b.err = err
				break
			}
		}
		n, err := b.body.Read(p[:min(int64(len(p)), b.desc.Size-b.off)])
		b.hash.Write(p[:n])
		b.off += int64(n)
		if err != nil && (err != io.EOF || b.off < b.desc.Size) {
			b.err = b.cut(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, b.err
}

// connect asks for the part that is missing.
func (b *blobReader) connect() error {
	header := http.Header{}
	if b.off > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	res, err := b.s.get(b.ctx, "download", "blobs/"+b.desc.Digest.String(), header, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return err
	}
	b.body = res.Body
	skip := int64(0)
	if res.StatusCode == http.StatusOK {
		skip = b.off // it does not do ranges
		err = b.checkLength(res.ContentLength, b.desc.Size)
	} else {
		err = b.checkRange(res)
	}
	if err != nil {
		b.drop()
		return err
	}
	if _, err := io.CopyN(io.Discard, b.body, skip); err != nil {
		return b.cut(err)
	}
	return nil
}

func (b *blobReader) checkLength(got, want int64) error {
	if got >= 0 && got != want {
		return b.failure("%w: the registry sends %d bytes, the manifest says %d", image.ErrSize, got, want)
	}
	return nil
}

// checkRange makes sure that a partial answer goes on where the last ended.
func (b *blobReader) checkRange(res *http.Response) error {
	var from, to, total int64
	v := res.Header.Get("Content-Range")
	if _, err := fmt.Sscanf(strings.Replace(v, "/*", fmt.Sprintf("/%d", b.desc.Size), 1), "bytes %d-%d/%d", &from, &to, &total); err != nil ||
		from != b.off || total != b.desc.Size {
		return b.failure("%w: asked for bytes from %d of %d on and got %.60q", image.ErrSize, b.off, b.desc.Size, v)
	}
	return b.checkLength(res.ContentLength, b.desc.Size-b.off)
}

// cut decides whether a broken connection is made anew; it waits before.
func (b *blobReader) cut(err error) error {
	b.drop()
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	b.cuts++
	if b.off-b.lastCut >= progressMin {
		b.idle = 0
	}
	b.lastCut = b.off
	b.idle++
	if b.cuts > maxCuts || b.idle > maxIdleCuts {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return &fault.Error{Kind: fault.Unavailable, Op: "download", Subject: b.desc.Digest.String(),
			Err: fmt.Errorf("the connection broke %d times, the last time after %d of %d bytes: %s", b.cuts, b.off, b.desc.Size, err)}
	}
	return sleep(b.ctx, jitter(b.s.p.c.Backoff<<(b.idle-1)))
}

// finish verifies the digest after the last byte.
func (b *blobReader) finish() error {
	b.drop()
	if got := digest.NewDigest(digest.SHA256, b.hash); got != b.desc.Digest {
		return b.failure("%w: the bytes have digest %s", image.ErrDigest, got)
	}
	return io.EOF
}

func (b *blobReader) failure(format string, args ...any) error {
	return fault.New(fault.Invalid, "download", b.desc.Digest.String(), format, args...)
}

// document fetches a small blob.
func (s *session) document(ctx context.Context, d ocispec.Descriptor, most int64) ([]byte, error) {
	if d.Size > most {
		return nil, fault.New(fault.Invalid, "download", d.Digest.String(), "%w: %d bytes", image.ErrTooLarge, d.Size)
	}
	r := s.blob(ctx, d)
	defer r.Close()
	return io.ReadAll(r)
}
