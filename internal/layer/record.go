package layer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A record holds what of a tar is not the content of a file in the tree, so
// that tree and record together give the very same bytes again. It is a
// sequence of frames in the order of the tar, zstd over all of it:
//
//	raw      uvarint(n<<1), n bytes: headers, padding, end marks, content of
//	         entries that leave none in the tree
//	content  uvarint(n<<1|1), uvarint(length of path), path, CRC-32C (4 bytes,
//	         little endian): n bytes are the content of the file at path
//
// Paths are relative to the tree. A path's file may be replaced by a later
// entry: it is then kept beside the tree, see losses.
const (
	recordName  = "tar.rec"
	recordMagic = "berth tar record 1\n"
	rawFrame    = 32 << 10 // bytes gathered for a frame of raw bytes
)

// recordWriter writes a record. Errors are kept and returned by close, as what
// is written in between cannot be judged by its caller.
type recordWriter struct {
	file   *os.File
	zstd   *zstd.Encoder
	buf    []byte // raw bytes that are in no frame yet
	frames int64  // content frames so far
	err    error
}

var recordEncoders sync.Pool

// createRecord begins a record in a new file.
func createRecord(path string) (*recordWriter, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	z, _ := recordEncoders.Get().(*zstd.Encoder)
	if z == nil {
		// Headers repeat what stood some hundred bytes before.
		z, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(64<<10), zstd.WithLowerEncoderMem(true))
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	z.Reset(f)
	w := &recordWriter{file: f, zstd: z, buf: make([]byte, 0, rawFrame)}
	w.write([]byte(recordMagic))
	return w, nil
}

func (w *recordWriter) write(b []byte) {
	if w.err == nil {
		_, w.err = w.zstd.Write(b)
	}
}

// raw adds bytes that are nobody's content.
func (w *recordWriter) raw(b []byte) {
	for len(b) > 0 {
		n := copy(w.buf[len(w.buf):cap(w.buf)], b)
		w.buf, b = w.buf[:len(w.buf)+n], b[n:]
		if len(w.buf) == cap(w.buf) {
			w.flush()
		}
	}
}

func (w *recordWriter) flush() {
	if len(w.buf) == 0 {
		return
	}
	var head [binary.MaxVarintLen64]byte
	w.write(binary.AppendUvarint(head[:0], uint64(len(w.buf))<<1))
	w.write(w.buf)
	w.buf = w.buf[:0]
}

// content says that n bytes came from the file dir/base, which has the checksum.
func (w *recordWriter) content(dir, base string, n int64, crc uint32) {
	w.flush()
	head := make([]byte, 0, 2*binary.MaxVarintLen64+len(dir)+len(base)+5)
	p := join(dir, base)
	head = binary.AppendUvarint(head, uint64(n)<<1|1)
	head = binary.AppendUvarint(head, uint64(len(p)))
	head = append(head, p...)
	w.write(binary.LittleEndian.AppendUint32(head, crc))
	w.frames++
}

// close ends the record and returns what went wrong with any part of it.
func (w *recordWriter) close() error {
	w.flush()
	if err := w.zstd.Close(); w.err == nil {
		w.err = err
	}
	w.zstd.Reset(nil)
	recordEncoders.Put(w.zstd)
	w.zstd = nil
	if err := w.file.Close(); w.err == nil {
		w.err = err
	}
	return w.err
}

// tap passes a tar on to its reader and records what passes, except where it is
// told that a file takes it.
type tap struct {
	r      io.Reader
	record *recordWriter
	file   bool // what passes goes into a file
}

func (t *tap) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	if !t.file && n > 0 {
		t.record.raw(b[:n])
	}
	return n, err
}

// frame is one frame of a record.
type frame struct {
	n    int64
	path string // "" for raw bytes, which then are to be read from recordReader.raw
	crc  uint32
}

// recordReader reads a record. A record that does not make sense is errRecord.
type recordReader struct {
	file *os.File
	zstd *zstd.Decoder
	in   *bufio.Reader
	left int64 // raw bytes of the last frame that were not read yet
}

var errRecord = errors.New("the layer's record is damaged")

func openRecord(path string) (*recordReader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(1<<20))
	if err != nil {
		f.Close()
		return nil, err
	}
	r := &recordReader{file: f, zstd: z, in: bufio.NewReaderSize(z, 2*rawFrame)}
	magic := make([]byte, len(recordMagic))
	if _, err := io.ReadFull(r.in, magic); err != nil || string(magic) != recordMagic {
		r.close()
		return nil, errRecord
	}
	return r, nil
}

func (r *recordReader) close() {
	r.zstd.Close()
	r.file.Close()
}

// next returns the next frame, or io.EOF. The raw bytes of the last one must
// have been read.
func (r *recordReader) next() (frame, error) {
	head, err := binary.ReadUvarint(r.in)
	if err != nil {
		if err == io.EOF {
			return frame{}, io.EOF
		}
		return frame{}, r.damaged(err)
	}
	f := frame{n: int64(head >> 1)}
	if f.n < 0 {
		return frame{}, errRecord
	}
	if head&1 == 0 {
		r.left = f.n
		return f, nil
	}
	n, err := binary.ReadUvarint(r.in)
	if err != nil || n == 0 || n > maxPath {
		return frame{}, r.damaged(err)
	}
	b := make([]byte, n+4)
	if _, err := io.ReadFull(r.in, b); err != nil {
		return frame{}, r.damaged(err)
	}
	f.path, f.crc = string(b[:n]), binary.LittleEndian.Uint32(b[n:])
	return f, nil
}

// raw writes the raw bytes of the frame that next returned.
func (r *recordReader) raw(w io.Writer) error {
	for r.left > 0 {
		b, err := r.in.Peek(int(min(r.left, 2*rawFrame)))
		if len(b) == 0 {
			return r.damaged(err)
		}
		n, err := w.Write(b)
		r.in.Discard(n)
		r.left -= int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *recordReader) damaged(err error) error {
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		return errRecord
	}
	return fmt.Errorf("%w: %w", errRecord, err)
}
