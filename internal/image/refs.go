package image

import (
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// references counts who needs what, so that no removal has to look at all
// records. Store.mu guards it.
type references struct {
	layers  map[digest.Digest]int
	blobs   map[digest.Digest]int
	sources map[digest.Digest]map[digest.Digest]int // layer -> blobs of it that records name
	parents map[digest.Digest]map[digest.Digest]int // image -> images made from it
	indexes map[digest.Digest]map[digest.Digest]int // image -> indexes it is in
}

func newReferences() references {
	return references{
		layers: map[digest.Digest]int{}, blobs: map[digest.Digest]int{},
		sources: map[digest.Digest]map[digest.Digest]int{},
		parents: map[digest.Digest]map[digest.Digest]int{},
		indexes: map[digest.Digest]map[digest.Digest]int{},
	}
}

// add counts everything a record refers to up or, with n -1, down.
func (x *references) add(r *record, n int) {
	for _, d := range r.DiffIDs {
		count(x.layers, d, n)
	}
	for _, d := range r.blobs() {
		count(x.blobs, d, n)
	}
	r.sources(func(diffID, blob digest.Digest) { count2(x.sources, diffID, blob, n) })
	if r.Parent != "" {
		count2(x.parents, r.Parent, r.ID, n)
	}
	for _, m := range r.Members {
		if m.Image != "" {
			count2(x.indexes, m.Image, r.ID, n)
		}
	}
}

func count(m map[digest.Digest]int, d digest.Digest, n int) {
	if m[d] += n; m[d] <= 0 {
		delete(m, d)
	}
}

func count2(m map[digest.Digest]map[digest.Digest]int, a, b digest.Digest, n int) {
	if m[a] == nil {
		m[a] = map[digest.Digest]int{}
	}
	if count(m[a], b, n); len(m[a]) == 0 {
		delete(m, a)
	}
}

func (x *references) indexesOf(id digest.Digest) []digest.Digest {
	return slices.Sorted(maps.Keys(x.indexes[id]))
}

// usesBlob and usesLayer answer collections.
func (s *Store) usesBlob(d digest.Digest) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.refs.blobs[d] > 0 || len(s.damaged) > 0 || s.leases.uses(s.leases.blobs, d)
}

func (s *Store) usesLayer(d digest.Digest) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.refs.layers[d] > 0 || len(s.damaged) > 0 || s.leases.uses(s.leases.layers, d)
}

// collectBlobs deletes those blobs that nobody needs. What cannot be deleted
// now goes with the next collection of everything.
func (s *Store) collectBlobs(ds []digest.Digest) {
	if _, err := s.content.Collect(ds...); err != nil {
		s.log.Warn("blobs cannot be deleted", "error", err)
	}
}

// collectLayers is collectBlobs for layers; it returns those that went.
func (s *Store) collectLayers(ds []digest.Digest) map[digest.Digest]bool {
	gone := map[digest.Digest]bool{}
	for _, d := range ds {
		if gone[d] || !s.layers.Has(d) {
			continue
		}
		if _, err := s.layers.Collect(d); err != nil {
			s.log.Warn("layer cannot be deleted", "layer", d, "error", err)
		}
		gone[d] = !s.layers.Has(d)
	}
	return gone
}
