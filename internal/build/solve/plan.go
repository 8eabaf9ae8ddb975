package solve

import (
	"context"
	"math"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/fault"
)

// PruneOptions says what may go. Without any number of bytes, everything goes
// that the rest allows; else the least recently used goes until all are met.
type PruneOptions struct {
	MaxUsed  int64 // bytes that the cache may take; 0 is no limit
	MinFree  int64 // bytes that are to be free on its file system
	Reserved int64 // bytes that the cache may take whatever the others say
	// Unused leaves what was used more recently than this; 0 is any time.
	Unused time.Duration
	// Filter, if not nil, must agree.
	Filter func(Item) bool
	Shared func(digest.Digest) bool
}

// most is how many bytes may stay of so many that the cache takes, when so many
// are free.
func (o *PruneOptions) most(total, free int64) int64 {
	if o.MaxUsed <= 0 && o.MinFree <= 0 && o.Reserved <= 0 {
		return -1
	}
	most := int64(math.MaxInt64)
	if o.MaxUsed > 0 {
		most = o.MaxUsed
	}
	if o.MinFree > 0 {
		most = min(most, total-max(0, o.MinFree-free))
	}
	if o.MaxUsed <= 0 && o.MinFree <= 0 {
		most = o.Reserved
	}
	return max(most, o.Reserved, 0)
}

// Choice is what a prune makes of an item.
type Choice struct {
	Item
	Goes bool
	Why  string
}

// Plan tells what Prune would do now, the least recently used first.
func (s *Solver) Plan(ctx context.Context, o PruneOptions) ([]Choice, error) {
	items, err := s.Usage(ctx, o.Shared)
	if err != nil {
		return nil, err
	}
	var total, free int64
	for _, i := range items {
		if !i.Shared {
			total += i.Size
		}
	}
	if o.MinFree > 0 {
		s.o.Layers.Flush() // what was removed is free
		var st unix.Statfs_t
		if err := unix.Statfs(s.o.Dir, &st); err != nil {
			return nil, fault.Wrap("look how much is free", s.o.Dir, err)
		}
		free = int64(st.Bavail) * st.Bsize
	}
	most := o.most(total, free)
	var out []Choice
	for _, i := range items {
		c := Choice{Item: i}
		switch {
		case o.Filter != nil && !o.Filter(i):
			c.Why = "it is not asked for"
		case i.InUse:
			c.Why = "a build uses it"
		case o.Unused > 0 && time.Since(i.LastUsed) < o.Unused:
			c.Why = "it was used lately"
		case most >= 0 && total <= most:
			c.Why = "there is room for it, and it was used later than others"
		default:
			c.Goes, c.Why = true, "no build uses it"
			if i.Shared {
				c.Why += "; an image has the files, too"
			} else {
				total -= i.Size
			}
		}
		out = append(out, c)
	}
	return out, nil
}

// Pruned is what went.
type Pruned struct {
	Items []string
	Freed int64
}

// Prune removes records, with the layers that nobody else needs, cache mounts, and
// what clients sent. What running builds use stays.
func (s *Solver) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	var out Pruned
	plan, err := s.Plan(ctx, o)
	if err != nil {
		return out, err
	}
	var keys []string
	for _, i := range plan {
		if !i.Goes {
			continue
		}
		if i.Mutable {
			remove := s.mounts.remove
			if i.Kind == "local" {
				remove = s.sources.Remove
			}
			done, err := remove(i.ID)
			if err != nil {
				return out, err
			}
			if !done {
				continue
			}
			out.Freed += i.Size
		} else {
			keys = append(keys, i.ID)
		}
		out.Items = append(out.Items, i.ID)
	}
	layers, err := s.forget(keys)
	if err != nil {
		return out, err
	}
	freed, err := s.o.Layers.Collect(layers...)
	out.Freed += freed
	s.dropListings()
	return out, err
}
