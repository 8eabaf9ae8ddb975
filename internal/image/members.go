package image

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// IndexMembership says that a registration is one image of an index. The
// registration's names are the index's then, and naming the index means the
// image for this machine. Registrations of the same index are put together,
// also when they come one after another.
//
// A manifest may stand in for an index of that one image: so two names can mean
// the same image with different annotations.
type IndexMembership struct {
	Raw      []byte        // the index, as its digest has it
	Manifest digest.Digest // which entry of it the image is
	// Documents are further documents that belong to the index and are no
	// images: indexes within it and attestations. Blobs are what those name
	// and what is in the content store, held by the caller.
	Documents [][]byte
	Blobs     []digest.Digest
	// Annotations are those of the descriptor by which an archive names the index.
	Annotations map[string]string
}

// Member is one entry of an index.
type Member struct {
	Descriptor ocispec.Descriptor
	Platform   ocispec.Platform
	Image      *Image // nil when it is not here
}

// parseMembers lists the images of an index, those of indexes within it
// included where their documents are given.
func parseMembers(raw []byte, documents [][]byte) ([]indexEntry, error) {
	inner := map[digest.Digest][]byte{}
	for _, d := range documents {
		inner[digest.FromBytes(d)] = d
	}
	looked := 0 // small indexes that name each other often are much to look at
	var walk func(raw []byte, mediaType string, depth int) ([]indexEntry, error)
	walk = func(raw []byte, mediaType string, depth int) ([]indexEntry, error) {
		doc, err := ParseDocument(raw, mediaType)
		if err != nil {
			return nil, err
		}
		if doc.Index == nil && depth == 0 {
			d := ocispec.Descriptor{MediaType: doc.Manifest.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
			return []indexEntry{{Descriptor: d}}, nil
		}
		if doc.Index == nil {
			return nil, badDocument("index", "%w: it is a manifest", ErrDocument)
		}
		if depth > maxNesting {
			return nil, badDocument("index", "%w: indexes nested more than %d deep", ErrDocument, maxNesting)
		}
		all := []indexEntry{}
		for _, d := range doc.Index.Manifests {
			if looked++; looked > maxEntries {
				return nil, badDocument("index", "%w: more than %d manifests", ErrTooLarge, maxEntries)
			}
			switch next, ok := inner[d.Digest]; {
			case !isImage(&d):
			case ok && IsIndex(d.MediaType):
				more, err := walk(next, d.MediaType, depth+1)
				if err != nil {
					return nil, err
				}
				all = append(all, more...)
			case !IsIndex(d.MediaType):
				all = append(all, indexEntry{Descriptor: d})
			}
		}
		return all, nil
	}
	return walk(raw, "", 0)
}

// memberPlatform is what a member is for: as its own config says where it is
// here, else as the index says.
func memberPlatform(m indexEntry, rec *record) ocispec.Platform {
	switch {
	case m.Descriptor.Platform != nil:
		return *m.Descriptor.Platform
	case rec != nil:
		return rec.platform()
	}
	return ocispec.Platform{}
}

// choose returns the image of an index that is here and best for a platform;
// nil means this machine's and, when there is none for it, the first there is.
// "" means none. The caller holds mu or changing.
func (s *Store) choose(r *record, want *ocispec.Platform) digest.Digest {
	host := HostPlatform()
	p := want
	if p == nil {
		p = &host
	}
	var best, first digest.Digest
	bestRank := 0
	for _, m := range r.Members {
		st := s.images[m.Image]
		if st == nil {
			continue
		}
		if first == "" {
			first = m.Image
		}
		if n := rank(*p, memberPlatform(m, st.rec)); n > bestRank {
			best, bestRank = m.Image, n
		}
	}
	if best == "" && want == nil {
		return first
	}
	return best
}

// behind reports whether an image is in an index and not the one that the
// index's name gives. The caller holds mu or changing.
func (s *Store) behind(id digest.Digest) bool {
	in := s.refs.indexesOf(id)
	for _, x := range in {
		if s.choose(s.images[x].rec, nil) == id {
			return false
		}
	}
	return len(in) > 0
}

// GetPlatform is Get for a platform; nil is this machine's. An image that is
// for another is fault.NotFound and ErrPlatform.
func (s *Store) GetPlatform(ctx context.Context, ref string, want *ocispec.Platform) (*Image, error) {
	if want == nil {
		return s.Get(ctx, ref)
	}
	s.mu.RLock()
	id, err := s.find(ref)
	var st *state
	var have []string
	if err == nil {
		st = s.images[id]
		if rec := st.rec; rec.isIndex() {
			st = s.images[s.choose(rec, want)]
			for _, m := range rec.Members {
				if here := s.images[m.Image]; here != nil {
					have = append(have, FormatPlatform(memberPlatform(m, here.rec)))
				}
			}
		} else if !Matches(*want, rec.platform()) {
			have, st = append(have, FormatPlatform(rec.platform())), nil
		}
	}
	s.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, fault.New(fault.NotFound, "find image", ref, "%w: %s is wanted, here is %s",
			ErrPlatform, FormatPlatform(*want), listOr(have, "none")).WithHint("pull it with --platform %s", FormatPlatform(*want))
	}
	return s.load(st)
}

