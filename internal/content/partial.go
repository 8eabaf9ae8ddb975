package content

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

const (
	partSuffix  = ".part"
	partialLife = 24 * time.Hour // since its last byte; then Open removes it
)

// Partial is a blob that arrives in pieces, possibly over several lives of the
// process. What is in it is not verified before Commit. It must be closed. It
// is not safe for concurrent use, except that a Reader may be read meanwhile.
type Partial struct {
	store  *Store
	key    string
	file   *os.File
	size   int64
	hash   hash.Hash
	hashed int64 // how much of the file is in hash
}

// Resume opens the partial blob of that name, or begins it. key is up to 80
// letters, digits, "_" and "-"; it is the caller's: the hex digits of a digest,
// or the id of an upload. While somebody has it open, others get
// fault.Conflict.
func (s *Store) Resume(key string) (*Partial, error) {
	const op = "resume blob"
	if err := checkKey(key); err != nil {
		return nil, err
	}
	s.mu.Lock()
	busy := s.parts[key]
	s.parts[key] = true
	s.mu.Unlock()
	if busy {
		return nil, fault.New(fault.Conflict, op, key, "somebody else is writing it")
	}
	f, err := os.OpenFile(s.part(key), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		s.leave(key)
		return nil, wrap(op, "", err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		s.leave(key)
		return nil, wrap(op, "", err)
	}
	return &Partial{store: s, key: key, file: f, size: fi.Size(), hash: sha256.New()}, nil
}

func (s *Store) part(key string) string { return filepath.Join(s.dir, "ingest", key+partSuffix) }

func (s *Store) leave(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.parts, key)
}

// checkKey reports whether a key, which may come from a client, can be a file's
// name.
func checkKey(key string) error {
	ok := len(key) >= 1 && len(key) <= 80
	for i := 0; ok && i < len(key); i++ {
		c := key[i]
		ok = c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-'
	}
	if !ok {
		return fault.New(fault.Invalid, "resume blob", fmt.Sprintf("%.90q", key), "not a key of a partial blob")
	}
	return nil
}

// Size returns how many bytes are there.
func (p *Partial) Size() int64 { return p.size }

// Reader reads what is there now, from the start.
func (p *Partial) Reader() io.Reader { return io.NewSectionReader(p.file, 0, p.size) }

// Write appends.
func (p *Partial) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	if p.hashed == p.size {
		p.hash.Write(b[:n])
		p.hashed += int64(n)
	}
	p.size += int64(n)
	return n, wrap("store blob", "", err)
}

// Truncate drops everything after the first size bytes, such as a piece of
// which not all came.
func (p *Partial) Truncate(size int64) error {
	if size < 0 || size > p.size {
		return fault.New(fault.Invalid, "resume blob", p.key, "%d of %d bytes cannot be kept", size, p.size)
	}
	if err := p.file.Truncate(size); err != nil {
		return wrap("resume blob", "", err)
	}
	p.size = size
	if p.hashed > size {
		p.hash.Reset()
		p.hashed = 0
	}
	return nil
}

// Digest returns the digest of what is there. After Resume it reads the file
// once; after that it costs nothing.
func (p *Partial) Digest() (digest.Digest, error) {
	n, err := io.Copy(p.hash, io.NewSectionReader(p.file, p.hashed, p.size-p.hashed))
	p.hashed += n
	if err == nil && p.hashed != p.size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		p.hash.Reset()
		p.hashed = 0
		return "", wrap("read blob", "", err)
	}
	return digest.NewDigest(digest.SHA256, p.hash), nil
}

// Commit verifies the bytes and gives the blob its name: its digest must be
// expected unless that is "" (ErrDigest), its length size unless that is
// negative (ErrSize). Whoever wants to keep it holds its digest before. After
// an error it is open as before, and Close or Discard decides what becomes of
// it; after success it is closed.
func (p *Partial) Commit(expected digest.Digest, size int64) (Info, error) {
	const op = "store blob"
	if expected != "" {
		if err := CheckDigest(expected); err != nil {
			return Info{}, err
		}
	}
	if p.file == nil {
		return Info{}, fault.New(fault.Internal, op, p.key, "the partial blob is closed")
	}
	if size >= 0 && p.size != size {
		return Info{}, fault.New(fault.Invalid, op, expected.String(), "%w: got %d bytes, want %d", ErrSize, p.size, size)
	}
	got, err := p.Digest()
	if err != nil {
		return Info{}, err
	}
	if expected != "" && got != expected {
		return Info{}, fault.New(fault.Invalid, op, expected.String(), "%w: the bytes have digest %s", ErrDigest, got)
	}
	to, err := p.store.path(got)
	if err != nil {
		return Info{}, err
	}
	if err := os.Rename(p.store.part(p.key), to); err != nil {
		return Info{}, wrap(op, got, err)
	}
	return Info{Digest: got, Size: p.size}, p.Close()
}

// Close keeps what is there for a later Resume.
func (p *Partial) Close() error {
	if p.file == nil {
		return nil
	}
	err := p.file.Close()
	p.file = nil
	p.store.leave(p.key)
	return wrap("keep partial blob", "", err)
}

// Discard closes it and drops what is there. After Close or a successful Commit
// it does nothing.
func (p *Partial) Discard() error {
	if p.file == nil {
		return nil
	}
	err := os.Remove(p.store.part(p.key))
	if e := p.Close(); err == nil {
		err = e
	}
	return wrap("drop partial blob", "", err)
}

// DropPartials removes partial blobs to which nothing was added for olderThan
// and that nobody has open. It returns how many bytes that freed.
func (s *Store) DropPartials(olderThan time.Duration) (freed int64, err error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "ingest"))
	if err != nil {
		return 0, wrap("drop partial blobs", "", err)
	}
	for _, e := range entries {
		key, ok := strings.CutSuffix(e.Name(), partSuffix)
		fi, statErr := e.Info()
		if !ok || statErr != nil || time.Since(fi.ModTime()) < olderThan {
			continue
		}
		s.mu.Lock()
		busy := s.parts[key]
		if !busy {
			if e := os.Remove(s.part(key)); e == nil {
				freed += fi.Size()
			} else if err == nil && !errors.Is(e, fs.ErrNotExist) {
				err = wrap("drop partial blobs", "", e)
			}
		}
		s.mu.Unlock()
	}
	return freed, err
}

// sweepIngest removes what an interrupted process left of whole ingests, and
// partial blobs that nobody came back for.
func (s *Store) sweepIngest() error {
	ingest := filepath.Join(s.dir, "ingest")
	entries, err := os.ReadDir(ingest)
	if err != nil {
		return err
	}
	for _, e := range entries {
		key, part := strings.CutSuffix(e.Name(), partSuffix)
		if fi, err := e.Info(); part && checkKey(key) == nil && err == nil && fi.Mode().IsRegular() && time.Since(fi.ModTime()) < partialLife {
			continue
		}
		err := os.RemoveAll(filepath.Join(ingest, e.Name()))
		if errors.Is(err, syscall.EROFS) {
			return nil // nothing can be added either
		}
		if err != nil {
			return err
		}
	}
	return nil
}
