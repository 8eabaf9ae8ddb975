package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

// User is a container that uses an image.
type User struct {
	ID      string // container id
	Running bool
}

// RemoveOptions says how Remove treats conflicts.
type RemoveOptions struct {
	Force bool
	Prune bool // also remove parents that are left without a name
	// InUse returns the containers made from the image; nil means none. It is
	// called with the store locked and must not call back into it.
	InUse func(id digest.Digest) []User
}

// removal is one Remove under way. Store.mu is held all the time.
type removal struct {
	s       *Store
	o       RemoveOptions
	c       *change
	answer  []image.DeleteResponse
	deleted []*record
}

// Remove takes away a name, and with its last name the image itself with the
// layers that no other image and no container needs, by docker's rules:
//
//   - a name of several: only that name goes;
//   - the last name: refused while a container uses the image, unless forced;
//   - an id: refused when several repositories name the image, unless forced;
//   - an image that a running container uses, or that others were made from, is
//     never deleted, forced or not, and keeps its names.
//
// The answer lists what went, layers by their chain id, topmost first.
func (s *Store) Remove(ctx context.Context, ref string, o RemoveOptions) ([]image.DeleteResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	r := &removal{s: s, o: o, c: s.change()}
	if isIDPrefix(id, ref) {
		err = r.byID(id)
	} else {
		err = r.byName(id, ref)
	}
	if err != nil {
		return nil, err
	}
	if err := r.c.commit(); err != nil {
		return nil, fault.Wrap("remove image", ref, err)
	}
	for _, rec := range r.deleted {
		if err := r.collect(rec); err != nil {
			return r.answer, fault.Wrap("remove image", ref, err)
		}
	}
	return r.answer, nil
}

// isIDPrefix reports whether ref can only mean the id, not a name.
func isIDPrefix(id digest.Digest, ref string) bool {
	return strings.HasPrefix(string(id), ref) || strings.HasPrefix(id.Encoded(), ref)
}

// byName removes one name.
func (r *removal) byName(id digest.Digest, ref string) error {
	rec := r.c.edit(id)
	if !r.o.Force && oneRepository(rec) {
		if u := r.user(id, false); u != nil {
			return conflict("unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
				ref, short(u.ID), short(id.Encoded()))
		}
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return badName(ref, err)
	}
	if digested, ok := named.(reference.Digested); ok {
		canonical, err := reference.WithDigest(reference.TrimNamed(named), digested.Digest())
		if err != nil {
			return badName(ref, err)
		}
		r.untag(rec, canonical.String())
	} else {
		r.untag(rec, reference.TagNameOnly(named).String())
		r.dropDigests(rec, named.Name())
	}
	if len(rec.Tags)+len(rec.Digests) > 0 {
		return nil
	}
	return r.image(id, r.o.Force, false, true)
}

// dropDigests removes the digest names of a repository of which no tag is left.
func (r *removal) dropDigests(rec *record, repository string) {
	for _, t := range rec.Tags {
		if name, _ := cutTag(t); name == repository {
			return
		}
	}
	for _, d := range slices.Clone(rec.Digests) {
		if name, _, _ := strings.Cut(d, "@"); name == repository {
			r.untag(rec, d)
		}
	}
}

// byID removes an image given by its id.
func (r *removal) byID(id digest.Digest) error {
	rec := r.c.edit(id)
	if oneRepository(rec) {
		if err := r.conflict(id, r.o.Force, true); err != nil {
			return err
		}
		r.untagAll(rec)
	}
	return r.image(id, r.o.Force, false, false)
}

// image deletes an image and, with prune, the parents that this leaves without
// a purpose. quiet passes over what cannot be deleted.
func (r *removal) image(id digest.Digest, force, quiet, unnamed bool) error {
	rec := r.c.edit(id)
	if err := r.conflict(id, force, unnamed); err != nil {
		if quiet {
			return nil
		}
		return err
	}
	r.untagAll(rec)
	r.answer = append(r.answer, image.DeleteResponse{Deleted: id.String()})
	r.deleted = append(r.deleted, rec)
	delete(r.c.records, id)
	r.c.gone[id] = true
	parent := rec.Parent
	if !r.o.Prune || parent == "" || r.s.images[parent] == nil || r.c.gone[parent] {
		return nil
	}
	return r.image(parent, false, true, false)
}

