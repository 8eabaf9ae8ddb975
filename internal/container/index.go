package container

import (
	"slices"
	"strings"
	"sync"

	"berth/internal/fault"
)

// Index finds containers by id, unique id prefix and name. It is also the only
// place where a name is taken, so a name can't be given twice.
type Index struct {
	mu     sync.RWMutex // guards the maps; see the package comment
	byID   map[string]*Container
	byName map[string]string // name to id; an id not in byID is being created
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{byID: make(map[string]*Container), byName: make(map[string]string)}
}

// Reserve takes a name for an id. It fails with docker's words when the name is
// taken.
func (x *Index) Reserve(name, id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if owner, taken := x.byName[name]; taken && owner != id {
		return fault.New(fault.Conflict, "", "",
			`Conflict. The container name "/%s" is already in use by container "%s". You have to remove (or rename) that container to be able to reuse that name.`, name, owner)
	}
	x.byName[name] = id
	return nil
}

// ReserveFree takes the first free name that next returns.
func (x *Index) ReserveFree(id string, next func(attempt int) string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := 0; ; i++ {
		name := next(i)
		if _, taken := x.byName[name]; !taken {
			x.byName[name] = id
			return name
		}
	}
}

// Release gives a name back if id holds it.
func (x *Index) Release(name, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byName[name] == id {
		delete(x.byName, name)
	}
}

// Add makes a container findable. Its name must be reserved.
func (x *Index) Add(c *Container) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID[c.ID] = c
}

// Remove forgets a container and its name.
func (x *Index) Remove(id, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, id)
	if x.byName[name] == id {
		delete(x.byName, name)
	}
}

// Get returns the container with this full id, or nil.
func (x *Index) Get(id string) *Container {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.byID[id]
}

// Find returns the container that a user means: by full id, by name, or by a
// unique prefix of the id, in this order.
func (x *Index) Find(ref string) (*Container, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if c := x.byID[ref]; c != nil {
		return c, nil
	}
	if id, ok := x.byName[strings.TrimPrefix(ref, "/")]; ok {
		if c := x.byID[id]; c != nil {
			return c, nil
		}
	}
	var found *Container
	if ref != "" {
		for id, c := range x.byID {
			if !strings.HasPrefix(id, ref) {
				continue
			}
			if found != nil {
				return nil, fault.New(fault.Invalid, "", "", "multiple IDs found with provided prefix: %s", ref)
			}
			found = c
		}
	}
	if found == nil {
		return nil, fault.New(fault.NotFound, "", "", "No such container: %s", ref)
	}
	return found, nil
}

// All returns every container, newest first.
func (x *Index) All() []*Container {
	x.mu.RLock()
	all := make([]*Container, 0, len(x.byID))
	for _, c := range x.byID {
		all = append(all, c)
	}
	x.mu.RUnlock()
	slices.SortFunc(all, func(a, b *Container) int {
		ra, rb := a.Record(), b.Record()
		if d := rb.Created.Compare(ra.Created); d != 0 {
			return d
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}

// Len returns the number of containers.
func (x *Index) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.byID)
}
