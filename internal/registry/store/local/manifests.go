package local

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
	"berth/internal/metadata"
	"berth/internal/registry/store"
)

// limitManifest is more than any manifest that a registry accepts, in bytes.
const limitManifest = 64 << 20

// cutKey takes the first part off a key.
func cutKey(k string) (first, rest string, ok bool) { return strings.Cut(k, " ") }

// Repositories implements store.Storage.
func (s *Store) Repositories(_ context.Context, after string, fn func(string) bool) error {
	return s.db.View(func(tx *metadata.Tx) error {
		_, err := repositories.Range(tx, "", after, func(k string, _ repository) bool { return fn(k) })
		return err
	})
}

// Tags implements store.Storage.
func (s *Store) Tags(_ context.Context, repo, after string, fn func(store.Tag) bool) error {
	return s.db.View(func(tx *metadata.Tx) error {
		if _, err := repositories.Get(tx, repo); err != nil {
			return err
		}
		prefix := key(repo, "")
		_, err := tags.Range(tx, prefix, prefix+after, func(k string, t tag) bool {
			return fn(store.Tag{Name: k[len(prefix):], Digest: t.Digest, Pushed: t.Pushed})
		})
		return err
	})
}

// Tag implements store.Storage.
func (s *Store) Tag(_ context.Context, repo, name string) (t store.Tag, err error) {
	err = s.db.View(func(tx *metadata.Tx) error {
		r, err := tags.Get(tx, key(repo, name))
		t = store.Tag{Name: name, Digest: r.Digest, Pushed: r.Pushed}
		return err
	})
	return t, err
}

// DeleteTag implements store.Storage.
func (s *Store) DeleteTag(_ context.Context, repo, name string) error {
	return s.db.Update(func(tx *metadata.Tx) error {
		if _, err := tags.Get(tx, key(repo, name)); err != nil {
			return err
		}
		if err := tags.Delete(tx, key(repo, name)); err != nil {
			return err
		}
		return dropIfEmpty(tx, repo)
	})
}

// Manifest implements store.Storage.
func (s *Store) Manifest(_ context.Context, repo string, d digest.Digest) (m store.Manifest, err error) {
	err = s.db.View(func(tx *metadata.Tx) error {
		m, err = manifests.Get(tx, key(repo, d.String()))
		return err
	})
	return m, err
}

// ReadManifest implements store.Storage.
func (s *Store) ReadManifest(ctx context.Context, repo string, d digest.Digest) ([]byte, store.Manifest, error) {
	var m store.Manifest
	stored := d
	err := s.db.View(func(tx *metadata.Tx) (err error) {
		if m, err = manifests.Get(tx, key(repo, d.String())); err == nil {
			stored, err = storedAs(tx, d)
		}
		return err
	})
	if err != nil {
		return nil, m, err
	}
	raw, err := s.content.Read(stored, limitManifest)
	return raw, m, err
}

// storedAs returns the digest under which the content store has d.
func storedAs(tx *metadata.Tx, d digest.Digest) (digest.Digest, error) {
	if d.Algorithm() == digest.SHA256 {
		return d, nil
	}
	return alternates.Get(tx, d.String())
}

// PutManifest implements store.Storage.
func (s *Store) PutManifest(ctx context.Context, repo string, m store.Manifest, raw []byte, names []string, sparse bool) error {
	stored := m.Digest
	if m.Digest.Algorithm() != digest.SHA256 {
		stored = digest.FromBytes(raw)
	}
	hold := s.content.Hold()
	defer hold.Release()
	hold.Add(stored)
	fresh := !s.content.Has(stored)
	if fresh {
		if _, err := s.content.Ingest(ctx, bytes.NewReader(raw), stored, int64(len(raw))); err != nil {
			return err
		}
		s.sync.add(stored)
	}
	// Everything that the manifest stands for was written before; it is on disk
	// before anybody is told that the push is done.
	if s.sync.busy() {
		if err := s.sync.wait(); err != nil {
			return err
		}
	}
	m.Pushed = time.Now().UTC()
	var gone []digest.Digest
	err := s.db.Update(func(tx *metadata.Tx) (err error) {
		if !sparse {
			if err := checkReferences(tx, repo, m); err != nil {
				return err
			}
		}
		if err := putManifest(tx, repo, m, stored, names); err != nil {
			return err
		}
		gone, err = s.sync.clean(tx)
		return err
	})
	if err == nil {
		s.sync.cleaned(gone)
	}
	return err
}

