package image

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
	"berth/internal/metadata"
)

// ParseName parses what a user wrote as an image's name. A name without tag and
// digest gets the tag "latest".
func ParseName(ref string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, badName(ref, err)
	}
	return reference.TagNameOnly(named), nil
}

func badName(ref string, err error) error {
	e := &fault.Error{Kind: fault.Invalid, Op: "parse reference", Subject: quoteShort(ref), Err: err}
	switch {
	case errors.Is(err, reference.ErrNameContainsUppercase):
		e.Hint = "try " + strings.ToLower(ref)
	case errors.Is(err, reference.ErrReferenceInvalidFormat):
		e.Hint = "a reference looks like registry.example:5000/team/app:tag"
	}
	return e
}

// notFound is docker's answer to a name that no image has.
func notFound(ref string) error {
	if named, err := reference.ParseNormalizedNamed(ref); err == nil && !looksLikeID(ref) {
		ref = reference.FamiliarString(reference.TagNameOnly(named))
	}
	return &fault.Error{Kind: fault.NotFound, Op: "No such image:", Subject: ref}
}

func looksLikeID(ref string) bool {
	hex := strings.TrimPrefix(ref, "sha256:")
	if len(hex) != 64 && hex == ref {
		return false
	}
	return isHex(hex)
}

func isHex(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

// find returns the id of the image that ref means. A name wins over a short id,
// as with docker. The caller holds mu.
func (s *Store) find(ref string) (digest.Digest, error) {
	if hex := strings.TrimPrefix(ref, "sha256:"); looksLikeID(ref) && len(hex) == 64 {
		id := digest.NewDigestFromEncoded(digest.SHA256, hex)
		if s.images[id] != nil {
			return id, nil
		}
		return "", notFound(ref)
	}
	if hex, ok := strings.CutPrefix(ref, "sha256:"); ok && isHex(hex) {
		return s.byPrefix(ref, hex)
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", badName(ref, err)
	}
	if id, ok := s.byName(named); ok {
		return id, nil
	}
	if isHex(ref) {
		return s.byPrefix(ref, ref)
	}
	return "", notFound(ref)
}

func (s *Store) byName(named reference.Named) (digest.Digest, bool) {
	if digested, ok := named.(reference.Digested); ok {
		canonical, err := reference.WithDigest(reference.TrimNamed(named), digested.Digest())
		if err != nil {
			return "", false
		}
		if id, ok := s.digests[canonical.String()]; ok {
			return id, true
		}
		// name@digest may also give the image's own id
		if st := s.images[digested.Digest()]; st != nil && st.hasName(named.Name()) {
			return st.rec.ID, true
		}
		return "", false
	}
	id, ok := s.tags[reference.TagNameOnly(named).String()]
	return id, ok
}

// hasName reports whether a tag or digest of the image is in the repository.
func (st *state) hasName(repository string) bool {
	for _, t := range st.rec.Tags {
		if name, _ := cutTag(t); name == repository {
			return true
		}
	}
	for _, d := range st.rec.Digests {
		if name, _, _ := strings.Cut(d, "@"); name == repository {
			return true
		}
	}
	return false
}

// cutTag splits a canonical name:tag.
func cutTag(t string) (name, tag string) {
	i := strings.LastIndexByte(t, ':')
	if i < 0 {
		return t, ""
	}
	return t[:i], t[i+1:]
}

// byPrefix finds an image by the first digits of its id.
func (s *Store) byPrefix(ref, hex string) (digest.Digest, error) {
	var found digest.Digest
	for id := range s.images {
		if strings.HasPrefix(id.Encoded(), hex) {
			if found != "" {
				return "", fault.New(fault.Invalid, "find image", ref, "the short id means several images").
					WithHint("give more digits")
			}
			found = id
		}
	}
	if found == "" {
		return "", notFound(ref)
	}
	return found, nil
}

// Tag gives the image src the further name target; a tag that named another
// image moves.
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
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.find(src)
	if err != nil {
		return err
	}
	c := s.change()
	c.tag(id, reference.TagNameOnly(named).String())
	return fault.Wrap("tag image", target, c.commit())
}

// change collects new versions of records; nothing of it shows before commit.
// All its methods need Store.mu.
type change struct {
	s       *Store
	records map[digest.Digest]*record
	gone    map[digest.Digest]bool
	moved   []moved
}

// moved is a tag that was another image's before.
type moved struct {
	tag  string
	from digest.Digest
}

func (s *Store) change() *change {
	return &change{s: s, records: map[digest.Digest]*record{}, gone: map[digest.Digest]bool{}}
}

// edit returns the record of an image for changing, or nil.
func (c *change) edit(id digest.Digest) *record {
	if r := c.records[id]; r != nil {
		return r
	}
	st := c.s.images[id]
	if st == nil {
		return nil
	}
	r := st.rec.clone()
	c.records[id] = r
	return r
}

// owner returns which image a tag names after the change so far.
func (c *change) owner(tag string) digest.Digest {
	for id, r := range c.records {
		if slices.Contains(r.Tags, tag) {
			return id
		}
	}
	id := c.s.tags[tag]
	if r := c.records[id]; r != nil && !slices.Contains(r.Tags, tag) {
		return ""
	}
	return id
}

func (c *change) tag(id digest.Digest, tag string) {
	now := time.Now().UTC()
	if from := c.owner(tag); from == id {
		c.edit(id).LastTagged = now
		return
	} else if from != "" {
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

// commit makes the change durable and then visible.
func (c *change) commit() error {
	err := c.s.db.Update(func(tx *metadata.Tx) error {
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
		return nil
	})
	if err != nil {
		return err
	}
	for id := range c.gone {
		if st := c.s.images[id]; st != nil {
			c.s.unindex(st.rec)
		}
	}
	for _, r := range c.records {
		c.s.index(r)
	}
	return nil
}

// quoteShort quotes a name from outside for a message.
func quoteShort(s string) string {
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return s
}
