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
	// called with changes to the store locked and must not make any.
	InUse func(id digest.Digest) []User
}

// Remove takes away a name, and with its last name the image itself with the
// layers that no other image and no container needs, by docker's rules:
//
//   - a name of several: only that name goes;
//   - the last name: refused while a container uses the image, unless forced;
//     the image stays, without a name, when a running container uses it or
//     others were made from it;
//   - an id: refused when several repositories name the image, unless forced;
//   - an id of an image that a running container uses or that others were made
//     from: refused, forced or not.
//
// What names an index stands for all its images that have no other name. The
// answer lists what went, layers by their chain id, topmost first.
func (s *Store) Remove(ctx context.Context, ref string, o RemoveOptions) ([]image.DeleteResponse, error) {
	r := &removal{s: s, o: o}
	var refused error
	_, err := s.change(func(c *change) error {
		r.c = c
		refused = r.run(ref)
		return refused
	})
	if refused != nil {
		return nil, refused
	}
	if err != nil {
		return nil, fault.Wrap("remove image", ref, err)
	}
	return r.collect(), nil
}

// removal is one Remove under way. Store.changing is held until its commit.
type removal struct {
	s      *Store
	o      RemoveOptions
	c      *change
	answer []image.DeleteResponse
	steps  []step
}

// step is an image that goes, and where in the answer its layers belong.
type step struct {
	rec *record
	at  int
}

func (r *removal) run(ref string) error {
	if key := r.s.damagedKey(ref); key != "" && !slices.Contains(r.c.bad, key) {
		r.c.bad = append(r.c.bad, key)
		r.answer = append(r.answer, image.DeleteResponse{Deleted: key})
		return nil
	}
	id, err := r.c.find(ref)
	if err != nil {
		return err
	}
	if isIDPrefix(id, ref) {
		return r.byID(id)
	}
	return r.byName(id, ref)
}

// damagedKey returns the key of the unreadable record that ref is the full id
// of, or "".
func (s *Store) damagedKey(ref string) string {
	for _, key := range []string{ref, "sha256:" + ref} {
		if s.damaged[key] {
			return key
		}
	}
	return ""
}

// isIDPrefix reports whether ref can only mean the id, not a name.
func isIDPrefix(id digest.Digest, ref string) bool {
	return strings.HasPrefix(string(id), ref) || strings.HasPrefix(id.Encoded(), ref)
}

// unit is what goes together: an image; or an index with those of its images
// that nothing else names, the one that stands for it first.
type unit struct {
	records []digest.Digest // whose names count
	images  []digest.Digest
}

func (r *removal) unit(id digest.Digest) unit {
	u := unit{records: []digest.Digest{id}}
	rec := r.c.look(id)
	if !rec.isIndex() {
		u.images = append(u.images, id)
		for _, x := range r.c.indexesOf(id) {
			if r.s.choose(r.c.look(x), nil) == id {
				u.records = append(u.records, x)
			}
		}
	}
	for _, x := range u.records {
		index := r.c.look(x)
		if !index.isIndex() {
			continue
		}
		r.addMember(&u, r.s.choose(index, nil))
		for _, m := range index.Members {
			r.addMember(&u, m.Image)
		}
	}
	return u
}

// addMember adds an image that only the unit's indexes name.
func (r *removal) addMember(u *unit, id digest.Digest) {
	rec := r.c.look(id)
	if rec == nil || rec.names() > 0 || slices.Contains(u.images, id) {
		return
	}
	for _, x := range r.c.indexesOf(id) {
		if !slices.Contains(u.records, x) {
			return
		}
	}
	u.images = append(u.images, id)
}

// names returns the names of a unit.
func (r *removal) names(u unit) (tags, digests []string) {
	for _, id := range u.records {
		if rec := r.c.look(id); rec != nil {
			tags = append(tags, rec.Tags...)
			digests = append(digests, rec.Digests...)
		}
	}
	return tags, digests
}

// byName removes one name.
func (r *removal) byName(id digest.Digest, ref string) error {
	u := r.unit(id)
	if !r.c.look(id).isIndex() {
		u.records = u.records[:1] // the name given is the image's own
		u.images = u.images[:1]
	}
	if !r.o.Force && oneRepository(r.names(u)) {
		for _, img := range u.images {
			if c := r.user(img, false); c != nil && !r.namedElsewhere(img, u) {
				return conflict("unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
					ref, short(c.ID), short(img.Encoded()))
			}
		}
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return badName(ref, err)
	}
	rec := r.c.edit(id)
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
	if rec.names() == 0 && len(r.c.indexesOf(id)) == 0 { // else an index has the image still
		r.drop(u)
	}
	return nil
}

