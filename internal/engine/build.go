package engine

import (
	"context"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"berth/internal/build"
	"berth/internal/build/solve"
	"berth/internal/fault"
	"berth/internal/image"

	api "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/events"
)

// openBuilder opens the builder on the engine's stores. Its steps run through the
// monitor, which is there before anybody can ask for a build.
func (e *Engine) openBuilder() (err error) {
	e.builder, err = build.Open(build.Options{
		Dir: filepath.Join(e.cfg.Root, "build"), DB: e.db, Layers: e.layers, Images: e.images,
		Find: &bases{e: e}, Executor: steps{e}, Keep: e.cfg.BuildCacheKeep, Logger: e.log,
	})
	return err
}

// Build builds an image, or files. The result must be released.
func (e *Engine) Build(ctx context.Context, req build.Request, o BuildOptions) (*build.Result, error) {
	b := &bases{e: e, o: o, tell: req.Progress}
	if b.tell != nil {
		req.Progress = b.event
	}
	req.Find, req.CacheFrom = b, append(req.CacheFrom, b.caches(ctx)...)
	res, err := e.builder.Build(ctx, req)
	if err != nil || res.Image == nil {
		return res, err
	}
	for _, t := range req.Tags {
		if named, err := image.ParseName(t); err == nil {
			e.emitImage(events.ActionTag, familiar(named), familiar(named), res.Image)
		}
	}
	return res, nil
}

// BuildFiles writes the files of a build's result as one tar archive.
func (e *Engine) BuildFiles(ctx context.Context, res *build.Result, w io.Writer) error {
	return e.builder.ExportTar(ctx, res.Layers, w)
}

// BuildHistory is what was built.
func (e *Engine) BuildHistory() *build.History { return e.builder.History() }

// BuildCache lists what the cache of builds keeps, the least recently used first.
func (e *Engine) BuildCache(ctx context.Context) ([]api.CacheRecord, error) {
	items, err := e.builder.Usage(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.CacheRecord, len(items))
	for i, it := range items {
		out[i] = api.CacheRecord{
			ID: it.ID, Type: cacheType(it), Description: it.Description, InUse: it.InUse, Shared: it.Shared, Size: it.Size,
			CreatedAt: it.Created, UsageCount: it.Uses,
		}
		if !it.LastUsed.IsZero() {
			out[i].LastUsedAt = &it.LastUsed
		}
	}
	return out, nil
}

// cacheType names kinds the way docker's clients know them.
func cacheType(it solve.Item) string {
	switch it.Kind {
	case "mount":
		return "exec.cachemount"
	case "git":
		return "source.git.checkout"
	}
	return "regular"
}

// BuildPruneOptions say what of the build cache may go.
type BuildPruneOptions struct {
	All     bool  // also what images have in common with it, which frees nothing but slows the next build down
	Keep    int64 // bytes that may stay
	Filters Filters
}

// BuildPrune removes from the build cache what nobody uses.
func (e *Engine) BuildPrune(ctx context.Context, o BuildPruneOptions) (*api.CachePruneReport, error) {
	if err := o.Filters.Check("until", "unused-for", "id", "type", "inuse", "shared", "private", "description"); err != nil {
		return nil, err
	}
	prune := solve.PruneOptions{Keep: o.Keep, Filter: func(it solve.Item) bool {
		private := !it.Shared
		switch {
		case !o.Filters.Exact("id", it.ID), !o.Filters.Exact("type", cacheType(it)), !o.Filters.Match("description", it.Description):
			return false
		case !isWanted(o.Filters, "inuse", it.InUse), !isWanted(o.Filters, "shared", it.Shared), !isWanted(o.Filters, "private", private):
			return false
		}
		return o.All || !it.Shared
	}}
	for _, key := range []string{"until", "unused-for"} {
		for _, v := range o.Filters.Get(key) {
			d, err := time.ParseDuration(v)
			if err != nil {
				return nil, fault.New(fault.Invalid, "", "", "invalid filter '%s=%s': want a duration such as 24h", key, v)
			}
			prune.Unused = max(prune.Unused, d)
		}
	}
	went, err := e.builder.Prune(ctx, prune)
	if err != nil {
		return nil, err
	}
	e.bus.Publish(events.BuilderEventType, events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatInt(went.Freed, 10)})
	return &api.CachePruneReport{CachesDeleted: slices.Clone(went.Items), SpaceReclaimed: uint64(max(0, went.Freed))}, nil
}

// isWanted reports whether a yes-or-no filter agrees, or is not there.
func isWanted(f Filters, key string, have bool) bool {
	if !f.Has(key) {
		return true
	}
	want, err := f.Bool(key, true)
	return err == nil && want == have
}
