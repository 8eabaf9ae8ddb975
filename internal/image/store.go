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
// record names; a collection of the whole stores removes them.
type Store struct {
	db      *metadata.DB
	content *content.Store
	layers  *layer.Store
	log     *slog.Logger

	// changing is held by the one who changes records, from reading them to
	// their commit. It is taken before mu. No lock is held while anything is
	// collected, and mu never while content or layers are called: they ask for
	// references from inside a collection.
	changing sync.Mutex
	mu       sync.RWMutex // guards the fields below; written with changing held
	images   map[digest.Digest]*state
	tags     map[string]digest.Digest // canonical name:tag
	digests  map[string]digest.Digest // canonical name@digest
	refs     references
	damaged  map[string]bool // keys of records that cannot be read
	leases   leases
}

// state is an image or index in memory. When what it shows changes it is
// replaced.
type state struct {
	rec *record

	mu     sync.Mutex // guards config and image; taken after Store.mu
	config *v1.DockerOCIImage
	image  *Image
}

// Open loads the records and registers the store as an owner of blobs and
// layers; what a crash left of either goes with the first collection of
// everything, when all owners are registered. A record that cannot be read is
// logged by name and the others are served; nothing is collected then, because
// it might be that record's, until the image is pulled or loaded again.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{
		db: o.DB, content: o.Content, layers: o.Layers, log: o.Logger,
		images: map[digest.Digest]*state{}, tags: map[string]digest.Digest{}, digests: map[string]digest.Digest{},
		refs: newReferences(), damaged: map[string]bool{}, leases: newLeases(),
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	err := o.DB.View(func(tx *metadata.Tx) error {
		bad, err := records.ForEach(tx, func(key string, r record) error {
			if string(r.ID) != key || content.CheckDigest(r.ID) != nil {
				s.damage(key, fault.New(fault.Internal, "read record", key, "it is another image's"))
				return nil
			}
			s.index(&r)
			return nil
		})
		for _, b := range bad {
			s.damage(b.Key, b.Err)
		}
		if err != nil {
			return err
		}
		return s.loadLeases(tx)
	})
	if err != nil {
		return nil, fault.Wrap("open image store", "", err)
	}
	// Where nothing can be written, what is over is dropped another time.
	if err := s.dropExpired(); err != nil && !fault.Is(err, fault.Forbidden) && !fault.Is(err, fault.Exhausted) {
		return nil, fault.Wrap("open image store", "", err)
	}
	s.nameMissing()
	s.content.AddOwner(s.usesBlob)
	s.layers.AddOwner(s.usesLayer)
	return s, nil
}

func (s *Store) damage(key string, err error) {
	s.damaged[key] = true
	s.log.Error("image record cannot be read", "image", key, "error", err, "hint", "pull or load the image again, or remove it")
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

// index takes a record into memory. The caller holds mu or is alone.
func (s *Store) index(r *record) {
	var config *v1.DockerOCIImage
	if old := s.images[r.ID]; old != nil {
		config = old.cachedConfig()
		s.unindex(old.rec)
	}
	s.images[r.ID] = &state{rec: r, config: config}
	delete(s.damaged, string(r.ID))
	for _, t := range r.Tags {
		s.tags[t] = r.ID
	}
	for _, d := range r.Digests {
		s.digests[d] = r.ID
	}
	s.refs.add(r, 1)
	s.refreshMembers(r)
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
	s.refs.add(r, -1)
	s.refreshMembers(r)
}

// refreshMembers forgets the snapshots of an index's images, which show its
// names.
func (s *Store) refreshMembers(r *record) {
	for _, m := range r.Members {
		if st := s.images[m.Image]; st != nil && !st.rec.isIndex() {
			s.images[m.Image] = &state{rec: st.rec, config: st.cachedConfig()}
		}
	}
}

// cachedConfig returns the parsed config if it was read already.
func (st *state) cachedConfig() *v1.DockerOCIImage {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.config
}

// load returns an image's snapshot, reading its config on first use. The caller
// does not hold mu.
func (s *Store) load(st *state) (*Image, error) {
	st.mu.Lock()
	img := st.image
	st.mu.Unlock()
	if img != nil {
		return img, nil
	}
	s.mu.RLock()
	names := s.naming(st.rec)
	s.mu.RUnlock()

	st.mu.Lock()
	defer st.mu.Unlock()
	if st.config == nil {
		data, err := s.content.Read(st.rec.ID, MaxConfig)
		if err != nil {
			return nil, fault.Wrap("read image", st.rec.ID.String(), err)
		}
		if st.config, err = ParseConfig(data); err != nil {
			return nil, fault.Wrap("read image", st.rec.ID.String(), err)
		}
	}
	st.image = st.rec.image(st.config, names)
	return st.image, nil
}

// naming returns the records whose names are the image's: its own, and those of
// the indexes it is in. The caller holds mu.
func (s *Store) naming(r *record) []*record {
	all := []*record{r}
	for _, id := range s.refs.indexesOf(r.ID) {
		all = append(all, s.images[id].rec)
	}
	return all
}

// Get finds an image by name[:tag][@digest], full id or unique short id. A name
// of an index gives the image for this machine, or the best there is. One that
// is not there is fault.NotFound in docker's words.
func (s *Store) Get(ctx context.Context, ref string) (*Image, error) {
	s.mu.RLock()
	id, err := s.find(ref)
	var st *state
	if err == nil {
		if st = s.images[id]; st.rec.isIndex() {
			st = s.images[s.choose(st.rec, nil)]
		}
	}
	s.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, notFound(ref)
	}
	return s.load(st)
}

// List returns all images, newest first; of those that an index holds together
// only the one that Get gives for its name, unless others have names of their
// own. One whose config cannot be read is logged and left out.
func (s *Store) List(ctx context.Context) ([]*Image, error) {
	s.mu.RLock()
	states := make([]*state, 0, len(s.images))
	for id, st := range s.images {
		if !st.rec.isIndex() && (st.rec.names() > 0 || !s.behind(id)) {
			states = append(states, st)
		}
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
