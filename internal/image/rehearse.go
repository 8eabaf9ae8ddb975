package image

import (
	"slices"

	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// Rehearsal makes removals that never take place, by the code that makes the real
// ones: each finds the store as those before it would have left it.
type Rehearsal struct{ c *change }

// Rehearsed is what one removal would do.
type Rehearsed struct {
	Named   digest.Digest          // the image or index that the name means; "" for a record that cannot be read
	Answer  []image.DeleteResponse // as Remove's, without layers
	Deleted []digest.Digest        // images and indexes of Answer
	// Stays says why an image stays of which a name goes; "" when it goes, too.
	Stays string
}

// Rehearse runs fn, which calls Rehearsal.Remove. Meanwhile nothing changes in the store.
func (s *Store) Rehearse(fn func(*Rehearsal) error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return fn(&Rehearsal{s.newChange()})
}

// Remove tells what Store.Remove would do, or why it would not.
func (x *Rehearsal) Remove(ref string, o RemoveOptions) (Rehearsed, error) {
	r := &removal{s: x.c.s, o: o, c: x.c}
	var out Rehearsed
	out.Named, _ = x.c.find(ref) // run says what is wrong with it
	if err := r.run(ref); err != nil {
		return out, err
	}
	x.c.dropHollow()
	out.Answer = r.answer
	for _, a := range r.answer {
		if a.Deleted != "" {
			out.Deleted = append(out.Deleted, digest.Digest(a.Deleted))
		}
	}
	if rec := x.c.look(out.Named); rec != nil {
		out.Stays = r.stays(rec)
	}
	return out, nil
}

// stays says what keeps a record that has lost a name.
func (r *removal) stays(rec *record) string {
	u := r.unit(rec.ID)
	if tags, digests := r.names(u); len(tags)+len(digests) > 0 {
		return "it has other names: " + listOr(familiar(slices.Concat(tags, digests)), "")
	}
	for _, img := range u.images {
		if r.c.look(img) == nil {
			continue
		}
		if user := r.user(img, true); user != nil {
			return "running container " + short(user.ID) + " uses it"
		}
		if r.hard(img) != nil {
			return "another image was made from it"
		}
	}
	return "an image of several platforms has it"
}

// Keeps reports whether something other than a record of an image keeps a layer or,
// with blob, a blob: a lease, or records that cannot be read.
func (s *Store) Keeps(d digest.Digest, blob bool) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	by := s.leases.layers
	if blob {
		by = s.leases.blobs
	}
	return len(s.damaged) > 0 || s.leases.uses(by, d)
}
