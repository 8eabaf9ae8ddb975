package solve

import (
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/build/graph"
	"berth/internal/build/tree"
	"berth/internal/fault"
	"berth/internal/layer"
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

// maxShared bounds what is read of somebody else's cache.
const maxShared = 64 << 20

// Share describes the records with the given keys, which StepInfo has, and the
// layers that they name, base first.
func (s *Solver) Share(keys []string) (doc []byte, layers []digest.Digest, err error) {
	out := Shared{Version: sharedVersion, Digests: map[string]digest.Digest{}}
	s.mu.Lock()
	used := map[string]bool{}
	for _, key := range keys {
		r := s.records[key]
		if r == nil {
			continue
		}
		c := *r
		c.Boot, c.Slot = "", "" // a project's path is nobody's business
		out.Steps = append(out.Steps, c)
		for _, d := range c.Layers {
			if !slices.Contains(layers, d) {
				layers = append(layers, d)
			}
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
	doc, err = json.Marshal(out)
	return doc, layers, fault.Wrap("describe build cache", "", err)
}

// Accept takes over what Share made elsewhere. The layers need not be here: see
// Job.Fetch. Records that do not say what their keys say are left out; whoever
// made them decides what builds with them give, so they should come from somebody
// who is trusted like a base image's maker.
func (s *Solver) Accept(doc []byte) (steps int, err error) {
	const op = "import build cache"
	if len(doc) > maxShared {
		return 0, fault.New(fault.Invalid, op, "", "it has more than %d bytes", maxShared)
	}
	var in Shared
	if err := json.Unmarshal(doc, &in); err != nil {
		return 0, fault.New(fault.Invalid, op, "", "%w", err)
	}
	if in.Version != sharedVersion {
		return 0, fault.New(fault.Unsupported, op, "", "it has version %d, known is %d", in.Version, sharedVersion)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range in.Steps {
		r := in.Steps[i]
		if s.records[r.Key] != nil || !r.consistent() {
			continue
		}
		r.Boot, r.LastUsed, r.Uses = "", time.Now(), 0
		s.add(&r)
		s.newer[r.Key] = true
		steps++
	}
	for k, d := range in.Digests {
		if _, ok := s.digests[k]; !ok && len(k) == 64 && d.Validate() == nil {
			s.digests[k] = d
			s.fresh = append(s.fresh, k)
		}
	}
	return steps, nil
}

// consistent reports whether a record from elsewhere can be true.
func (r *Record) consistent() bool {
	id := stepIdentity{kind: r.Kind, parts: r.Parts}
	id.seal()
	if id.key != r.Key || r.Made != "" && (len(r.Layers) == 0 || r.Layers[len(r.Layers)-1] != r.Made) {
		return false
	}
	for _, d := range r.Layers {
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
			return false
		}
	}
	return true
}

// ExportMount writes the content of a cache mount as a tar. A step that uses it
// meanwhile does not disturb.
func (s *Solver) ExportMount(ctx context.Context, id string, w io.Writer) error {
	name := nameOf(id, 0)
	if _, ok := s.mounts.list()[name]; !ok {
		return fault.New(fault.NotFound, "export cache mount", id, "no such mount")
	}
	return layer.ExportTree(ctx, filepath.Join(s.mounts.dir, name, "data"), w)
}

// ImportMount makes a cache mount from a tar, unless there is one already.
func (s *Solver) ImportMount(ctx context.Context, id string, r io.Reader) error {
	c, err := s.mounts.acquire(ctx, &graph.Mount{ID: id, Sharing: graph.Shared}, func(dir string) error {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		root := tree.NewRoot(fd, nil)
		defer root.Close()
		return root.Untar(ctx, r, "/", tree.CopyOptions{})
	})
	if err != nil {
		return fault.Wrap("import cache mount", id, err)
	}
	c.release()
	return nil
}

// MountIDs lists the ids of all cache mounts.
func (s *Solver) MountIDs() []string {
	var out []string
	for _, m := range s.mounts.list() {
		if !slices.Contains(out, m.ID) {
			out = append(out, m.ID)
		}
	}
	slices.Sort(out)
	return out
}
