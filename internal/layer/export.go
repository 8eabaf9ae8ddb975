package layer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Export writes the layer's uncompressed tar to w, byte for byte what was
// unpacked. The digest is computed while writing: when the last byte does not
// agree the error is ErrDigest, and what was written is of no use. A layer that
// is not Exact is fault.Unsupported. The caller holds the layer.
func (s *Store) Export(ctx context.Context, diffID digest.Digest, w io.Writer) error {
	return s.export(ctx, "export layer", diffID, w)
}

func (s *Store) export(ctx context.Context, op string, diffID digest.Digest, w io.Writer) error {
	l, err := s.Stat(diffID)
	if err != nil {
		return err
	}
	if !l.Exact {
		return inexact(op, l)
	}
	e := &exporter{ctx: ctx, w: w, hash: sha256.New(), root: -1, lost: -1}
	defer e.close()
	if err := e.run(s.dir(diffID)); err != nil {
		return fault.Wrap(op, diffID.String(), err)
	}
	if got := digest.NewDigest(digest.SHA256, e.hash); got != diffID {
		return fault.New(fault.Internal, op, diffID.String(), "%w: tree and record give %s", ErrDigest, got).WithHint(damagedHint)
	}
	return nil
}

// TarSize returns the length in bytes of what Export writes, from the record
// alone. A layer that is not Exact is fault.Unsupported.
func (s *Store) TarSize(diffID digest.Digest) (int64, error) {
	const op = "measure layer"
	l, err := s.Stat(diffID)
	if err != nil {
		return 0, err
	}
	if !l.Exact {
		return 0, inexact(op, l)
	}
	record, err := openRecord(filepath.Join(s.dir(diffID), recordName))
	if err != nil {
		return 0, fault.Wrap(op, diffID.String(), err)
	}
	defer record.close()
	for size := int64(0); ; {
		f, err := record.next()
		if err == io.EOF {
			return size, nil
		}
		if err == nil && f.path == "" {
			err = record.raw(io.Discard)
		}
		if err != nil {
			return 0, fault.Wrap(op, diffID.String(), err)
		}
		size += f.n
	}
}

// inexact refuses a layer whose tar is not known byte for byte.
func inexact(op string, l Layer) error {
	why := l.Inexact
	if why == "" {
		why = "it was unpacked by an older version, which kept no record"
	}
	return fault.New(fault.Unsupported, op, l.DiffID.String(), "its tar cannot be written again: %s", why).
		WithHint("pull the image again")
}

const damagedHint = "the files of the layer were changed on disk; remove the image and pull it again"

// exporter puts a tar together from a tree and its record.
type exporter struct {
	ctx    context.Context
	w      io.Writer
	hash   hash.Hash
	root   int // descriptors: of the tree, of what was lost
	lost   int
	losses losses
	frames int64
	buf    []byte
}

func (e *exporter) close() {
	for _, fd := range [...]int{e.root, e.lost} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// Write is for the record's raw bytes.
func (e *exporter) Write(b []byte) (int, error) {
	e.hash.Write(b)
	return e.w.Write(b)
}

func (e *exporter) run(dir string) (err error) {
	if e.losses, err = readLosses(dir); err != nil {
		return err
	}
	if e.root, err = unix.Open(filepath.Join(dir, "tree"), dirFlags|unix.O_NOFOLLOW, 0); err != nil {
		return err
	}
	if e.losses != nil {
		if e.lost, err = unix.Open(filepath.Join(dir, lostName), dirFlags|unix.O_NOFOLLOW, 0); err != nil {
			return err
		}
	}
	record, err := openRecord(filepath.Join(dir, recordName))
	if err != nil {
		return err
	}
	defer record.close()
	buf := copyPool.Get().(*[]byte)
	defer copyPool.Put(buf)
	e.buf = *buf
	for {
		f, err := record.next()
		if err == io.EOF {
			return nil
		}
		if err == nil && f.path == "" {
			err = record.raw(e)
		} else if err == nil {
			err = e.content(f)
			e.frames++
		}
		if err == nil {
			err = e.ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// content writes the content of the file that a frame names.
func (e *exporter) content(f frame) error {
	root, p := e.root, f.path
	if lost := e.losses.find(f.path, e.frames); lost != "" {
		root, p = e.lost, lost
	}
	fd, err := openat2(root, p, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK, Resolve: dirResolve})
	if err != nil {
		return fault.New(fault.Internal, "open file", quote(f.path), "%w: %w", ErrDigest, err).WithHint(damagedHint)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fault.Wrap("look at file", quote(f.path), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != f.n {
		return fault.New(fault.Internal, "read file", quote(f.path), "%w: it has %d bytes, and had %d", ErrDigest, st.Size, f.n).WithHint(damagedHint)
	}
	var crc uint32
	for left := f.n; left > 0; {
		b := e.buf[:min(left, int64(len(e.buf)))]
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: it ends early", ErrDigest)
		}
		if err == nil {
			err = e.ctx.Err()
		}
		if err != nil {
			return fault.Wrap("read file", quote(f.path), err)
		}
		crc = crc32.Update(crc, castagnoli, b[:n])
		if _, err := e.Write(b[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	if crc != f.crc {
		return fault.New(fault.Internal, "read file", quote(f.path), "%w: its content is another than it was", ErrDigest).WithHint(damagedHint)
	}
	return nil
}
