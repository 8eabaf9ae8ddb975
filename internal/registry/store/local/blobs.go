package local

import (
	"context"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/metadata"
	"berth/internal/registry/store"
)

// buffers are what bodies are copied through: large enough that system calls
// do not count, few enough that sixteen clients do not either.
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

func copyBuffered(w io.Writer, r io.Reader) (int64, error) {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	// Neither side may take the copy over: the pooled buffer is the point.
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, *b)
}

// stored returns the digest under which the content store has the blob.
func (b blob) stored(d digest.Digest) digest.Digest {
	if b.Content != "" {
		return b.Content
	}
	return d
}

func getBlob(tx *metadata.Tx, repo string, d digest.Digest) (blob, error) {
	return blobs.Get(tx, key(repo, d.String()))
}

// putBlob links a blob in a transaction. Linking again keeps the rest.
func putBlob(tx *metadata.Tx, repo string, d digest.Digest, b blob) error {
	if err := ensureRepository(tx, repo); err != nil {
		return err
	}
	if err := blobs.Put(tx, key(repo, d.String()), b); err != nil {
		return err
	}
	return uses.Put(tx, key(b.stored(d).String(), repo, d.String()), empty{})
}

func dropBlob(tx *metadata.Tx, repo string, d digest.Digest, b blob) error {
	if err := blobs.Delete(tx, key(repo, d.String())); err != nil {
		return err
	}
	// A manifest may be linked as a blob, too.
	if _, err := manifests.Get(tx, key(repo, d.String())); err == nil {
		return nil
	}
	return dropUse(tx, repo, d, b.stored(d))
}

// dropUse says that a repository does not need d any more, which is stored as
// stored.
func dropUse(tx *metadata.Tx, repo string, d, stored digest.Digest) error {
	if err := uses.Delete(tx, key(stored.String(), repo, d.String())); err != nil || stored == d {
		return err
	}
	others := false
	_, err := uses.Range(tx, key(stored.String(), ""), "", func(k string, _ empty) bool {
		others = strings.HasSuffix(k, " "+d.String())
		return !others
	})
	if err != nil || others {
		return err
	}
	return alternates.Delete(tx, d.String())
}

func ensureRepository(tx *metadata.Tx, repo string) error {
	_, err := repositories.Get(tx, repo)
	if fault.Is(err, fault.NotFound) {
		return repositories.Put(tx, repo, repository{Created: time.Now().UTC()})
	}
	return err
}

// Blob implements store.Storage.
func (s *Store) Blob(_ context.Context, repo string, d digest.Digest) (store.Blob, error) {
	b, err := s.blob(repo, d)
	return store.Blob{Digest: d, Size: b.Size}, err
}

func (s *Store) blob(repo string, d digest.Digest) (b blob, err error) {
	err = s.db.View(func(tx *metadata.Tx) error {
		b, err = getBlob(tx, repo, d)
		return err
	})
	return b, err
}

// Blobs implements store.Storage.
func (s *Store) Blobs(_ context.Context, repo string, after digest.Digest, fn func(store.Blob) bool) error {
	return s.db.View(func(tx *metadata.Tx) error {
		prefix := key(repo, "")
		_, err := blobs.Range(tx, prefix, prefix+after.String(), func(k string, b blob) bool {
			return fn(store.Blob{Digest: digest.Digest(k[len(prefix):]), Size: b.Size, Linked: b.Linked})
		})
		return err
	})
}

// OpenBlob implements store.Storage.
func (s *Store) OpenBlob(_ context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, store.Blob, error) {
	b, err := s.blob(repo, d)
	if err != nil {
		return nil, store.Blob{}, err
	}
	f, err := s.content.Open(b.stored(d))
	if err != nil {
		return nil, store.Blob{}, err
	}
	return f, store.Blob{Digest: d, Size: b.Size}, nil
}

