package image

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/layer"
)

// Registration is one image that is about to be recorded. Its layers are
// unpacked and held already.
type Registration struct {
	Config    []byte // the document whose digest is the image's id
	Tags      []reference.NamedTagged
	Digests   []reference.Canonical
	Manifests [][]byte // documents to keep, such as the manifest it came with
	// Packed are the layers as they came, base first; may be nil. Those that
	// are in the content store, held by the caller, stay there.
	Packed []ocispec.Descriptor
	Parent digest.Digest
	Index  *IndexMembership // not nil: one image of several

	id      digest.Digest
	config  *v1.DockerOCIImage
	members []indexEntry
	kept    map[digest.Digest]digest.Digest // layer -> blob to read it from
}

// Register records images and their names in one step: after a crash there are
// all of them or none. It returns once everything is on disk. hold must hold
// the layers; the caller releases it afterwards through Release.
func (s *Store) Register(ctx context.Context, hold *layer.Hold, images []Registration, progress Progress) ([]*Image, error) {
	const op = "record image"
	for i := range images {
		r := &images[i]
		var err error
		if r.config, err = ParseConfig(r.Config); err != nil {
			return nil, err
		}
		r.id = digest.FromBytes(r.Config)
		hold.Add(r.config.RootFS.DiffIDs...)
		if r.Index != nil {
			if r.members, err = parseMembers(r.Index.Raw, r.Index.Documents); err != nil {
				return nil, err
			}
		}
	}
	docs := s.content.Hold()
	defer func() { s.collectBlobs(docs.Release()) }()
	if err := s.store(ctx, docs, images); err != nil {
		return nil, fault.Wrap(op, "", err)
	}
	for i := range images {
		r := &images[i]
		if err := s.keepSources(docs, r.config.RootFS.DiffIDs, r.Packed, &r.kept); err != nil {
			return nil, fault.Wrap(op, r.id.String(), err)
		}
	}
	if err := s.content.Sync(); err != nil {
		return nil, err
	}
	var unnamed []moved
	_, err := s.change(func(c *change) error {
		for i := range images {
			if err := s.add(c, &images[i]); err != nil {
				return fault.Wrap(op, images[i].id.String(), err)
			}
		}
		unnamed = c.unnamed()
		return nil
	})
	if err != nil {
		return nil, fault.Wrap(op, "", err)
	}
	for _, m := range unnamed {
		progress.Stream(fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string\n",
			familiarString(m.tag), m.from))
	}
	return s.registered(images)
}

// unnamed returns the tags with which images lost their last name.
func (c *change) unnamed() []moved {
	return slices.DeleteFunc(slices.Clone(c.moved), func(m moved) bool {
		r := c.look(m.from)
		return r == nil || r.names() > 0 || c.elsewhere(m.from, "")
	})
}

// registered returns the snapshots of images that were just recorded. One that
// was removed in the same instant is returned as it was.
func (s *Store) registered(images []Registration) ([]*Image, error) {
	var out []*Image
	for i := range images {
		s.mu.RLock()
		st := s.images[images[i].id]
		s.mu.RUnlock()
		if st == nil {
			st = &state{rec: &record{ID: images[i].id, DiffIDs: images[i].config.RootFS.DiffIDs}, config: images[i].config}
		}
		img, err := s.load(st)
		if err != nil {
			return nil, err
		}
		out = append(out, img)
	}
	return out, nil
}

