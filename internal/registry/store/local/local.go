// Package local keeps a registry's repositories in a content store and a
// database: an engine's own, so that engine and registry hold every blob once,
// or two of its own in a directory. It exists so that a push is safe at the
// instant it is acknowledged and cheap before.
//
// A blob is linked with one commit, shared with others that come meanwhile, and
// is not forced to disk then. It is on probation until the next sync of the
// store: before a manifest is acknowledged, or in the background. What a power
// cut leaves on probation is read again at the next start, and unlinked if it is
// torn. A killed process needs none of that: its writes are with the kernel.
package local

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/metadata"
	"berth/internal/registry/store"
)

// repository, blob and note are records. Keys of what belongs to a repository
// are "repository thing"; a space comes before all characters of a name.
type (
	repository struct{ Created time.Time }
	tag        struct {
		Digest digest.Digest
		Pushed time.Time
	}
	blob struct {
		Size    int64
		Content digest.Digest `json:",omitempty"` // under which it is stored, if not its own
		Linked  time.Time
	}
	empty struct{}
)

var (
	repositories = metadata.NewBucket[repository]("registry-repositories")
	tags         = metadata.NewBucket[tag]("registry-tags")
	manifests    = metadata.NewBucket[store.Manifest]("registry-manifests")
	blobs        = metadata.NewBucket[blob]("registry-blobs")
	referrers    = metadata.NewBucket[empty]("registry-referrers") // "repository subject digest"
	uses         = metadata.NewBucket[empty]("registry-uses")      // "stored-digest repository digest"
	probation    = metadata.NewBucket[empty]("registry-probation") // stored digests
	notes        = metadata.NewBucket[[]byte]("registry-notes")
	// alternates are stored digests of what has another digest by name.
	alternates = metadata.NewBucket[digest.Digest]("registry-alternates")
)

func key(parts ...string) string { return strings.Join(parts, " ") }

// Store implements store.Storage and store.Linker.
type Store struct {
	content *content.Store
	db      *metadata.DB
	log     *slog.Logger
	own     bool // content and db belong to this store alone

	sync   syncer
	closed chan struct{}
	wg     sync.WaitGroup
}

// Open opens a registry's storage over an engine's stores and registers it as
// an owner of blobs.
func Open(c *content.Store, db *metadata.DB, log *slog.Logger) (*Store, error) {
	s := &Store{content: c, db: db, log: log, closed: make(chan struct{})}
	if err := s.endProbation(); err != nil {
		return nil, err
	}
	s.sync.init(s)
	c.AddOwner(s.uses)
	return s, nil
}

// OpenDir opens a storage with a directory of its own, creating it when
// missing. A second process on it is refused with fault.Conflict.
func OpenDir(dir string, log *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Wrap("open registry", dir, err)
	}
	db, err := metadata.Open(filepath.Join(dir, "registry.db"))
	if err != nil {
		return nil, err
	}
	c, err := content.Open(filepath.Join(dir, "content"))
	if err != nil {
		db.Close()
		return nil, err
	}
	s, err := Open(c, db, log)
	if err != nil {
		db.Close()
		return nil, err
	}
	s.own = true
	// What a killed process had stored and not yet linked.
	if _, err := c.CollectAll(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the store. The stores of an engine stay open.
func (s *Store) Close() error {
	close(s.closed)
	s.wg.Wait()
	err := s.sync.flush()
	if s.own {
		if e := s.db.Close(); err == nil {
			err = e
		}
	}
	return err
}

// uses reports whether a repository links the blob; the content store asks
// before it deletes.
func (s *Store) uses(d digest.Digest) bool {
	used := true // in doubt
	err := s.db.View(func(tx *metadata.Tx) error {
		found := false
		_, err := uses.Range(tx, key(d.String(), ""), "", func(string, empty) bool { found = true; return false })
		if err == nil {
			used = found
		}
		return err
	})
	if err != nil {
		s.log.Error("registry: a blob is kept because the database cannot be read", "digest", d, "error", err)
	}
	return used
}

// endProbation reads the blobs anew that were linked and not known to be on
// disk when the last process ended.
func (s *Store) endProbation() error {
	var suspects []digest.Digest
	err := s.db.View(func(tx *metadata.Tx) error {
		_, err := probation.Range(tx, "", "", func(k string, _ empty) bool {
			suspects = append(suspects, digest.Digest(k))
			return true
		})
		return err
	})
	if err != nil || len(suspects) == 0 {
		return err
	}
	torn := map[digest.Digest]bool{}
	for _, d := range suspects {
		if err := s.verify(d); err != nil {
			torn[d] = true
			s.log.Warn("registry: a blob of an interrupted push did not reach the disk and is dropped", "digest", d, "error", err)
		}
	}
	if err := s.content.Sync(); err != nil {
		return err
	}
	return s.db.Update(func(tx *metadata.Tx) error {
		for _, d := range suspects {
			if torn[d] {
				if err := dropStored(tx, d); err != nil {
					return err
				}
			}
			if err := probation.Delete(tx, d.String()); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) verify(d digest.Digest) error {
	f, err := s.content.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	v := d.Verifier()
	if _, err := io.Copy(v, f); err != nil {
		return err
	}
	if !v.Verified() {
		return content.ErrDigest
	}
	return nil
}

// dropStored unlinks a stored blob from all repositories.
func dropStored(tx *metadata.Tx, d digest.Digest) error {
	var keys []string
	if _, err := uses.Range(tx, key(d.String(), ""), "", func(k string, _ empty) bool { keys = append(keys, k); return true }); err != nil {
		return err
	}
	for _, k := range keys {
		part := strings.SplitN(k, " ", 3)
		if len(part) != 3 {
			continue
		}
		if err := blobs.Delete(tx, key(part[1], part[2])); err != nil {
			return err
		}
		if err := manifests.Delete(tx, key(part[1], part[2])); err != nil {
			return err
		}
		if err := uses.Delete(tx, k); err != nil {
			return err
		}
	}
	return nil
}

// Note implements store.Storage.
func (s *Store) Note(_ context.Context, k string) (v []byte, err error) {
	err = s.db.View(func(tx *metadata.Tx) error {
		v, err = notes.Get(tx, k)
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		return err
	})
	return v, err
}

// SetNotes implements store.Storage.
func (s *Store) SetNotes(_ context.Context, values map[string][]byte) error {
	return s.db.Update(func(tx *metadata.Tx) error {
		for k, v := range values {
			var err error
			if v == nil {
				err = notes.Delete(tx, k)
			} else {
				err = notes.Put(tx, k, v)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// ReadContent implements store.Linker.
func (s *Store) ReadContent(_ context.Context, d digest.Digest, limit int64) ([]byte, error) {
	return s.content.Read(d, limit)
}
