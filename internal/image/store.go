package image

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/layer"
	"berth/internal/metadata"
)

var records = metadata.NewBucket[record]("images")

// Options wires a Store.
type Options struct {
	DB      *metadata.DB
	Content *content.Store
	Layers  *layer.Store
	Logger  *slog.Logger // nil: slog.Default()
}

// Store is the set of images. It is safe for concurrent use.
//
// The database is the truth and is written first: an image is recorded after
// everything it needs is on disk, and removed from the records before anything
// of it is deleted. What a crash leaves in between is layers and blobs that no
// record names; Open removes them.
type Store struct {
	db      *metadata.DB
	content *content.Store
	layers  *layer.Store
	log     *slog.Logger

	// mu guards what follows, and is held over each commit together with the
	// change in memory, so that both are one to everybody else.
	mu      sync.RWMutex
	images  map[digest.Digest]*state
	tags    map[string]digest.Digest // canonical name:tag
	digests map[string]digest.Digest // canonical name@digest
	held    map[digest.Digest]int    // blobs that an unfinished registration needs
}

// state is an image in memory.
type state struct {
	rec *record

	mu     sync.Mutex // guards config and image; taken after Store.mu
	config *v1.DockerOCIImage
	image  *Image
}

// Open loads the records and removes layers and blobs that none of them names.
// A record that cannot be read is logged by name, the others are served, and
// nothing is removed, because it might be that record's.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		db: o.DB, content: o.Content, layers: o.Layers, log: o.Logger,
		images: map[digest.Digest]*state{}, tags: map[string]digest.Digest{}, digests: map[string]digest.Digest{},
		held: map[digest.Digest]int{},
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	var bad []metadata.BadRecord
	err := o.DB.View(func(tx *metadata.Tx) (err error) {
		bad, err = records.ForEach(tx, func(key string, r record) error {
			if string(r.ID) != key || content.CheckDigest(r.ID) != nil {
				s.log.Error("image record is damaged", "image", key, "hint", "pull or load the image again")
				bad = append(bad, metadata.BadRecord{Key: key})
				return nil
			}
			s.index(&r)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fault.Wrap("open image store", "", err)
	}
	for _, b := range bad {
		if b.Err != nil {
			s.log.Error("image record cannot be read", "image", b.Key, "error", b.Err, "hint", "pull or load the image again")
		}
	}
	s.nameMissing()
	if len(bad) > 0 || ctx.Err() != nil {
		return s, nil
	}
	return s, fault.Wrap("open image store", "", s.sweep())
}

// index takes a record into memory. The caller holds mu or is alone.
func (s *Store) index(r *record) {
	if old := s.images[r.ID]; old != nil {
		s.unindex(old.rec)
		s.images[r.ID] = &state{rec: r, config: old.cachedConfig()}
	} else {
		s.images[r.ID] = &state{rec: r}
	}
	for _, t := range r.Tags {
		s.tags[t] = r.ID
	}
	for _, d := range r.Digests {
		s.digests[d] = r.ID
	}
}

func (s *Store) unindex(r *record) {
	for _, t := range r.Tags {
		if s.tags[t] == r.ID {
			delete(s.tags, t)
		}
	}
	for _, d := range r.Digests {
		if s.digests[d] == r.ID {
			delete(s.digests, d)
		}
	}
	delete(s.images, r.ID)
}

// nameMissing tells about images that cannot run because something deleted
// their files.
func (s *Store) nameMissing() {
	for id, st := range s.images {
		for _, d := range st.rec.DiffIDs {
			if !s.layers.Has(d) {
				s.log.Error("a layer of an image is missing", "image", id, "tags", st.rec.Tags, "layer", d, "hint", "pull or load the image again")
				break
			}
		}
		if !s.content.Has(id) {
			s.log.Error("the config of an image is missing", "image", id, "tags", st.rec.Tags, "hint", "pull or load the image again")
		}
	}
}

// sweep removes what a crash left behind. Nothing else runs yet.
func (s *Store) sweep() error {
	used := map[digest.Digest]bool{}
	for _, st := range s.images {
		for _, d := range st.rec.DiffIDs {
			used[d] = true
		}
		for _, d := range st.rec.blobs() {
			used[d] = true
		}
		for _, d := range st.rec.Packed {
			used[d.Digest] = true
		}
	}
	for _, d := range s.layers.List() {
		if used[d] {
			continue
		}
		if _, err := s.layers.Delete(d); err != nil {
			return err
		}
	}
	return s.content.Walk(func(i content.Info) error {
		if used[i.Digest] {
			return nil
		}
		_, err := s.content.Collect(i.Digest)
		return err
	})
}

// cachedConfig returns the parsed config if it was read already.
func (st *state) cachedConfig() *v1.DockerOCIImage {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.config
}

// load returns the image's snapshot, reading its config on first use.
func (s *Store) load(st *state) (*Image, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.image != nil {
		return st.image, nil
	}
	if st.config == nil {
		data, err := s.content.Read(st.rec.ID, MaxConfig)
		if err != nil {
			return nil, fault.Wrap("read image", st.rec.ID.String(), err)
		}
		if st.config, err = ParseConfig(data); err != nil {
			return nil, fault.Wrap("read image", st.rec.ID.String(), err)
		}
	}
	st.image = st.rec.image(st.config)
	return st.image, nil
}

// Get finds an image by name[:tag][@digest], full id or unique short id. One
// that is not there is fault.NotFound in docker's words.
func (s *Store) Get(ctx context.Context, ref string) (*Image, error) {
	s.mu.RLock()
	id, err := s.find(ref)
	st := s.images[id]
	s.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	return s.load(st)
}

// List returns all images, newest first. One whose config cannot be read is
// logged and left out.
func (s *Store) List(ctx context.Context) ([]*Image, error) {
	s.mu.RLock()
	states := make([]*state, 0, len(s.images))
	for _, st := range s.images {
		states = append(states, st)
	}
	s.mu.RUnlock()
	images := make([]*Image, 0, len(states))
	for _, st := range states {
		i, err := s.load(st)
		if err != nil {
			s.log.Error("image cannot be read", "image", st.rec.ID, "error", err)
			continue
		}
		images = append(images, i)
	}
	slices.SortFunc(images, func(a, b *Image) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	return images, nil
}
