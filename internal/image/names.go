package image

import (
	"errors"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
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

// find returns the id of the image or index that ref means. A name wins over a short id,
// as with docker. The caller holds mu or changing.
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
		if st := s.images[digested.Digest()]; st != nil && st.rec.hasName(named.Name()) {
			return st.rec.ID, true
		}
		return "", false
	}
	id, ok := s.tags[reference.TagNameOnly(named).String()]
	return id, ok
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

// quoteShort quotes a name from outside for a message.
func quoteShort(s string) string {
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return s
}
