package solve

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// Item is one thing that the cache keeps.
type Item struct {
	ID          string
	Kind        string // "exec", "file", "git", "http", "mount", "local"
	Description string
	Size        int64 // bytes on disk
	InUse       bool
	Shared      bool // an image has the layer, too: removing the record frees nothing
	Mutable     bool // a mount or a client's directory
	Created     time.Time
	LastUsed    time.Time
	Uses        int
	layer       digest.Digest
}

// Usage lists what the cache keeps, the least recently used first. shared tells
// which layers images have; nil is none.
func (s *Solver) Usage(ctx context.Context, shared func(digest.Digest) bool) ([]Item, error) {
	var out []Item
	s.mu.Lock()
	for _, r := range s.records {
		i := Item{
			ID: r.id(), Kind: r.Kind, Description: r.Name, Size: r.Size, Created: r.Created, LastUsed: r.LastUsed, Uses: r.Uses,
			InUse: s.flights[r.Key] != nil, Shared: r.Made != "" && shared != nil && shared(r.Made), layer: r.Made,
		}
		if r.From != "" {
			i.Description += " (from " + r.From + ")"
		}
		out = append(out, i)
	}
	s.mu.Unlock()
	for name, m := range s.mounts.list() {
		size, err := diskUsage(ctx, filepath.Join(s.mounts.dir, name))
		if err != nil {
			return nil, err
		}
		out = append(out, Item{
			ID: name, Kind: "mount", Description: "cache mount " + m.ID, Size: size, InUse: m.inUse, Mutable: true,
			Created: m.Created, LastUsed: m.LastUsed, Uses: m.Uses,
		})
	}
	for _, k := range s.sources.Kept() {
		out = append(out, Item{
			ID: k.ID, Kind: "local", Description: "context " + k.Name + ", as a client sent it", Size: k.Size, InUse: k.InUse, Mutable: true,
			Created: k.Created, LastUsed: k.LastUsed, Uses: k.Uses,
		})
	}
	slices.SortFunc(out, func(a, b Item) int {
		if c := a.LastUsed.Compare(b.LastUsed); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// diskUsage sums the blocks of what is below dir. What vanishes meanwhile counts
// as nothing: a step may be using it.
func diskUsage(ctx context.Context, dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fi, err := e.Info(); err == nil {
			if st, ok := fi.Sys().(*syscall.Stat_t); ok {
				total += st.Blocks * 512
			}
		}
		return nil
	})
	return total, err
}

// dropListings removes lists that explain no record any more.
func (s *Solver) dropListings() {
	used := map[string]bool{}
	s.mu.Lock()
	for _, r := range s.records {
		for _, p := range r.Parts {
			if hex, ok := strings.CutPrefix(p.Value, "sha256:"); ok {
				used[hex] = true
			}
		}
	}
	s.mu.Unlock()
	dir := filepath.Join(s.o.Dir, "lists")
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, f := range files {
		fi, err := f.Info()
		if !used[f.Name()] && err == nil && time.Since(fi.ModTime()) > time.Hour {
			_ = os.Remove(filepath.Join(dir, f.Name()))
		}
	}
}
