package local

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/metadata"
	"berth/internal/registry/store"
)

// inventory is what a repository holds, as one transaction sees it.
type inventory struct {
	tagged    map[digest.Digest]bool
	manifests map[digest.Digest]store.Manifest
	blobs     map[digest.Digest]blob
}

func takeInventory(tx *metadata.Tx, repo string) (*inventory, error) {
	i := &inventory{map[digest.Digest]bool{}, map[digest.Digest]store.Manifest{}, map[digest.Digest]blob{}}
	prefix := key(repo, "")
	if _, err := tags.Range(tx, prefix, "", func(_ string, t tag) bool { i.tagged[t.Digest] = true; return true }); err != nil {
		return nil, err
	}
	// A manifest that cannot be read could refer to anything: nothing of this
	// repository is garbage until somebody has looked.
	bad, err := manifests.Range(tx, prefix, "", func(k string, m store.Manifest) bool {
		m.Annotations = nil
		i.manifests[m.Digest] = m
		return true
	})
	if err != nil {
		return nil, err
	}
	if len(bad) > 0 {
		return nil, bad[0].Err
	}
	_, err = blobs.Range(tx, prefix, "", func(k string, b blob) bool {
		i.blobs[digest.Digest(k[len(prefix):])] = b
		return true
	})
	return i, err
}

// garbage returns what may go.
func (i *inventory) garbage(repo string, o store.SweepOptions, now time.Time) (ms []store.Manifest, bs []digest.Digest) {
	young := func(d digest.Digest, t time.Time) bool {
		return now.Sub(t) < o.Grace || o.Touched != nil && o.Touched(repo, d)
	}
	keep := i.manifests
	if o.Untagged {
		keep = i.reachable(young)
		for d, m := range i.manifests {
			if _, ok := keep[d]; !ok {
				ms = append(ms, m)
			}
		}
	}
	used := map[digest.Digest]bool{}
	for _, m := range keep {
		for _, b := range m.Blobs {
			used[b.Digest] = true
		}
		for _, d := range m.Foreign {
			used[d] = true
		}
	}
	for d, b := range i.blobs {
		if !used[d] && !young(d, b.Linked) {
			bs = append(bs, d)
		}
	}
	return ms, bs
}

// reachable returns the manifests that a tag, or a young one, leads to: itself,
// the members of an index, and everything that refers to one of those.
func (i *inventory) reachable(young func(digest.Digest, time.Time) bool) map[digest.Digest]store.Manifest {
	about := map[digest.Digest][]digest.Digest{}
	var todo []digest.Digest
	for d, m := range i.manifests {
		if m.Subject != "" {
			about[m.Subject] = append(about[m.Subject], d)
		}
		if i.tagged[d] || young(d, m.Pushed) {
			todo = append(todo, d)
		}
	}
	seen := map[digest.Digest]store.Manifest{}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		m, ok := i.manifests[d]
		if _, done := seen[d]; done || !ok {
			continue
		}
		seen[d] = m
		todo = append(append(todo, m.Manifests...), about[d]...)
	}
	return seen
}

// Sweep implements store.Storage. Each repository is looked at in a read
// transaction first, and once more in the one that deletes: what a push did
// meanwhile counts.
func (s *Store) Sweep(ctx context.Context, o store.SweepOptions) (store.Swept, error) {
	var total store.Swept
	var names []string
	if err := s.Repositories(ctx, "", func(name string) bool { names = append(names, name); return true }); err != nil {
		return total, err
	}
	var failed error
	for _, repo := range names {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		if err := s.sweepRepository(repo, o, &total); err != nil {
			s.log.Error("registry: a repository cannot be collected", "repository", repo, "error", err)
			if failed == nil {
				failed = err
			}
		}
		total.Repositories++
	}
	if o.DryRun {
		return total, failed
	}
	if o.Uploads > 0 {
		freed, err := s.content.DropPartials(o.Uploads)
		total.Freed += freed
		if failed == nil {
			failed = err
		}
	}
	return total, failed
}

func (s *Store) sweepRepository(repo string, o store.SweepOptions, total *store.Swept) error {
	now := time.Now()
	var ms []store.Manifest
	var bs []digest.Digest
	err := s.db.View(func(tx *metadata.Tx) error {
		i, err := takeInventory(tx, repo)
		if err != nil {
			return err
		}
		ms, bs = i.garbage(repo, o, now)
		if o.DryRun {
			for _, d := range bs {
				total.Freed += i.blobs[d].Size
			}
		}
		return nil
	})
	if err != nil || len(ms)+len(bs) == 0 {
		return err
	}
	if o.DryRun {
		total.Manifests += len(ms)
		total.Blobs += len(bs)
		return nil
	}
	var freed []digest.Digest
	err = s.db.Update(func(tx *metadata.Tx) error {
		freed = nil
		i, err := takeInventory(tx, repo)
		if err != nil {
			return err
		}
		ms, bs = i.garbage(repo, o, now)
		for _, m := range ms {
			stored, err := dropManifest(tx, repo, m)
			if err != nil {
				return err
			}
			freed = append(freed, stored)
		}
		for _, d := range bs {
			if err := dropBlob(tx, repo, d, i.blobs[d]); err != nil {
				return err
			}
			freed = append(freed, i.blobs[d].stored(d))
		}
		return dropIfEmpty(tx, repo)
	})
	if err != nil {
		return err
	}
	total.Manifests += len(ms)
	total.Blobs += len(bs)
	n, err := s.content.Collect(freed...)
	total.Freed += n
	return err
}
