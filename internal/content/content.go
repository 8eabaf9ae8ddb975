// Package content keeps blobs by their digest: what is under a digest always
// has that digest, whatever happened while it was written. It exists so that
// configs, manifests and compressed layers are stored once and verified once.
package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// Errors that a caller can tell apart with errors.Is.
var (
	ErrDigest = errors.New("digest mismatch")
	ErrSize   = errors.New("size mismatch")
)

// Info describes a stored blob.
type Info struct {
	Digest digest.Digest
	Size   int64 // bytes
}

// Store is a directory of blobs: blobs/sha256/<hex>, and ingest/ for what is
// being written. It is safe for concurrent use.
//
// A blob gets its name with a rename after it was verified, so a killed process
// leaves no wrong blob. Data is not synced to disk one blob at a time: whoever
// records that a blob exists calls Sync first, and CollectAll at start removes
// the blobs that no record names; that keeps a blob torn by a power cut from
// ever being used.
type Store struct {
	dir string
	collector
}

// Open opens the store in dir, creating it when missing, and removes what an
// interrupted ingest left behind. Partial blobs stay for a day.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, collector: collector{
		held: map[digest.Digest]int{}, asked: map[digest.Digest]*asked{}, parts: map[string]bool{},
	}}
	for _, d := range []string{filepath.Join(dir, "ingest"), filepath.Join(dir, "blobs", string(digest.SHA256))} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fault.Wrap("open content store", dir, err)
		}
	}
	if err := s.sweepIngest(); err != nil {
		return nil, fault.Wrap("open content store", dir, err)
	}
	return s, nil
}

// path returns where a blob is. Digests come from hostile documents and are
// checked here, at the only place where one becomes part of a path.
func (s *Store) path(d digest.Digest) (string, error) {
	if err := CheckDigest(d); err != nil {
		return "", err
	}
	return filepath.Join(s.dir, "blobs", string(digest.SHA256), d.Encoded()), nil
}

// CheckDigest reports whether d is a well-formed sha256 digest, the only
// algorithm that registries and archives use in practice.
func CheckDigest(d digest.Digest) error {
	const prefix = "sha256:"
	ok := len(d) == len(prefix)+64 && d[:len(prefix)] == prefix
	for i := len(prefix); ok && i < len(d); i++ {
		ok = d[i] >= '0' && d[i] <= '9' || d[i] >= 'a' && d[i] <= 'f'
	}
	if !ok {
		return fault.New(fault.Invalid, "check digest", fmt.Sprintf("%.80q", string(d)), "not a sha256 digest")
	}
	return nil
}

// Ingest stores r and returns what it stored. When expected is not "" the bytes
// must have that digest (ErrDigest), when size is not negative that length
// (ErrSize; never more than size+1 bytes are read); else nothing is kept.
// Several ingests of one digest may run at once. A full disk is
// fault.Exhausted, and the space is free again when Ingest returns.
func (s *Store) Ingest(ctx context.Context, r io.Reader, expected digest.Digest, size int64) (Info, error) {
	w, err := s.Writer(expected, size)
	if err != nil {
		return Info{}, err
	}
	defer w.Close()
	if size >= 0 {
		r = io.LimitReader(r, size+1)
	}
	from := &ctxReader{ctx: ctx, r: r}
	if _, err := io.Copy(w, from); err != nil {
		if from.err != nil {
			err = wrap("store blob", expected, err)
		}
		return Info{}, err
	}
	return w.Commit()
}

// Has reports whether the blob is stored.
func (s *Store) Has(d digest.Digest) bool {
	_, err := s.Stat(d)
	return err == nil
}

// Stat returns the blob's size, or fault.NotFound.
func (s *Store) Stat(d digest.Digest) (Info, error) {
	p, err := s.path(d)
	if err != nil {
		return Info{}, err
	}
	fi, err := os.Stat(p)
	if err != nil {
		return Info{}, wrap("find blob", d, err)
	}
	return Info{Digest: d, Size: fi.Size()}, nil
}

// Open returns the blob for reading, or fault.NotFound.
func (s *Store) Open(d digest.Digest) (*os.File, error) {
	p, err := s.path(d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	return f, wrap("open blob", d, err)
}

// Read returns a whole blob, verified anew. One of more than limit bytes is
// refused with fault.Invalid.
func (s *Store) Read(d digest.Digest, limit int64) ([]byte, error) {
	f, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, wrap("read blob", d, err)
	}
	if int64(len(data)) > limit {
		return nil, fault.New(fault.Invalid, "read blob", d.String(), "larger than %d bytes: %w", limit, ErrSize)
	}
	if got := digest.FromBytes(data); got != d {
		return nil, fault.New(fault.Internal, "read blob", d.String(), "the stored bytes have digest %s: %w", got, ErrDigest).
			WithHint("the disk or another program changed the file; remove and pull the image again")
	}
	return data, nil
}

// Walk calls fn for each blob, in no order. Files that are no blobs are passed
// over.
func (s *Store) Walk(fn func(Info) error) error {
	dir, err := os.Open(filepath.Join(s.dir, "blobs", string(digest.SHA256)))
	if err != nil {
		return fault.Wrap("walk content store", s.dir, err)
	}
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(256)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fault.Wrap("walk content store", s.dir, err)
		}
		for _, e := range entries {
			d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
			fi, err := e.Info()
			if CheckDigest(d) != nil || err != nil || !fi.Mode().IsRegular() {
				continue // not ours, or deleted meanwhile
			}
			if err := fn(Info{Digest: d, Size: fi.Size()}); err != nil {
				return err
			}
		}
	}
}

// Sync brings everything written below the store so far to the disk, and with
// it everything else on its file system: one call for all files of an image is
// far cheaper than one for each.
func (s *Store) Sync() error {
	f, err := os.Open(s.dir)
	if err != nil {
		return fault.Wrap("sync content store", s.dir, err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return wrap("sync content store", "", err)
	}
	return nil
}

// ctxReader ends reading when the context does. It remembers its error.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
	err error // other than io.EOF
}

func (c *ctxReader) Read(p []byte) (n int, err error) {
	if err = c.ctx.Err(); err == nil {
		n, err = c.r.Read(p)
	}
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// wrap classifies an error of the file system. It returns nil for nil.
func wrap(op string, d digest.Digest, err error) error {
	if err == nil {
		return nil
	}
	kind := fault.KindOf(err)
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = fault.NotFound
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind, hint = fault.Exhausted, "free some disk space, for example with `berth rmi`"
	}
	return &fault.Error{Kind: kind, Op: op, Subject: d.String(), Err: err, Hint: hint}
}
