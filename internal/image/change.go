package image

import (
	"context"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
	"berth/internal/metadata"
)

// Tag gives the image or index src the further name target; a tag that named
// another image moves.
func (s *Store) Tag(ctx context.Context, src, target string) error {
	named, err := reference.ParseNormalizedNamed(target)
	if err != nil {
		return badName(target, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return fault.New(fault.Invalid, "tag image", target, "refusing to create a tag with a digest reference")
	}
	if named.Name() == "docker.io/library/sha256" {
		return fault.New(fault.Invalid, "tag image", target, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	var bad error
	_, err = s.change(func(c *change) error {
		var id digest.Digest
		if id, bad = s.find(src); bad == nil {
			c.tag(id, reference.TagNameOnly(named).String())
		}
		return bad
	})
	if bad != nil {
		return bad
	}
	return fault.Wrap("tag image", target, err)
}

// change collects new versions of records; nothing of it shows before it is
// committed. The one who makes it holds Store.changing, so he reads the maps of
// the store without its other lock.
type change struct {
	s       *Store
	records map[digest.Digest]*record
	gone    map[digest.Digest]bool
	bad     []string // keys of damaged records that go
	moved   []moved
}

// moved is a tag that was another image's before.
type moved struct {
	tag  string
	from digest.Digest
}

func (s *Store) newChange() *change {
	return &change{s: s, records: map[digest.Digest]*record{}, gone: map[digest.Digest]bool{}}
}

// change makes what fn does durable and then visible, in one step, and deletes
// the blobs that nothing refers to any more. Layers of records that went are
// left to the caller.
func (s *Store) change(fn func(*change) error) (*change, error) {
	c := s.newChange()
	s.changing.Lock()
	err := fn(c)
	var before []digest.Digest
	if err == nil {
		c.dropHollow()
		before = c.blobsBefore()
		err = c.commit()
	}
	s.changing.Unlock()
	if err == nil {
		s.collectBlobs(before)
	}
	return c, err
}

// blobsBefore returns what the records to be replaced refer to and the new ones
// do not.
func (c *change) blobsBefore() []digest.Digest {
	var before []digest.Digest
	seen := map[digest.Digest]bool{}
	for _, r := range c.records {
		for _, d := range r.blobs() {
			seen[d] = true
		}
	}
	add := func(id digest.Digest) {
		if st := c.s.images[id]; st != nil {
			for _, d := range st.rec.blobs() {
				if !seen[d] {
					seen[d] = true
					before = append(before, d)
				}
			}
		}
	}
	for id := range c.records {
		add(id)
	}
	for id := range c.gone {
		add(id)
	}
	return before
}

// edit returns the record of an image for changing, or nil.
func (c *change) edit(id digest.Digest) *record {
	if r := c.records[id]; r != nil {
		return r
	}
	st := c.s.images[id]
	if st == nil || c.gone[id] {
		return nil
	}
	r := st.rec.clone()
	c.records[id] = r
	return r
}

// look returns the record of an image for reading, or nil.
func (c *change) look(id digest.Digest) *record {
	if r := c.records[id]; r != nil {
		return r
	}
	if st := c.s.images[id]; st != nil && !c.gone[id] {
		return st.rec
	}
	return nil
}

// find is Store.find after the change so far.
func (c *change) find(ref string) (digest.Digest, error) {
	id, err := c.s.find(ref)
	if err != nil {
		return "", err
	}
	rec, before := c.look(id), c.s.images[id].rec
	if rec == nil {
		return "", notFound(ref)
	}
	if rec == before || isIDPrefix(id, ref) {
		return id, nil
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", badName(ref, err)
	}
	name := reference.TagNameOnly(named).String()
	if digested, ok := named.(reference.Digested); ok {
		if canonical, err := reference.WithDigest(reference.TrimNamed(named), digested.Digest()); err == nil {
			name = canonical.String()
		}
	}
	had := slices.Contains(before.Tags, name) || slices.Contains(before.Digests, name)
	if has := slices.Contains(rec.Tags, name) || slices.Contains(rec.Digests, name); had && !has || !had && !rec.hasName(named.Name()) {
		return "", notFound(ref)
	}
	return id, nil
}

// indexesOf lists the indexes that an image is in after the change so far.
func (c *change) indexesOf(id digest.Digest) []digest.Digest {
	return slices.DeleteFunc(c.s.refs.indexesOf(id), func(x digest.Digest) bool {
		r := c.look(x)
		return r == nil || !slices.ContainsFunc(r.Members, func(m indexEntry) bool { return m.Image == id })
	})
}

// owner returns which record a tag names after the change so far.
func (c *change) owner(tag string) digest.Digest {
	for id, r := range c.records {
		if slices.Contains(r.Tags, tag) {
			return id
		}
	}
	id := c.s.tags[tag]
	if c.gone[id] || c.records[id] != nil {
		return ""
	}
	return id
}

func (c *change) tag(id digest.Digest, tag string) {
	now := time.Now().UTC()
	from := c.owner(tag)
	if from == id {
		c.edit(id).LastTagged = now
		return
	}
	if from != "" {
		r := c.edit(from)
		r.Tags = slices.DeleteFunc(r.Tags, func(t string) bool { return t == tag })
		c.moved = append(c.moved, moved{tag, from})
	}
	r := c.edit(id)
	r.Tags = append(r.Tags, tag)
	r.LastTagged = now
}

// digested gives an image a name@digest; like a tag it names one image only.
func (c *change) digested(id digest.Digest, canonical string) {
	if from, ok := c.s.digests[canonical]; ok && from != id {
		if r := c.edit(from); r != nil {
			r.Digests = slices.DeleteFunc(r.Digests, func(d string) bool { return d == canonical })
		}
	}
	if r := c.edit(id); !slices.Contains(r.Digests, canonical) {
		r.Digests = append(r.Digests, canonical)
	}
}

// remove takes an image or index out of the records, and an image out of the
// indexes it is in; an index that loses its last image goes, too.
func (c *change) remove(id digest.Digest) {
	for _, x := range c.s.refs.indexesOf(id) {
		r := c.edit(x)
		if r == nil {
			continue
		}
		left := false
		for i := range r.Members {
			if r.Members[i].Image == id {
				r.Members[i].Image = ""
			}
			left = left || r.Members[i].Image != ""
		}
		if !left {
			delete(c.records, x)
			c.gone[x] = true
		}
	}
	delete(c.records, id)
	c.gone[id] = true
}

// dropHollow removes indexes that the change left without a name and whose
// images all have one elsewhere, such as those of an index that was replaced by
// another with the same images. One that never had a name was made to be used by
// its digest, and stays as long as its images.
func (c *change) dropHollow() {
	for id, x := range c.records {
		before := c.s.images[id]
		if before != nil && before.rec.names() > 0 && x.isIndex() && x.names() == 0 && !slices.ContainsFunc(x.Members, func(m indexEntry) bool {
			return m.Image != "" && !c.elsewhere(m.Image, id)
		}) {
			delete(c.records, id)
			c.gone[id] = true
		}
	}
}

// elsewhere reports whether an image has a name of its own or is in an index
// other than x that has one.
func (c *change) elsewhere(img, x digest.Digest) bool {
	if rec := c.look(img); rec == nil || rec.names() > 0 {
		return true
	}
	has := func(id digest.Digest) bool {
		r := c.look(id)
		return r != nil && id != x && r.names() > 0 && slices.ContainsFunc(r.Members, func(m indexEntry) bool { return m.Image == img })
	}
	if slices.ContainsFunc(c.s.refs.indexesOf(img), has) {
		return true
	}
	for id := range c.records {
		if has(id) {
			return true
		}
	}
	return false
}

// commit makes the change durable and then visible.
func (c *change) commit() error {
	s := c.s
	err := s.db.Update(func(tx *metadata.Tx) error {
		for id, r := range c.records {
			if err := records.Put(tx, string(id), *r); err != nil {
				return err
			}
		}
		for id := range c.gone {
			if err := records.Delete(tx, string(id)); err != nil {
				return err
			}
		}
		for _, key := range c.bad {
			if err := records.Delete(tx, key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range c.gone {
		if st := s.images[id]; st != nil {
			s.unindex(st.rec)
		}
	}
	for _, r := range c.records {
		s.index(r)
	}
	for _, key := range c.bad {
		delete(s.damaged, key)
	}
	return nil
}
