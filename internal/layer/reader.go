package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"berth/internal/fault"
)

// Compression names how a stream is packed.
type Compression string

// The compressions that are understood.
const (
	Plain Compression = "plain"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Bzip2 Compression = "bzip2"
)

// Limits bounds what an archive may cost. Zero fields take the defaults.
type Limits struct {
	MaxBytes   int64 // uncompressed bytes of one archive; default 128 GiB
	MaxEntries int64 // entries of one archive; default 4,000,000
	MaxRatio   int64 // uncompressed bytes for one compressed byte; default 200
	RatioFloor int64 // uncompressed bytes up to which any ratio passes; default 1 GiB
}

func (l Limits) withDefaults() Limits {
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.MaxBytes, 128<<30)
	def(&l.MaxEntries, 4_000_000)
	def(&l.MaxRatio, 200)
	def(&l.RatioFloor, 1<<30)
	return l
}

// maxWindow bounds the memory that a zstd frame may ask for. It is what every
// decoder is to support (RFC 8878, section 3.1.1.1.2) and what `zstd -19` uses;
// several layers are unpacked at once.
const maxWindow = 8 << 20

// Detect tells the compression from the first bytes of a stream. Of ones it
// knows and cannot read it returns ErrCompressor. With 512 bytes it is not
// deceived by a tar whose first name looks like something packed.
func Detect(head []byte) (Compression, error) {
	switch {
	case isHeader(head):
		return Plain, nil
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 0x08}):
		return Gzip, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), // frame
		len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}): // skippable frame
		return Zstd, nil
	case bytes.HasPrefix(head, []byte("BZh")) && len(head) >= 10 && bytes.Equal(head[4:10], []byte{0x31, 0x41, 0x59, 0x26, 0x53, 0x59}):
		return Bzip2, nil
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return "", unsupported("xz")
	case bytes.HasPrefix(head, []byte{0x04, 0x22, 0x4d, 0x18}):
		return "", unsupported("lz4")
	}
	return Plain, nil
}

// isHeader reports whether a block is a tar header, which has a checksum.
func isHeader(b []byte) bool {
	const at, end = 148, 156
	if len(b) < 512 || string(b[257:262]) != "ustar" {
		return false
	}
	sum := 0
	for i, c := range b[:512] {
		if i >= at && i < end {
			c = ' '
		}
		sum += int(c)
	}
	want, err := strconv.ParseUint(strings.Trim(string(b[at:end]), " \x00"), 8, 32)
	return err == nil && uint64(sum) == want
}

// checkWindow refuses a zstd frame that needs too much memory, with how much.
func checkWindow(head []byte) error {
	var h zstd.Header
	if err := h.Decode(head); err != nil || h.Skippable {
		return nil // the decoder finds out
	}
	need := h.WindowSize
	if h.SingleSegment {
		need = h.FrameContentSize
	}
	if need > maxWindow {
		return windowError(fmt.Sprintf("a window of %d bytes", need))
	}
	return nil
}

func windowError(what string) error {
	return fault.New(fault.Unsupported, "read archive", "", "%w: zstd with %s, more than %d", ErrCompressor, what, maxWindow).
		WithHint("repack it without zstd's --ultra and --long")
}

func unsupported(name string) error {
	return fault.New(fault.Unsupported, "read archive", "", "%w: %s", ErrCompressor, name).
		WithHint("repack it with gzip or zstd")
}

// Reader yields the uncompressed bytes of an archive within limits, and ends
// when its context does. It must be closed; that does not close the source.
type Reader struct {
	Compression Compression

	ctx    context.Context
	source *bufio.Reader
	packed int64 // bytes taken from the source
	failed error // what the source returned other than io.EOF
	raw    io.Reader
	n      int64
	limits Limits
	free   func()
	ended  bool
}

// packedReader counts the compressed bytes on their way to the decompressor.
type packedReader struct {
	r *Reader
	s io.Reader
}

func (p *packedReader) Read(b []byte) (int, error) {
	if err := p.r.ctx.Err(); err != nil {
		p.r.failed = err
		return 0, err
	}
	n, err := p.s.Read(b)
	p.r.packed += int64(n)
	if err != nil && err != io.EOF {
		p.r.failed = err
	}
	return n, err
}

// Buffers and decompressors are several hundred KiB each and touching fresh
// memory is dear, so they are used again.
var (
	sourcePool = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 64<<10) }}
	gzipPool   sync.Pool
	zstdPool   sync.Pool
)

