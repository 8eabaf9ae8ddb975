package solve

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/fault"
)

// Import is a cache that was made elsewhere. Whoever made it decides what builds
// with it give, so it counts for the builds that name it and for no others: it
// is no part of the solver's own records, which all builds believe.
type Import struct {
	From    string // what it is called, for messages and to know it again
	records map[string]*Record
	digests map[string]digest.Digest
}

const (
	maxImported       = 20_000 // steps
	maxImportedLayers = 1000   // of one step
)

// ReadImport reads what Share made elsewhere. The layers need not be here: see
// Job.Fetch. Records that do not say what their keys say are left out.
func ReadImport(doc []byte, from string) (*Import, error) {
	const op = "read build cache"
	if len(doc) > MaxShared {
		return nil, fault.New(fault.Invalid, op, from, "it has more than %d bytes", MaxShared)
	}
	var in Shared
	if err := json.Unmarshal(doc, &in); err != nil {
		return nil, fault.New(fault.Invalid, op, from, "%w", err)
	}
	if in.Version != sharedVersion {
		return nil, fault.New(fault.Unsupported, op, from, "it has version %d, known is %d", in.Version, sharedVersion)
	}
	if len(in.Steps) > maxImported {
		return nil, fault.New(fault.Invalid, op, from, "it has %d steps", len(in.Steps))
	}
	m := &Import{From: from, records: map[string]*Record{}, digests: map[string]digest.Digest{}}
	for i := range in.Steps {
		if r := &in.Steps[i]; r.consistent() {
			m.records[r.Key] = &Record{
				Key: r.Key, Kind: r.Kind, Layers: r.Layers, Made: r.Made, Parts: r.Parts, Note: r.Note, Created: r.Created, From: from,
			}
		}
	}
	for k, d := range in.Digests {
		if len(k) == 64 && isSHA256(d) {
			m.digests[k] = d
		}
	}
	return m, nil
}

// Steps is how many steps the import knows.
func (m *Import) Steps() int { return len(m.records) }

func isSHA256(d digest.Digest) bool { return d.Validate() == nil && d.Algorithm() == digest.SHA256 }

// consistent reports whether a record from elsewhere can be true: its key is that
// of what it says it is made of, and its layers are what was below it and what
// it added.
func (r *Record) consistent() bool {
	id := stepIdentity{kind: r.Kind, parts: r.Parts}
	id.seal()
	if id.key != r.Key || len(r.Layers) > maxImportedLayers || !slices.Contains([]string{"exec", "file", "git", "http"}, r.Kind) {
		return false
	}
	for _, d := range r.Layers {
		if !isSHA256(d) {
			return false
		}
	}
	below := r.Layers
	if r.Made != "" {
		if len(below) == 0 || below[len(below)-1] != r.Made {
			return false
		}
		below = below[:len(below)-1]
	}
	if base, ok := part(r.Parts, "base"); ok && base != "any" && base != chain(below).String() {
		return false
	}
	year := r.Created.UTC().Year() // it is written again, which not all years can be
	return year >= 1970 && year < 9999
}

// imported looks for a step in the caches that the build names, and keeps what it
// finds: the layers that come for it are then part of this cache, too.
func (r *run) imported(id *stepIdentity) *Record {
	for _, m := range r.j.Imports {
		if rec := m.records[id.key]; rec != nil {
			return r.s.adopt(rec, id)
		}
		if rec := r.s.find(recordID(id.key, m.From)); rec != nil {
			return rec // of an earlier state of it
		}
	}
	return nil
}

// adopt keeps a record of an import. What it says beyond its result is not
// taken over.
func (s *Solver) adopt(found *Record, id *stepIdentity) *Record {
	rec := *found
	rec.Name, rec.Text, rec.Boot = id.name, id.text, s.boot
	rec.LastUsed, rec.Uses = time.Now(), 1
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.records[rec.id()]; old != nil {
		rec.Uses += old.Uses
		if old.Made == rec.Made {
			rec.Size, rec.Packed, rec.PackedAt, rec.Boot = old.Size, old.Packed, old.PackedAt, old.Boot
		}
	}
	kept := rec
	s.add(&kept)
	s.newer[kept.id()] = true
	return &rec
}

// arrived notes how large layers are that came for records of imports.
func (s *Solver) arrived(layers []digest.Digest) {
	for _, d := range layers {
		l, err := s.o.Layers.Stat(d)
		if err != nil {
			continue
		}
		s.mu.Lock()
		for id, r := range s.records {
			if r.Made == d && r.Size != l.Disk {
				r.Size = l.Disk
				s.newer[id] = true
			}
		}
		s.mu.Unlock()
	}
}