// link records a blob that was just stored and is held.
func (s *Store) link(repo string, d, stored digest.Digest, size int64) (store.Blob, error) {
	s.sync.add(stored)
	b := blob{Size: size, Linked: time.Now().UTC()}
	if stored != d {
		b.Content = stored
	}
	err := s.db.Update(func(tx *metadata.Tx) error {
		if err := probation.Put(tx, stored.String(), empty{}); err != nil {
			return err
		}
		if stored != d {
			if err := alternates.Put(tx, d.String(), stored); err != nil {
				return err
			}
		}
		return putBlob(tx, repo, d, b)
	})
	return store.Blob{Digest: d, Size: size}, err
}

// PutBlob implements store.Storage.
func (s *Store) PutBlob(ctx context.Context, repo string, r io.Reader, d digest.Digest, size int64) (store.Blob, error) {
	if d.Algorithm() != digest.SHA256 {
		return s.putOther(ctx, repo, r, d, size)
	}
	w, err := s.content.Writer(d, size)
	if err != nil {
		return store.Blob{}, err
	}
	defer w.Close()
	if size >= 0 {
		r = io.LimitReader(r, size+1)
	}
	if _, err := copyBuffered(w, r); err != nil {
		return store.Blob{}, fault.Wrap("store blob", d.String(), err)
	}
	hold := s.content.Hold()
	defer hold.Release()
	hold.Add(d)
	info, err := w.Commit()
	if err != nil {
		return store.Blob{}, err
	}
	return s.link(repo, d, info.Digest, info.Size)
}

// putOther stores a blob whose digest is of another algorithm than the content
// store's.
func (s *Store) putOther(ctx context.Context, repo string, r io.Reader, d digest.Digest, size int64) (store.Blob, error) {
	u, err := s.Upload(ctx, "whole-"+rand.Text())
	if err != nil {
		return store.Blob{}, err
	}
	defer u.Discard()
	if size >= 0 {
		r = io.LimitReader(r, size+1)
	}
	if n, err := copyBuffered(u, r); err != nil {
		return store.Blob{}, fault.Wrap("store blob", d.String(), err)
	} else if size >= 0 && n != size {
		return store.Blob{}, fault.New(fault.Invalid, "store blob", d.String(), "%w: want %d bytes", content.ErrSize, size)
	}
	return u.Commit(ctx, repo, d)
}

// upload implements store.Upload.
type upload struct {
	*content.Partial
	store *Store
}

// Upload implements store.Storage.
func (s *Store) Upload(_ context.Context, key string) (store.Upload, error) {
	p, err := s.content.Resume(key)
	if err != nil {
		return nil, err
	}
	return upload{p, s}, nil
}

// Reader implements store.Upload.
func (u upload) Reader() io.ReaderAt { return u.Partial.Reader().(io.ReaderAt) }

// Commit implements store.Upload.
func (u upload) Commit(_ context.Context, repo string, d digest.Digest) (store.Blob, error) {
	expected := d
	if d.Algorithm() != digest.SHA256 {
		if err := u.checkOther(d); err != nil {
			return store.Blob{}, err
		}
		var err error
		if expected, err = u.Digest(); err != nil {
			return store.Blob{}, err
		}
	}
	hold := u.store.content.Hold()
	defer hold.Release()
	hold.Add(expected)
	info, err := u.Partial.Commit(expected, -1)
	if err != nil {
		return store.Blob{}, err
	}
	return u.store.link(repo, d, info.Digest, info.Size)
}

// checkOther verifies a digest that is not computed while the bytes arrive.
func (u upload) checkOther(d digest.Digest) error {
	if d.Algorithm() != digest.SHA512 {
		return fault.New(fault.Unsupported, "store blob", d.String(), "the digest algorithm is neither sha256 nor sha512")
	}
	h := sha512.New()
	if _, err := copyBuffered(h, u.Partial.Reader()); err != nil {
		return fault.Wrap("store blob", d.String(), err)
	}
	if got := digest.NewDigest(digest.SHA512, h); got != d {
		return fault.New(fault.Invalid, "store blob", d.String(), "%w: the bytes have digest %s", content.ErrDigest, got)
	}
	return nil
}

