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

	"berth/internal/content"
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
// What is in part already comes from there, and what comes is added to it, so
// that a later life of this process can go on.
type blobReader struct {
	ctx  context.Context
	s    *session
	desc ocispec.Descriptor
	part *content.Partial // may be nil
	old  io.Reader        // what part held at the start; nil when it is read
	hash hash.Hash        // nil where part knows the digest
	off  int64            // bytes handed out

	body    io.ReadCloser
	from    *endpoint // who sends, or sent last
	resumed bool      // bytes of an earlier try are among it
	cuts    int
	idle    int   // cuts without progress
	lastCut int64 // off at the last cut
	err     error // final
}

// blob reads a blob from the registry. part may be nil; the caller closes it.
func (s *session) blob(ctx context.Context, d ocispec.Descriptor, part *content.Partial) *blobReader {
	b := &blobReader{ctx: ctx, s: s, desc: d, part: part}
	switch {
	case part == nil:
		b.hash = sha256.New()
	case part.Size() > 0:
		b.old, b.resumed = part.Reader(), true
	}
	return b
}

// Close ends the download.
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
		if b.old != nil {
			n, err := b.old.Read(p)
			b.off += int64(n)
			if err == io.EOF {
				b.old = nil
			} else if err != nil {
				b.err = fault.Wrap("read partial blob", b.desc.Digest.String(), err)
			}
			if n > 0 {
				return n, nil
			}
			continue
		}
		if b.off == b.desc.Size {
			b.err = b.finish()
			break
		}
		if b.body == nil {
			if b.err = b.connect(); b.err != nil {
				break
			}
		}
		n, err := b.body.Read(p[:min(int64(len(p)), b.desc.Size-b.off)])
		if keepErr := b.keep(p[:n]); keepErr != nil {
			b.err = keepErr
			break
		}
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

// keep takes note of bytes that came.
func (b *blobReader) keep(p []byte) error {
	if b.part == nil {
		b.hash.Write(p)
		return nil
	}
	if _, err := b.part.Write(p); err != nil {
		return diskError("keep what was downloaded of", b.desc.Digest.String(), err)
	}
	return nil
}

// connect asks for the part that is missing.
func (b *blobReader) connect() error {
	header := http.Header{}
	if b.off > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	res, err := b.s.do(b.ctx, request{op: "download", path: "blobs/" + b.desc.Digest.String(), header: header,
		want: []int{http.StatusOK, http.StatusPartialContent}})
	if err != nil {
		return err
	}
	b.body, b.from = res.Body, res.from
	skip := int64(0)
	if res.StatusCode == http.StatusOK {
		skip = b.off // it does not do ranges
		err = b.checkLength(res.ContentLength, b.desc.Size)
	} else {
		err = b.checkRange(res.Response)
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
	return sleep(b.ctx, jitter(b.s.c.c.Backoff<<(b.idle-1)))
}

// finish verifies the digest after the last byte.
func (b *blobReader) finish() error {
	b.drop()
	var got digest.Digest
	var err error
	if b.part != nil {
		got, err = b.part.Digest()
	} else {
		got = digest.NewDigest(digest.SHA256, b.hash)
	}
	if err != nil {
		return err
	}
	if got != b.desc.Digest {
		return b.failure("%w: the bytes have digest %s", image.ErrDigest, got)
	}
	return io.EOF
}

func (b *blobReader) failure(format string, args ...any) error {
	return fault.New(fault.Invalid, "download", b.desc.Digest.String(), format, args...)
}

// doubtful reports whether bytes that turned out wrong can come out right from
// elsewhere: they were of an earlier try, or from a mirror.
func (b *blobReader) doubtful() bool {
	return b.resumed || b.from != nil && b.from.mirror != nil
}

// document fetches a small blob.
func (s *session) document(ctx context.Context, d ocispec.Descriptor, most int64) ([]byte, error) {
	if err := content.CheckDigest(d.Digest); err != nil {
		return nil, err
	}
	if d.Size < 0 || d.Size > most {
		return nil, fault.New(fault.Invalid, "download", d.Digest.String(), "%w: %d bytes", image.ErrTooLarge, d.Size)
	}
	for {
		r := s.blob(ctx, d, nil)
		data, err := io.ReadAll(r)
		r.Close()
		if err == nil || !r.doubtful() || !fault.Is(err, fault.Invalid) {
			return data, err
		}
		s.failed(r.from, err)
	}
}