// NewReader looks at the beginning of r and returns a reader of what it holds.
func NewReader(ctx context.Context, r io.Reader, limits Limits) (*Reader, error) {
	a := &Reader{ctx: ctx, limits: limits.withDefaults()}
	a.source = sourcePool.Get().(*bufio.Reader)
	a.source.Reset(&packedReader{a, r})
	a.free = func() {}
	head, err := a.source.Peek(512)
	if err != nil && err != io.EOF {
		a.Close()
		return nil, streamError("", err)
	}
	if a.Compression, err = Detect(head); err == nil && a.Compression == Zstd {
		err = checkWindow(head)
	}
	if err != nil {
		a.Close()
		return nil, err
	}
	if err := a.unpack(); err != nil {
		a.Close()
		return nil, streamError("", err)
	}
	return a, nil
}

// unpack puts the decompressor between the source and the reader.
func (a *Reader) unpack() error {
	switch a.Compression {
	case Gzip:
		z, _ := gzipPool.Get().(*gzip.Reader)
		if z == nil {
			z = new(gzip.Reader)
		}
		if err := z.Reset(a.source); err != nil {
			return err
		}
		a.raw = z
		a.free = func() { gzipPool.Put(z) }
	case Zstd:
		z, _ := zstdPool.Get().(*zstd.Decoder)
		var err error
		if z == nil {
			z, err = zstd.NewReader(a.source, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(maxWindow))
		} else {
			err = z.Reset(a.source)
		}
		if err != nil {
			return err
		}
		a.raw = z
		a.free = func() {
			if z.Reset(nil) == nil { // lets go of the source
				zstdPool.Put(z)
			}
		}
	case Bzip2:
		a.raw = bzip2.NewReader(a.source)
	default:
		a.raw = a.source
	}
	return nil
}

// Read returns uncompressed bytes. Going beyond a limit is ErrTooLarge or
// ErrBomb, a damaged or cut compressed stream ErrCorrupt. io.EOF comes only
// when the source itself has ended.
func (a *Reader) Read(p []byte) (int, error) {
	if a.ended {
		return 0, io.EOF
	}
	n, err := a.raw.Read(p)
	a.n += int64(n)
	if a.n > a.limits.MaxBytes {
		return n, fault.New(fault.Invalid, "read archive", "", "%w of %d bytes uncompressed", ErrTooLarge, a.limits.MaxBytes)
	}
	if a.Compression != Plain && a.n > a.limits.RatioFloor && a.n/a.limits.MaxRatio > a.packed {
		return n, fault.New(fault.Invalid, "read archive", "", "%w: %d bytes came out of %d", ErrBomb, a.n, a.packed)
	}
	if err == nil {
		return n, nil
	}
	if err == io.EOF {
		err = a.end()
	} else {
		err = a.unpackError(err)
	}
	return n, err
}

// end makes sure that the source has nothing more after the last byte: what
// counts it or verifies its digest has then seen all of it.
func (a *Reader) end() error {
	_, err := a.source.ReadByte()
	if err == io.EOF {
		a.ended = true
		return io.EOF
	}
	if err == nil {
		return fault.New(fault.Invalid, "read archive", "", "%w: bytes follow the end of the compressed stream", ErrCorrupt)
	}
	return err
}

// unpackError tells a decompressor's complaint from a failure of the source.
func (a *Reader) unpackError(err error) error {
	if a.failed != nil {
		return sourceError(a.failed)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Invalid, "read archive", "", "%w: the %s stream ends early", ErrCorrupt, a.Compression)
	}
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return windowError("a window")
	}
	var corrupt bzip2.StructuralError
	for _, known := range []error{gzip.ErrChecksum, gzip.ErrHeader, zstd.ErrMagicMismatch, zstd.ErrCRCMismatch,
		zstd.ErrWindowSizeTooSmall, zstd.ErrBlockTooSmall, zstd.ErrDecoderSizeExceeded, zstd.ErrUnknownDictionary} {
		if errors.Is(err, known) {
			return fault.New(fault.Invalid, "read archive", "", "%w: %s: %w", ErrCorrupt, a.Compression, err)
		}
	}
	if errors.As(err, &corrupt) {
		return fault.New(fault.Invalid, "read archive", "", "%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("%s: %w", a.Compression, err)
}

// sourceError classifies a failure of what the archive comes from (a file, a
// connection), which says nothing about the archive itself.
func sourceError(err error) error {
	var f *fault.Error
	if errors.As(err, &f) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fault.Wrap("read archive", "", err)
}

// Bytes returns how many uncompressed bytes were read so far.
func (a *Reader) Bytes() int64 { return a.n }

// Close gives the buffers back.
func (a *Reader) Close() error {
	if a.source != nil {
		a.free()
		a.source.Reset(nil)
		sourcePool.Put(a.source)
		a.source, a.raw, a.ended = nil, nil, true
	}
	return nil
}
