package content

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Who may delete what: nobody deletes a blob because he is done with it. He
// calls Collect, which asks every keeper of records whether it needs the blob
// and looks whether anybody is about to. The latter say so with a Hold before
// they look whether the blob is there, and keep it until their record is one of
// those that are asked. No lock is held while keepers are asked; a hold that
// comes meanwhile, even if it is gone again, wins.

// Hold keeps blobs from being deleted while somebody is about to refer to them.
// It is safe for concurrent use and must be released.
type Hold struct {
	store *Store
	ids   []digest.Digest // guarded by Store.mu
}

// Hold returns a hold on nothing yet.
func (s *Store) Hold() *Hold { return &Hold{store: s} }

// Add holds blobs, whether they are there already or not. Whoever wants to use
// one that is there adds it first and looks then.
func (h *Hold) Add(d ...digest.Digest) {
	s := h.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range d {
		s.held[d]++
		if a := s.asked[d]; a != nil {
			a.adds++
		}
		h.ids = append(h.ids, d)
	}
}

// Release lets go of everything. What was held and is of no use now goes with
// Collect.
func (h *Hold) Release() []digest.Digest {
	s := h.store
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := h.ids
	h.ids = nil
	for _, d := range ids {
		if s.held[d]--; s.held[d] <= 0 {
			delete(s.held, d)
		}
	}
	return ids
}

// collector is the part of a Store that decides what may go.
type collector struct {
	mu     sync.Mutex // guards the fields below
	held   map[digest.Digest]int
	asked  map[digest.Digest]*asked
	owners []func(digest.Digest) bool
	gone   int             // numbers names of what is being deleted
	parts  map[string]bool // keys of partial blobs that somebody has open
}

// asked is a blob about which keepers of records are being asked.
type asked struct {
	by   int // collections under way
	adds int // holds that came since the first of them began
}

// AddOwner registers a keeper of records. uses reports whether one of them
// needs the blob; it is called without any lock of the store and must be fast.
// Callers of Collect must not hold a lock that a uses takes.
func (s *Store) AddOwner(uses func(d digest.Digest) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owners = append(s.owners[:len(s.owners):len(s.owners)], uses)
}

// Collect deletes those of the given blobs that nobody holds or uses, and
// returns how many bytes that freed. What is not there is passed over. The
// first error does not keep the rest from being deleted.
func (s *Store) Collect(ds ...digest.Digest) (freed int64, err error) {
	for _, d := range ds {
		n, e := s.collect(d)
		freed += n
		if err == nil {
			err = e
		}
	}
	return freed, err
}

// CollectAll collects the whole store. It may run beside anything; all owners
// must be registered before.
func (s *Store) CollectAll() (freed int64, err error) {
	var all []digest.Digest
	if err := s.Walk(func(i Info) error { all = append(all, i.Digest); return nil }); err != nil {
		return 0, err
	}
	return s.Collect(all...)
}

func (s *Store) collect(d digest.Digest) (int64, error) {
	p, err := s.path(d)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	if s.held[d] > 0 {
		s.mu.Unlock()
		return 0, nil
	}
	a := s.asked[d]
	if a == nil {
		a = &asked{}
		s.asked[d] = a
	}
	a.by++
	adds, owners := a.adds, s.owners
	s.mu.Unlock()

	used := false
	for _, uses := range owners {
		if used = uses(d); used {
			break
		}
	}

	s.mu.Lock()
	if a.by--; a.by == 0 {
		delete(s.asked, d)
	}
	if used || a.adds != adds || s.held[d] > 0 {
		s.mu.Unlock()
		return 0, nil
	}
	// Freeing the blocks of a large file takes its time: out of sight is what
	// must be one with the decision.
	s.gone++
	to := filepath.Join(s.dir, "ingest", "gone-"+strconv.Itoa(s.gone))
	err = os.Rename(p, to)
	s.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, wrap("delete blob", d, err)
	}
	var size int64
	if fi, err := os.Lstat(to); err == nil {
		size = fi.Size()
	}
	return size, wrap("delete blob", d, os.Remove(to))
}
