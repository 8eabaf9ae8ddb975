package layer

import (
	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

// AddOwner registers a keeper of records that name layers. uses is asked
// without any lock of the store held, before a layer is deleted, and must see
// every record that was written before it is called. Owners are registered at
// start, before the first Collect.
func (s *Store) AddOwner(uses func(diffID digest.Digest) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owners = append(s.owners, uses)
}

// Collect deletes those of the layers that nobody holds, no owner uses and no
// container's writable layer is above, and returns how many bytes of disk they
// took (Layer.Disk). They are out of sight when Collect returns; the files go
// in the background. A layer that is not there is no error.
//
// It can run beside anything. The caller must not hold a lock that an owner's
// uses takes.
func (s *Store) Collect(diffIDs ...digest.Digest) (freed int64, err error) {
	for _, d := range diffIDs {
		n, err := s.collect(d)
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

// CollectAll is Collect of every layer in the store. It must not be called
// before all owners are registered.
func (s *Store) CollectAll() (freed int64, err error) {
	return s.Collect(s.List()...)
}

// collect deletes one layer that is of no use.
//
// Owners are asked between two looks at the references, and whoever wants to
// refer to a layer holds it until its record is written. A hold that began
// before the first look has either not ended, or its record is there for the
// owner to see; one that began between the looks has changed entry.taken; one
// that begins after the second finds the layer gone.
func (s *Store) collect(d digest.Digest) (int64, error) {
	s.mu.Lock()
	e := s.known[d]
	if e == nil || s.refs[d] > 0 {
		s.mu.Unlock()
		return 0, nil
	}
	taken, owners := e.taken, s.owners
	s.mu.Unlock()

	for _, uses := range owners {
		if uses(d) {
			return 0, nil
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known[d] != e || e.taken != taken || s.refs[d] > 0 {
		return 0, nil
	}
	var freed int64
	if r, err := s.record(d); err == nil {
		freed = r.Disk
	}
	if err := s.discard(s.dir(d)); err != nil {
		return 0, fault.Wrap("delete layer", d.String(), err)
	}
	delete(s.known, d)
	return freed, nil
}

// ref adds one reference. The caller holds mu.
func (s *Store) ref(d digest.Digest) {
	s.refs[d]++
	if e := s.known[d]; e != nil {
		e.taken++
	}
}

// unref drops one reference. The caller holds mu.
func (s *Store) unref(d digest.Digest) {
	if s.refs[d]--; s.refs[d] <= 0 {
		delete(s.refs, d)
	}
}
