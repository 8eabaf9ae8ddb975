package layer

import (
	"context"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Hold keeps layers from being deleted while somebody is about to refer to
// them. It is safe for concurrent use and must be released.
type Hold struct {
	store *Store
	mu    sync.Mutex // guards ids; taken after Store.mu
	ids   []digest.Digest
}

// Hold returns a hold on nothing yet.
func (s *Store) Hold() *Hold { return &Hold{store: s} }

// Add holds layers, whether they are there already or not. Whoever wants to use
// one that is there adds it first and looks then.
func (h *Hold) Add(diffIDs ...digest.Digest) {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	for _, d := range diffIDs {
		h.add(d)
	}
}

// add holds one layer. The caller holds Store.mu.
func (h *Hold) add(d digest.Digest) {
	h.store.ref(d)
	h.mu.Lock()
	h.ids = append(h.ids, d)
	h.mu.Unlock()
}

// Apply is Store.Apply with the layer held from the moment it is there.
func (h *Hold) Apply(ctx context.Context, diffID digest.Digest, r io.Reader) (Layer, error) {
	if diffID != "" {
		h.Add(diffID)
	}
	return h.store.apply(ctx, diffID, r, h)
}

// Release lets go of everything and returns what was held, which nobody may
// refer to now.
func (h *Hold) Release() []digest.Digest {
	h.store.mu.Lock()
	defer h.store.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := h.ids
	h.ids = nil
	for _, d := range ids {
		h.store.unref(d)
	}
	return ids
}