// Mount implements store.Storage.
func (s *Store) Mount(_ context.Context, repo, from string, d digest.Digest) (store.Blob, error) {
	b, err := s.blob(from, d)
	if err != nil {
		return store.Blob{}, err
	}
	stored := b.stored(d)
	hold := s.content.Hold()
	defer hold.Release()
	hold.Add(stored)
	if !s.content.Has(stored) {
		return store.Blob{}, fault.New(fault.NotFound, "mount blob", d.String(), "no such blob")
	}
	err = s.db.Update(func(tx *metadata.Tx) error {
		// It may have been deleted since, and then who asks may not have it.
		if _, err := getBlob(tx, from, d); err != nil {
			return err
		}
		b.Linked = time.Now().UTC()
		return putBlob(tx, repo, d, b)
	})
	return store.Blob{Digest: d, Size: b.Size}, err
}

// LinkBlobs implements store.Linker.
func (s *Store) LinkBlobs(_ context.Context, repo string, list []store.Blob) error {
	hold := s.content.Hold()
	defer hold.Release()
	for _, b := range list {
		hold.Add(b.Digest)
		info, err := s.content.Stat(b.Digest)
		if err != nil {
			return err
		}
		if info.Size != b.Size {
			return fault.New(fault.Invalid, "link blob", b.Digest.String(), "%w: %d bytes are stored, not %d", content.ErrSize, info.Size, b.Size)
		}
		s.sync.add(b.Digest)
	}
	now := time.Now().UTC()
	return s.db.Update(func(tx *metadata.Tx) error {
		for _, b := range list {
			if err := probation.Put(tx, b.Digest.String(), empty{}); err != nil {
				return err
			}
			if err := putBlob(tx, repo, b.Digest, blob{Size: b.Size, Linked: now}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Holders implements store.Storage.
func (s *Store) Holders(_ context.Context, d digest.Digest, fn func(repo string) bool) error {
	return s.db.View(func(tx *metadata.Tx) error {
		stored := d
		if d.Algorithm() != digest.SHA256 {
			var err error
			if stored, err = alternates.Get(tx, d.String()); err != nil {
				if fault.Is(err, fault.NotFound) {
					return nil
				}
				return err
			}
		}
		prefix := key(stored.String(), "")
		_, err := uses.Range(tx, prefix, "", func(k string, _ empty) bool {
			repo, named, _ := cutKey(k[len(prefix):])
			if named != d.String() {
				return true
			}
			if _, err := getBlob(tx, repo, d); err != nil {
				return true // linked as a manifest only
			}
			return fn(repo)
		})
		return err
	})
}

// DeleteBlob implements store.Storage.
func (s *Store) DeleteBlob(_ context.Context, repo string, d digest.Digest) error {
	var b blob
	err := s.db.Update(func(tx *metadata.Tx) error {
		var err error
		if b, err = getBlob(tx, repo, d); err != nil {
			return err
		}
		if err := dropBlob(tx, repo, d, b); err != nil {
			return err
		}
		return dropIfEmpty(tx, repo)
	})
	if err != nil {
		return err
	}
	_, err = s.content.Collect(b.stored(d))
	return err
}

// dropIfEmpty forgets a repository that holds nothing any more.
func dropIfEmpty(tx *metadata.Tx, repo string) error {
	some := false
	seen := func() bool { some = true; return false }
	_, e1 := blobs.Range(tx, key(repo, ""), "", func(string, blob) bool { return seen() })
	_, e2 := manifests.Range(tx, key(repo, ""), "", func(string, store.Manifest) bool { return seen() })
	_, e3 := tags.Range(tx, key(repo, ""), "", func(string, tag) bool { return seen() })
	if err := errors.Join(e1, e2, e3); err != nil || some {
		return err
	}
	return repositories.Delete(tx, repo)
}
