package content

import (
	"crypto/sha256"
	"hash"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

// Writer takes one blob in pieces. It must be closed; without a Commit before,
// nothing is kept. It is not safe for concurrent use.
type Writer struct {
	store    *Store
	file     *os.File
	hash     hash.Hash
	n        int64
	expected digest.Digest
	size     int64
}

// Writer starts a blob; expected and size are as for Ingest.
func (s *Store) Writer(expected digest.Digest, size int64) (*Writer, error) {
	if expected != "" {
		if err := CheckDigest(expected); err != nil {
			return nil, err
		}
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, "ingest"), "blob-")
	if err != nil {
		return nil, wrap("store blob", expected, err)
	}
	return &Writer{store: s, file: f, hash: sha256.New(), expected: expected, size: size}, nil
}

// Write appends to the blob.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	w.n += int64(n)
	return n, wrap("store blob", w.expected, err)
}

// Commit verifies what was written and gives it its name. It can be called
// once.
func (w *Writer) Commit() (Info, error) { return w.CommitTo(nil) }

// CommitTo is Commit with the blob held by h from before it is there: for those
// who learn the digest only from the bytes. h may be nil.
func (w *Writer) CommitTo(h *Hold) (Info, error) {
	const op = "store blob"
	got := digest.NewDigest(digest.SHA256, w.hash)
	if w.size >= 0 && w.n != w.size {
		more := ""
		if w.n > w.size {
			more = "at least "
		}
		return Info{}, fault.New(fault.Invalid, op, got.String(), "%w: got %s%d bytes, want %d", ErrSize, more, w.n, w.size)
	}
	if w.expected != "" && got != w.expected {
		return Info{}, fault.New(fault.Invalid, op, w.expected.String(), "%w: the bytes have digest %s", ErrDigest, got)
	}
	to, err := w.store.path(got)
	if err != nil {
		return Info{}, err
	}
	if h != nil {
		h.Add(got)
	}
	tmp := w.file.Name()
	err = w.file.Close()
	w.file = nil
	if err == nil {
		err = os.Rename(tmp, to)
	}
	if err != nil {
		os.Remove(tmp)
		return Info{}, wrap(op, got, err)
	}
	return Info{Digest: got, Size: w.n}, nil
}

// Close drops the blob unless it was committed.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	if e := os.Remove(w.file.Name()); err == nil {
		err = e
	}
	w.file = nil
	return err
}