// untag takes a canonical reference from a record and notes it in the answer.
func (r *removal) untag(rec *record, ref string) {
	same := func(s string) bool { return s == ref }
	before := len(rec.Tags) + len(rec.Digests)
	rec.Tags = slices.DeleteFunc(rec.Tags, same)
	rec.Digests = slices.DeleteFunc(rec.Digests, same)
	if len(rec.Tags)+len(rec.Digests) < before {
		r.answer = append(r.answer, image.DeleteResponse{Untagged: familiarString(ref)})
	}
}

func (r *removal) untagAll(rec *record) {
	for _, ref := range append(slices.Clone(rec.Tags), rec.Digests...) {
		r.untag(rec, ref)
	}
}

// oneRepository reports whether at most one tag names the image and all its
// digest names are of that tag's repository.
func oneRepository(rec *record) bool {
	if len(rec.Tags)+len(rec.Digests) <= 1 {
		return true
	}
	if len(rec.Tags) > 1 {
		return false
	}
	var repository string
	if len(rec.Tags) == 1 {
		repository, _ = cutTag(rec.Tags[0])
	} else {
		repository, _, _ = strings.Cut(rec.Digests[0], "@")
	}
	for _, d := range rec.Digests {
		if name, _, _ := strings.Cut(d, "@"); name != repository {
			return false
		}
	}
	return true
}

// conflict returns why the image must stay. Force overrides what can be
// overridden; ignoreNames leaves names out of it.
func (r *removal) conflict(id digest.Digest, force, ignoreNames bool) error {
	for other, st := range r.s.images {
		if st.rec.Parent == id && !r.c.gone[other] {
			return conflict("unable to delete %s (cannot be forced) - image has dependent child images", short(id.Encoded()))
		}
	}
	if u := r.user(id, true); u != nil {
		return conflict("unable to delete %s (cannot be forced) - image is being used by running container %s", short(id.Encoded()), short(u.ID))
	}
	if force {
		return nil
	}
	if rec := r.c.edit(id); !ignoreNames && len(rec.Tags)+len(rec.Digests) > 0 {
		return conflict("unable to delete %s (must be forced) - image is referenced in multiple repositories", short(id.Encoded()))
	}
	if u := r.user(id, false); u != nil {
		return conflict("unable to delete %s (must be forced) - image is being used by stopped container %s", short(id.Encoded()), short(u.ID))
	}
	return nil
}

// user returns a container that uses the image: a running one, or any.
func (r *removal) user(id digest.Digest, running bool) *User {
	if r.o.InUse == nil {
		return nil
	}
	for _, u := range r.o.InUse(id) {
		if u.Running || !running {
			return &u
		}
	}
	return nil
}

func conflict(format string, args ...any) error {
	return fault.New(fault.Conflict, "conflict", "", format, args...)
}

func short(id string) string {
	return id[:min(12, len(id))]
}

// collect deletes what only the removed image needed.
func (r *removal) collect(rec *record) error {
	chain := chainIDs(rec.DiffIDs)
	for i := len(rec.DiffIDs) - 1; i >= 0; i-- {
		gone, err := r.s.dropLayer(rec.DiffIDs[i])
		if err != nil {
			return err
		}
		if gone {
			r.answer = append(r.answer, image.DeleteResponse{Deleted: chain[i].String()})
		}
	}
	for _, d := range rec.blobs() {
		if err := r.s.dropBlob(d); err != nil {
			return err
		}
	}
	for _, d := range rec.Packed {
		if err := r.s.dropBlob(d.Digest); err != nil {
			return err
		}
	}
	return nil
}

// dropLayer deletes a layer that no image refers to. The caller holds mu.
func (s *Store) dropLayer(d digest.Digest) (bool, error) {
	for _, st := range s.images {
		if slices.Contains(st.rec.DiffIDs, d) {
			return false, nil
		}
	}
	return s.layers.Delete(d)
}

// dropBlob deletes a blob that no image refers to. The caller holds mu.
func (s *Store) dropBlob(d digest.Digest) error {
	if s.held[d] > 0 {
		return nil
	}
	for _, st := range s.images {
		if slices.Contains(st.rec.blobs(), d) {
			return nil
		}
		for _, p := range st.rec.Packed {
			if p.Digest == d {
				return nil
			}
		}
	}
	_, err := s.content.Collect(d)
	return err
}

// chainIDs returns for each layer the id of the stack that ends with it, by
// which docker's users know it.
func chainIDs(diffIDs []digest.Digest) []digest.Digest {
	ids := make([]digest.Digest, len(diffIDs))
	for i, d := range diffIDs {
		if i == 0 {
			ids[i] = d
			continue
		}
		sum := sha256.Sum256([]byte(string(ids[i-1]) + " " + string(d)))
		ids[i] = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum[:]))
	}
	return ids
}