// namedElsewhere reports whether an image keeps a name when the unit's go.
func (r *removal) namedElsewhere(img digest.Digest, u unit) bool {
	for _, x := range r.c.indexesOf(img) {
		if rec := r.c.look(x); rec != nil && !slices.Contains(u.records, x) && rec.names() > 0 {
			return true
		}
	}
	return false
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

// byID removes what is given by its id.
func (r *removal) byID(id digest.Digest) error {
	u := r.unit(id)
	tags, digests := r.names(u)
	one := len(tags)+len(digests) > 0 && oneRepository(tags, digests)
	for _, img := range u.images {
		if err := r.hard(img); err != nil {
			return err
		}
	}
	if !one && !r.o.Force && len(tags)+len(digests) > 0 {
		return conflict("unable to delete %s (must be forced) - image is referenced in multiple repositories", short(id.Encoded()))
	}
	for _, img := range u.images {
		if err := r.conflict(img, r.o.Force); err != nil {
			return err
		}
	}
	for _, x := range u.records {
		rec := r.c.edit(x)
		for _, ref := range append(slices.Clone(rec.Tags), rec.Digests...) {
			r.untag(rec, ref)
		}
	}
	r.drop(u)
	return nil
}

// drop deletes what a unit holds together: first its indexes, so that nothing
// in them keeps the images, then these as far as nothing else does.
func (r *removal) drop(u unit) {
	var indexes []image.DeleteResponse
	for _, id := range u.records {
		if r.c.look(id).isIndex() {
			delete(r.c.records, id)
			r.c.gone[id] = true
			indexes = append(indexes, image.DeleteResponse{Deleted: id.String()})
		}
	}
	for _, img := range u.images {
		r.image(img, r.o.Force)
	}
	r.answer = append(r.answer, indexes...)
}

// image deletes an image unless something keeps it and, with prune, the parents
// that this leaves without a purpose.
func (r *removal) image(id digest.Digest, force bool) {
	rec := r.c.look(id)
	if rec == nil || rec.names() > 0 || r.conflict(id, force) != nil {
		return
	}
	r.answer = append(r.answer, image.DeleteResponse{Deleted: id.String()})
	r.steps = append(r.steps, step{rec, len(r.answer)})
	r.c.remove(id)
	if p := r.c.look(rec.Parent); r.o.Prune && p != nil && len(r.c.indexesOf(p.ID)) == 0 {
		r.image(p.ID, false)
	}
}

// untag takes a canonical reference from a record and notes it in the answer.
func (r *removal) untag(rec *record, ref string) {
	same := func(s string) bool { return s == ref }
	before := rec.names()
	rec.Tags = slices.DeleteFunc(rec.Tags, same)
	rec.Digests = slices.DeleteFunc(rec.Digests, same)
	if rec.names() < before {
		r.answer = append(r.answer, image.DeleteResponse{Untagged: familiarString(ref)})
	}
}

// oneRepository reports whether there is at most one tag and all digest names
// are of that tag's repository.
func oneRepository(tags, digests []string) bool {
	if len(tags)+len(digests) <= 1 {
		return true
	}
	if len(tags) > 1 {
		return false
	}
	var repository string
	if len(tags) == 1 {
		repository, _ = cutTag(tags[0])
	} else {
		repository, _, _ = strings.Cut(digests[0], "@")
	}
	for _, d := range digests {
		if name, _, _ := strings.Cut(d, "@"); name != repository {
			return false
		}
	}
	return true
}

// conflict returns why an image must stay, names aside. Force overrides what
// can be overridden.
func (r *removal) conflict(id digest.Digest, force bool) error {
	if err := r.hard(id); err != nil || force {
		return err
	}
	if u := r.user(id, false); u != nil {
		return conflict("unable to delete %s (must be forced) - image is being used by stopped container %s", short(id.Encoded()), short(u.ID))
	}
	return nil
}

// hard returns why an image must stay whatever is forced.
func (r *removal) hard(id digest.Digest) error {
	for child := range r.s.refs.parents[id] {
		if !r.c.gone[child] {
			return conflict("unable to delete %s (cannot be forced) - image has dependent child images", short(id.Encoded()))
		}
	}
	if u := r.user(id, true); u != nil {
		return conflict("unable to delete %s (cannot be forced) - image is being used by running container %s", short(id.Encoded()), short(u.ID))
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

// collect deletes the layers that only removed images needed and completes the
// answer. It runs after the commit, without any lock.
func (r *removal) collect() []image.DeleteResponse {
	later := map[digest.Digest]int{} // layer -> last of the steps that has it
	for i, st := range r.steps {
		for _, d := range st.rec.DiffIDs {
			later[d] = i
		}
	}
	var out []image.DeleteResponse
	at := 0
	for i, st := range r.steps {
		out = append(out, r.answer[at:st.at]...)
		at = st.at
		var own []digest.Digest
		for _, d := range slices.Backward(st.rec.DiffIDs) {
			if later[d] == i {
				own = append(own, d)
			}
		}
		gone := r.s.collectLayers(own)
		chain := chainIDs(st.rec.DiffIDs)
		for j, d := range slices.Backward(st.rec.DiffIDs) {
			if gone[d] {
				out = append(out, image.DeleteResponse{Deleted: chain[j].String()})
			}
		}
	}
	return append(out, r.answer[at:]...)
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
