package solve

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// Shared is what another machine needs to take over what was built here, besides
// the layers: it goes into an image's config (--cache-to type=inline) or beside
// the layers' blobs (type=registry, type=local).
type Shared struct {
	Version int
	Steps   []Record
	// Digests are contents of selections from stacks, so that the layers of
	// stages that only others copy from are not needed.
	Digests map[string]digest.Digest `json:",omitempty"`
}

// sharedVersion changes whenever keys are made in another way.
const sharedVersion = 1

// MaxShared bounds a document of Share, in bytes: as much as the config of an
// image may have.
const MaxShared = 8 << 20

// Share describes the records with the given ids, which StepInfo has as Key, and
// lists the layers that these steps made. What the build took from imports is
// passed on.
func (s *Solver) Share(ids []string, imports []*Import) (doc []byte, layers []digest.Digest, err error) {
	out := Shared{Version: sharedVersion, Digests: map[string]digest.Digest{}}
	used := map[string]bool{}
	s.mu.Lock()
	for _, id := range ids {
		r := s.records[id]
		if r == nil {
			continue
		}
		c := *r
		c.Boot, c.Slot = "", "" // a project's path is nobody's business
		c.From, c.Packed, c.PackedAt = "", nil, ""
		out.Steps = append(out.Steps, c)
		if c.Made != "" && !slices.Contains(layers, c.Made) {
			layers = append(layers, c.Made)
		}
		for _, p := range c.Parts {
			used[p.Value] = true
		}
	}
	for k, d := range s.digests {
		if used[d.String()] {
			out.Digests[k] = d
		}
	}
	s.mu.Unlock()
	for _, m := range imports {
		for k, d := range m.digests {
			if _, ok := out.Digests[k]; !ok && used[d.String()] {
				out.Digests[k] = d
			}
		}
	}
	if doc, err = json.Marshal(out); err != nil {
		return nil, nil, fault.Wrap("describe build cache", "", err)
	}
	if len(doc) > MaxShared {
		return nil, nil, fault.New(fault.Unsupported, "describe build cache", "", "the records of %d steps have more than %d bytes", len(out.Steps), MaxShared)
	}
	return doc, layers, nil
}

// Packed returns the blob that a layer was last sent or fetched as, and the
// repository that has it; nil when that is not known.
func (s *Solver) Packed(layer digest.Digest) (d *ocispec.Descriptor, at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		if r.Made == layer && r.Packed != nil {
			return r.Packed, r.PackedAt
		}
	}
	return nil, ""
}

// NotePacked keeps what layers are as blobs, by their digests, and which
// repository has these: they need not be packed again to find that out.
func (s *Solver) NotePacked(blobs map[digest.Digest]ocispec.Descriptor, at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.records {
		d, ok := blobs[r.Made]
		if !ok || r.Packed != nil && r.Packed.Digest == d.Digest && r.PackedAt == at {
			continue
		}
		r.Packed, r.PackedAt = &ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}, at
		s.newer[id] = true
	}
}

// Commit brings to disk what is only known in memory.
func (s *Solver) Commit() error { return s.commit() }
