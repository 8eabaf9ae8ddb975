package image

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
	"berth/internal/metadata"
)

var leaseRecords = metadata.NewBucket[lease]("image-leases")

// lease keeps layers and blobs that no image names yet, such as those of a pull
// that broke off, for some time and over restarts.
type lease struct {
	Expires time.Time
	Layers  []digest.Digest `json:",omitempty"`
	Blobs   []digest.Digest `json:",omitempty"`
}

// leases are the leases in memory. Store.mu guards them. The maps say by which
// keys something is kept; an expired lease is as good as none.
type leases struct {
	all    map[string]lease
	layers map[digest.Digest][]string
	blobs  map[digest.Digest][]string
}

func newLeases() leases {
	return leases{all: map[string]lease{}, layers: map[digest.Digest][]string{}, blobs: map[digest.Digest][]string{}}
}

func (l *leases) put(key string, v lease) {
	l.drop(key)
	l.all[key] = v
	for _, d := range v.Layers {
		l.layers[d] = append(l.layers[d], key)
	}
	for _, d := range v.Blobs {
		l.blobs[d] = append(l.blobs[d], key)
	}
}

func (l *leases) drop(key string) {
	v := l.all[key]
	delete(l.all, key)
	for _, d := range v.Layers {
		dropKey(l.layers, d, key)
	}
	for _, d := range v.Blobs {
		dropKey(l.blobs, d, key)
	}
}

func dropKey(m map[digest.Digest][]string, d digest.Digest, key string) {
	m[d] = slices.DeleteFunc(m[d], func(k string) bool { return k == key })
	if len(m[d]) == 0 {
		delete(m, d)
	}
}

func (l *leases) uses(m map[digest.Digest][]string, d digest.Digest) bool {
	return slices.ContainsFunc(m[d], func(key string) bool { return time.Now().Before(l.all[key].Expires) })
}

// expired returns the keys of leases that are over.
func (l *leases) expired() []string {
	var keys []string
	for key, v := range l.all {
		if !time.Now().Before(v.Expires) {
			keys = append(keys, key)
		}
	}
	return keys
}

func (s *Store) loadLeases(tx *metadata.Tx) error {
	bad, err := leaseRecords.ForEach(tx, func(key string, v lease) error {
		s.leases.put(key, v)
		return nil
	})
	for _, b := range bad {
		s.log.Warn("lease cannot be read", "key", b.Key, "error", b.Err)
		s.leases.put(b.Key, lease{}) // expired: dropped with the others
	}
	return err
}

// Lease keeps layers and blobs from being collected for a time, also over
// restarts, whatever images there are. It replaces an earlier lease of that
// key. The caller holds what he names until Lease returns.
func (s *Store) Lease(ctx context.Context, key string, ttl time.Duration, layers, blobs []digest.Digest) error {
	v := lease{Expires: time.Now().Add(ttl).UTC(), Layers: slices.Clone(layers), Blobs: slices.Clone(blobs)}
	if err := s.content.Sync(); err != nil {
		return err
	}
	return s.changeLeases(key, &v)
}

// DropLease ends a lease and deletes what nobody else needs of it. One that is
// not there is no error.
func (s *Store) DropLease(ctx context.Context, key string) error {
	return s.changeLeases(key, nil)
}

// changeLeases puts or, with v nil, drops a lease, and with it all expired ones.
func (s *Store) changeLeases(key string, v *lease) error {
	layers, blobs, err := s.writeLeases(key, v)
	if err != nil {
		return fault.Wrap("keep what was fetched", key, err)
	}
	s.collectLayers(layers)
	s.collectBlobs(blobs)
	return nil
}

// dropExpired removes leases that are over. What they kept is left to the next
// collection of everything: not all owners are registered yet.
func (s *Store) dropExpired() error {
	_, _, err := s.writeLeases("", nil)
	return err
}

// writeLeases returns what the leases that it dropped kept.
func (s *Store) writeLeases(key string, v *lease) (layers, blobs []digest.Digest, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	over := s.leases.expired()
	if _, there := s.leases.all[key]; there {
		over = append(over, key)
	}
	if len(over) == 0 && v == nil {
		return nil, nil, nil
	}
	err = s.db.Update(func(tx *metadata.Tx) error {
		for _, k := range over {
			if err := leaseRecords.Delete(tx, k); err != nil {
				return err
			}
		}
		if v == nil {
			return nil
		}
		return leaseRecords.Put(tx, key, *v)
	})
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range over {
		layers = append(layers, s.leases.all[k].Layers...)
		blobs = append(blobs, s.leases.all[k].Blobs...)
		s.leases.drop(k)
	}
	if v != nil {
		s.leases.put(key, *v)
	}
	return layers, blobs, nil
}
