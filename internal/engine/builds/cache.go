package builds

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/internal/build/solve"
	"berth/internal/engine/filter"
	"berth/internal/engine/reclaim"
	"berth/internal/fault"
	"berth/internal/wire"

	api "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
)

// BuildCache lists what the cache of builds keeps, the least recently used first.
func (s *Service) BuildCache(ctx context.Context, f filter.Set) ([]api.CacheRecord, error) {
	if err := f.Check(cacheFilters...); err != nil {
		return nil, err
	}
	items, err := s.builder.Usage(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.CacheRecord, 0, len(items))
	for _, it := range items {
		if !isCacheWanted(f, it) {
			continue
		}
		r := api.CacheRecord{
			ID: it.ID, Type: cacheType(it), Description: it.Description, InUse: it.InUse, Shared: it.Shared, Size: it.Size,
			CreatedAt: it.Created, UsageCount: it.Uses,
		}
		if !it.LastUsed.IsZero() {
			r.LastUsedAt = &it.LastUsed
		}
		out = append(out, r)
	}
	return out, nil
}

// BuildUsage is what the build cache takes, for docker's system df. What images
// have in common with it is theirs.
func (s *Service) BuildUsage(ctx context.Context) (*api.DiskUsage, error) {
	list, err := s.BuildCache(ctx, nil)
	if err != nil {
		return nil, err
	}
	u := &api.DiskUsage{Items: list, TotalCount: int64(len(list))}
	for _, r := range list {
		if r.InUse {
			u.ActiveCount++
		}
		if !r.Shared {
			u.TotalSize += r.Size
			if !r.InUse {
				u.Reclaimable += r.Size
			}
		}
	}
	return u, nil
}

// cacheType names kinds the way docker's clients know them.
func cacheType(it solve.Item) string {
	switch it.Kind {
	case "mount":
		return "exec.cachemount"
	case "git":
		return "source.git.checkout"
	case "local":
		return "source.local"
	}
	return "regular"
}

// PruneOptions say what of the build cache may go.
type PruneOptions struct {
	All bool // also what images have in common with it, which frees nothing but slows the next build down
	// Bytes, as in solve.PruneOptions.
	MaxUsed, MinFree, Reserved int64
	Filters                    filter.Set
}

// cacheFilters are the keys that filters of the build cache may have.
var cacheFilters = []string{"id", "type", "inuse", "shared", "private", "description"}

func isCacheWanted(f filter.Set, it solve.Item) bool {
	return f.Exact("type", cacheType(it)) && f.Match("description", it.Description) && hasPrefix(f.Get("id"), it.ID) &&
		isWanted(f, "inuse", it.InUse) && isWanted(f, "shared", it.Shared) && isWanted(f, "private", !it.Shared)
}

// hasPrefix reports whether there are no ids, or id begins with one of them.
func hasPrefix(ids []string, id string) bool {
	return len(ids) == 0 || slices.ContainsFunc(ids, func(begin string) bool { return strings.HasPrefix(id, begin) })
}

// choose reads what a prune may take.
func (o *PruneOptions) choose() (solve.PruneOptions, error) {
	prune := solve.PruneOptions{MaxUsed: o.MaxUsed, MinFree: o.MinFree, Reserved: o.Reserved, Filter: func(it solve.Item) bool {
		return isCacheWanted(o.Filters, it) && (o.All || !it.Shared)
	}}
	if err := o.Filters.Check(append([]string{"until", "unused-for"}, cacheFilters...)...); err != nil {
		return prune, err
	}
	for _, key := range []string{"until", "unused-for"} {
		for _, v := range o.Filters.Get(key) {
			d, err := time.ParseDuration(v)
			if err != nil {
				return prune, fault.New(fault.Invalid, "", "", "invalid filter '%s=%s': want a duration such as 24h", key, v)
			}
			prune.Unused = max(prune.Unused, d)
		}
	}
	return prune, nil
}

// BuildPrune removes from the build cache what nobody uses.
func (s *Service) BuildPrune(ctx context.Context, o PruneOptions) (*api.CachePruneReport, error) {
	prune, err := o.choose()
	if err != nil {
		return nil, err
	}
	went, err := s.builder.Prune(ctx, prune)
	if err != nil {
		return nil, err
	}
	s.stock.Bus.Publish(events.BuilderEventType, events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatInt(went.Freed, 10)})
	return &api.CachePruneReport{CachesDeleted: slices.Clone(went.Items), SpaceReclaimed: uint64(max(0, went.Freed))}, nil
}

// PlanBuildPrune adds to a plan what a prune would do.
func (s *Service) PlanBuildPrune(ctx context.Context, o PruneOptions, ahead *reclaim.Ahead) error {
	prune, err := o.choose()
	if err != nil {
		return err
	}
	plan, err := s.builder.PrunePlan(ctx, prune, func(image digest.Digest) bool { return ahead.Gone(image.String()) })
	if err != nil {
		return err
	}
	for _, c := range plan {
		item := reclaim.Item{Kind: wire.PlanCache, ID: c.ID, Names: []string{c.Description}, Size: c.Size, Reason: c.Why}
		if c.Shared {
			item.Size = 0
		}
		if c.Goes {
			ahead.Go(item)
		} else {
			ahead.Keep = append(ahead.Keep, item)
		}
	}
	return nil
}

// isWanted reports whether a yes-or-no filter agrees, or is not there.
func isWanted(f filter.Set, key string, have bool) bool {
	if !f.Has(key) {
		return true
	}
	want, err := f.Bool(key, true)
	return err == nil && want == have
}