// Members lists the images of the index that ref names, and the index itself;
// an image that is in none is its own only member, with raw nil.
func (s *Store) Members(ctx context.Context, ref string) (members []Member, raw []byte, err error) {
	s.mu.RLock()
	id, err := s.find(ref)
	var rec *record
	states := map[digest.Digest]*state{}
	if err == nil {
		rec = s.images[id].rec
		states[id] = s.images[id]
		for _, m := range rec.Members {
			if st := s.images[m.Image]; st != nil {
				states[m.Image] = st
			}
		}
	}
	s.mu.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	if !rec.isIndex() {
		img, err := s.load(states[id])
		if err != nil {
			return nil, nil, err
		}
		p := rec.platform()
		m := Member{Platform: p, Image: img, Descriptor: ocispec.Descriptor{Platform: &p}}
		if d, data, err := s.manifestOf(rec); err == nil {
			m.Descriptor.MediaType, m.Descriptor.Digest, m.Descriptor.Size = d.MediaType, digest.FromBytes(data), int64(len(data))
		}
		return []Member{m}, nil, nil
	}
	for _, m := range rec.Members {
		out := Member{Descriptor: m.Descriptor, Platform: memberPlatform(m, nil)}
		if st := states[m.Image]; st != nil {
			if out.Image, err = s.load(st); err != nil {
				return nil, nil, err
			}
			out.Platform = memberPlatform(m, st.rec)
		}
		members = append(members, out)
	}
	raw, err = s.content.Read(id, MaxManifest)
	return members, raw, fault.Wrap("read index", id.String(), err)
}

// manifestOf returns the last manifest that was kept for an image.
func (s *Store) manifestOf(r *record) (*ocispec.Manifest, []byte, error) {
	for _, d := range slices.Backward(r.Manifests) {
		data, err := s.content.Read(d, MaxManifest)
		if err != nil {
			return nil, nil, err
		}
		if doc, err := ParseDocument(data, ""); err == nil && doc.Manifest != nil && doc.Manifest.Config.Digest == r.ID {
			return doc.Manifest, data, nil
		}
	}
	return nil, nil, fault.New(fault.NotFound, "find manifest", r.ID.String(), "the image came without one")
}

// Manifest returns the manifest that an image was last pulled or pushed with;
// one that was made or loaded here and has none is fault.NotFound.
func (s *Store) Manifest(ctx context.Context, id digest.Digest) ([]byte, error) {
	s.mu.RLock()
	st := s.images[id]
	s.mu.RUnlock()
	if st == nil {
		return nil, notFound(id.String())
	}
	if st.rec.isIndex() {
		return s.Document(ctx, id)
	}
	_, data, err := s.manifestOf(st.rec)
	return data, err
}

// Document returns a config, manifest or index that an image keeps, verified.
func (s *Store) Document(ctx context.Context, d digest.Digest) ([]byte, error) {
	data, err := s.content.Read(d, MaxConfig)
	return data, fault.Wrap("read document", d.String(), err)
}