// store puts the documents into the content store, held.
func (s *Store) store(ctx context.Context, hold *content.Hold, images []Registration) error {
	for i := range images {
		documents := append([][]byte{images[i].Config}, images[i].Manifests...)
		if x := images[i].Index; x != nil {
			documents = append(append(documents, x.Raw), x.Documents...)
		}
		for _, data := range documents {
			if err := s.storeDocument(ctx, hold, data); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) storeDocument(ctx context.Context, hold *content.Hold, data []byte) error {
	d := digest.FromBytes(data)
	hold.Add(d)
	if _, err := s.content.Read(d, int64(len(data))); err == nil {
		return nil // there and whole; a damaged one is replaced
	}
	_, err := s.content.Ingest(ctx, bytes.NewReader(data), d, int64(len(data)))
	return err
}

// keepSources adds to kept, for each layer whose tree is not enough to write its
// tar again and that is not here as packed, a blob that it can be read from.
func (s *Store) keepSources(hold *content.Hold, diffIDs []digest.Digest, packed []ocispec.Descriptor, kept *map[digest.Digest]digest.Digest) error {
	for i, d := range diffIDs {
		if (*kept)[d] != "" {
			continue
		}
		l, err := s.layers.Stat(d)
		if err != nil {
			return err
		}
		if l.Exact || len(packed) == len(diffIDs) && s.content.Has(packed[i].Digest) {
			continue
		}
		if b := s.source(hold, d); b != "" {
			keepSource(kept, d, b)
		}
	}
	return nil
}

func keepSource(kept *map[digest.Digest]digest.Digest, diffID, blob digest.Digest) {
	if *kept == nil {
		*kept = map[digest.Digest]digest.Digest{}
	}
	(*kept)[diffID] = blob
}

// source returns a blob that is here and from which a layer can be read, held,
// or "".
func (s *Store) source(hold *content.Hold, diffID digest.Digest) digest.Digest {
	s.mu.RLock()
	var all []digest.Digest
	for b := range s.refs.sources[diffID] {
		all = append(all, b)
	}
	s.mu.RUnlock()
	slices.Sort(all)
	for _, b := range append(all, diffID) { // the uncompressed tar itself may be here
		hold.Add(b)
		if s.content.Has(b) {
			return b
		}
	}
	return ""
}

// add puts one registration into a change.
func (s *Store) add(c *change, r *Registration) error {
	size := int64(0)
	for _, d := range r.config.RootFS.DiffIDs {
		l, err := s.layers.Stat(d)
		if err != nil {
			return err
		}
		size += l.Size
	}
	rec := c.edit(r.id)
	if rec == nil {
		rec = &record{
			ID: r.id, DiffIDs: r.config.RootFS.DiffIDs, OS: r.config.OS, Arch: r.config.Architecture,
			Variant: r.config.Variant,
		}
		if r.config.Created != nil {
			rec.Created = *r.config.Created
		}
		c.put(rec)
	}
	rec.Size = size
	if rec.Parent == "" && r.Parent != r.id {
		rec.Parent = r.Parent
	}
	if r.Packed != nil {
		rec.Packed = r.Packed
	}
	for d, b := range r.kept {
		keepSource(&rec.Kept, d, b)
	}
	for _, m := range r.Manifests {
		addDigest(&rec.Manifests, digest.FromBytes(m))
	}
	named := r.id
	if r.Index != nil {
		named = c.join(r)
	} else if x := c.indexNamed(r); x != "" {
		named = x
	}
	for _, t := range r.Tags {
		c.tag(named, t.String())
	}
	for _, d := range r.Digests {
		c.digested(named, d.String())
	}
	return nil
}

func addDigest(list *[]digest.Digest, d digest.Digest) {
	if !slices.Contains(*list, d) {
		*list = append(*list, d)
	}
}

// put adds a new record.
func (c *change) put(r *record) {
	delete(c.gone, r.ID)
	c.records[r.ID] = r
}

// join makes an image a member of its index and returns the index's digest.
func (c *change) join(r *Registration) digest.Digest {
	id := digest.FromBytes(r.Index.Raw)
	x := c.edit(id)
	if x == nil {
		x = &record{ID: id, Members: r.members, Created: time.Now().UTC()}
		c.put(x)
		c.adopt(x)
	}
	if r.Index.Annotations != nil {
		x.Annotations = r.Index.Annotations
	}
	for i := range x.Members {
		if x.Members[i].Descriptor.Digest == r.Index.Manifest {
			x.Members[i].Image = r.id
		}
	}
	for _, d := range r.Index.Documents {
		addDigest(&x.Blobs, digest.FromBytes(d))
	}
	for _, d := range r.Index.Blobs {
		addDigest(&x.Blobs, d)
	}
	return id
}

// adopt makes members of a new index those images that are here and came with
// its manifests, such as one that was pulled alone before.
func (c *change) adopt(x *record) {
	for i, m := range x.Members {
		for id, st := range c.s.images {
			if !st.rec.isIndex() && !c.gone[id] && slices.Contains(st.rec.Manifests, m.Descriptor.Digest) {
				x.Members[i].Image = id
			}
		}
	}
}

// indexNamed returns the index that is here and has an image that is registered
// alone under that index's digest, such as one that is pulled for one platform
// only: it joins, and the names stay the index's.
func (c *change) indexNamed(r *Registration) digest.Digest {
	for _, d := range r.Digests {
		x := c.look(d.Digest())
		if x == nil || !x.isIndex() {
			continue
		}
		for i, m := range x.Members {
			if m.Image == r.id {
				return x.ID
			}
			if slices.ContainsFunc(r.Manifests, func(raw []byte) bool { return digest.FromBytes(raw) == m.Descriptor.Digest }) {
				c.edit(x.ID).Members[i].Image = r.id
				return x.ID
			}
		}
	}
	return ""
}

// Release lets go of a hold and deletes the layers of it that nobody needs.
func (s *Store) Release(hold *layer.Hold) {
	ids := hold.Release()
	slices.Sort(ids)
	s.collectLayers(slices.Compact(ids))
}

// Pushed records what an image or index is called at a registry to which it was
// just pushed: its layers as they were sent, base first (nil: as before), and
// its manifest, with the documents that an index consists of besides. The next
// push to there finds everything. Those of packed that are in the content store
// are held by the caller, and stay there now.
func (s *Store) Pushed(ctx context.Context, id digest.Digest, packed []ocispec.Descriptor, manifest []byte, name reference.Canonical, inner ...[]byte) error {
	const op = "record push of"
	hold := s.content.Hold()
	defer func() { s.collectBlobs(hold.Release()) }()
	for _, doc := range append(inner, manifest) {
		if err := s.storeDocument(ctx, hold, doc); err != nil {
			return fault.Wrap(op, id.String(), err)
		}
	}
	s.mu.RLock()
	st := s.images[id]
	s.mu.RUnlock()
	if st == nil {
		return notFound(id.String())
	}
	var kept map[digest.Digest]digest.Digest
	if err := s.keepSources(hold, st.rec.DiffIDs, packed, &kept); err != nil {
		return fault.Wrap(op, id.String(), err)
	}
	if err := s.content.Sync(); err != nil {
		return err
	}
	_, err := s.change(func(c *change) error {
		r := c.edit(id)
		if r == nil {
			return notFound(id.String())
		}
		if len(packed) > 0 && len(packed) == len(r.DiffIDs) {
			r.Packed = packed
		}
		for d, b := range kept {
			keepSource(&r.Kept, d, b)
		}
		if d := digest.FromBytes(manifest); d != id {
			addDigest(&r.Manifests, d)
		}
		for _, doc := range inner {
			addDigest(&r.Blobs, digest.FromBytes(doc))
		}
		c.digested(id, name.String())
		return nil
	})
	return fault.Wrap(op, id.String(), err)
}

// created is the time for documents made here, as precise as docker's.
func created() *time.Time {
	t := time.Now().UTC()
	return &t
}