// checkReferences returns a *store.MissingError for what is not there.
func checkReferences(tx *metadata.Tx, repo string, m store.Manifest) error {
	var missing store.MissingError
	for _, want := range m.Blobs {
		b, err := getBlob(tx, repo, want.Digest)
		switch {
		case fault.Is(err, fault.NotFound):
			missing.Blobs = append(missing.Blobs, want.Digest)
		case err != nil:
			return err
		case b.Size != want.Size:
			missing.Sizes = append(missing.Sizes, want.Digest)
		}
	}
	for _, d := range m.Manifests {
		_, err := manifests.Get(tx, key(repo, d.String()))
		if fault.Is(err, fault.NotFound) {
			missing.Manifests = append(missing.Manifests, d)
		} else if err != nil {
			return err
		}
	}
	if len(missing.Blobs)+len(missing.Manifests)+len(missing.Sizes) > 0 {
		return &missing
	}
	return nil
}

func putManifest(tx *metadata.Tx, repo string, m store.Manifest, stored digest.Digest, names []string) error {
	if err := ensureRepository(tx, repo); err != nil {
		return err
	}
	k := key(repo, m.Digest.String())
	if err := manifests.Put(tx, k, m); err != nil {
		return err
	}
	if err := uses.Put(tx, key(stored.String(), repo, m.Digest.String()), empty{}); err != nil {
		return err
	}
	if stored != m.Digest {
		if err := alternates.Put(tx, m.Digest.String(), stored); err != nil {
			return err
		}
	}
	if m.Subject != "" {
		if err := referrers.Put(tx, key(repo, m.Subject.String(), m.Digest.String()), empty{}); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := tags.Put(tx, key(repo, name), tag{Digest: m.Digest, Pushed: m.Pushed}); err != nil {
			return err
		}
	}
	return nil
}

// dropManifest deletes a manifest in a transaction, without its tags. It
// returns the digest of its bytes.
func dropManifest(tx *metadata.Tx, repo string, m store.Manifest) (digest.Digest, error) {
	stored, err := storedAs(tx, m.Digest)
	if err != nil {
		return "", err
	}
	if err := manifests.Delete(tx, key(repo, m.Digest.String())); err != nil {
		return "", err
	}
	if m.Subject != "" {
		if err := referrers.Delete(tx, key(repo, m.Subject.String(), m.Digest.String())); err != nil {
			return "", err
		}
	}
	if _, err := getBlob(tx, repo, m.Digest); err == nil {
		return stored, nil // pushed as a blob, too
	}
	return stored, dropUse(tx, repo, m.Digest, stored)
}

// DeleteManifest implements store.Storage.
func (s *Store) DeleteManifest(_ context.Context, repo string, d digest.Digest) error {
	var stored digest.Digest
	err := s.db.Update(func(tx *metadata.Tx) error {
		m, err := manifests.Get(tx, key(repo, d.String()))
		if err != nil {
			return err
		}
		if stored, err = dropManifest(tx, repo, m); err != nil {
			return err
		}
		var names []string
		if _, err := tags.Range(tx, key(repo, ""), "", func(k string, t tag) bool {
			if t.Digest == d {
				names = append(names, k)
			}
			return true
		}); err != nil {
			return err
		}
		for _, k := range names {
			if err := tags.Delete(tx, k); err != nil {
				return err
			}
		}
		return dropIfEmpty(tx, repo)
	})
	if err != nil {
		return err
	}
	_, err = s.content.Collect(stored)
	return err
}

// Referrers implements store.Storage.
func (s *Store) Referrers(_ context.Context, repo string, subject, after digest.Digest, fn func(store.Manifest) bool) error {
	return s.db.View(func(tx *metadata.Tx) error {
		prefix := key(repo, subject.String(), "")
		var failed error
		_, err := referrers.Range(tx, prefix, prefix+after.String(), func(k string, _ empty) bool {
			m, err := manifests.Get(tx, key(repo, k[len(prefix):]))
			if fault.Is(err, fault.NotFound) {
				return true
			}
			if failed = err; err != nil {
				return false
			}
			return fn(m)
		})
		return errors.Join(failed, err)
	})
}
