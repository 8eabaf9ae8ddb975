package build

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/dockerfile"
	"berth/internal/build/graph"
	"berth/internal/build/provenance"
	"berth/internal/build/solve"
	"berth/internal/build/source"
	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/layer"
	"berth/internal/metadata"
)

// Options wires a Builder.
type Options struct {
	Dir      string // the builder's own, on the layer store's file system
	DB       *metadata.DB
	Layers   *layer.Store
	Images   *image.Store
	Find     Images // nil: only images that are here
	Executor solve.Executor
	Parallel int // steps at the same time; 0: twice the processors
	// Keep is how many bytes of cache may stay after a build; 0 is no limit.
	Keep   int64
	Logger *slog.Logger
}

// Builder builds. It is safe for concurrent use.
type Builder struct {
	o       Options
	solver  *solve.Solver
	history *History
	log     *slog.Logger
	pruning sync.Mutex     // held while the budget is enforced
	work    sync.WaitGroup // in the background
}

// Open opens the builder's cache and history, and goes on where a killed engine
// stopped. It must be called before the layer store is collected.
func Open(o Options) (*Builder, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	b := &Builder{o: o, log: o.Logger}
	var err error
	b.solver, err = solve.Open(solve.Options{
		Dir: o.Dir, DB: o.DB, Layers: o.Layers, Executor: o.Executor, Parallel: o.Parallel, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	b.history, err = openHistory(filepath.Join(o.Dir, "history"))
	return b, err
}

// Close brings to disk what is not there yet. No build may run.
func (b *Builder) Close() error {
	b.work.Wait()
	return b.solver.Close()
}

// Cache is where steps' results are kept.
func (b *Builder) Cache() *solve.Solver { return b.solver }

// History is what was built.
func (b *Builder) History() *History { return b.history }

// one is a build that runs.
type one struct {
	b          *Builder
	req        *Request
	rec        *Build
	contexts   map[string]*source.Context
	text       []byte
	file       string
	tags       []reference.NamedTagged
	platforms  []ocispec.Platform
	notes      annotations
	provenance *provenance.Options // nil: none
	warnings   []dockerfile.Warning
	closers    []func()
}

// Build runs a request. The result is not nil when the build began, even if it
// failed: it has the steps.
func (b *Builder) Build(ctx context.Context, req Request) (*Result, error) {
	o := &one{b: b, req: &req, contexts: map[string]*source.Context{}, platforms: req.Targets()}
	defer o.close()
	if err := o.check(); err != nil {
		return nil, err
	}
	o.rec = b.history.begin(o)
	res := &Result{ID: o.rec.ID, Started: o.rec.Started}
	err := o.run(ctx, res)
	res.Warnings, res.Finished = o.warnings, time.Now()
	b.history.end(o.rec, res, err)
	if err != nil {
		res.Release()
		return res, err
	}
	b.budget(ctx)
	return res, nil
}

// budget removes, in the background, what clients sent long ago, and what is used
// least when the cache has become too large.
func (b *Builder) budget(ctx context.Context) {
	if !b.pruning.TryLock() {
		return
	}
	b.work.Go(func() {
		defer b.pruning.Unlock()
		if err := b.solver.Sources().Tidy(); err != nil {
			b.log.Warn("build contexts cannot be removed", "error", err)
		}
		if b.o.Keep <= 0 {
			return
		}
		if _, err := b.Prune(context.WithoutCancel(ctx), solve.PruneOptions{MaxUsed: b.o.Keep}); err != nil {
			b.log.Warn("build cache cannot be pruned", "error", err)
		}
	})
}

func (o *one) close() {
	for _, fn := range o.closers {
		fn()
	}
	for _, c := range o.contexts {
		if err := c.Close(); err != nil {
			o.b.log.Warn("what was learned about a build context is lost", "error", err)
		}
	}
}

func (o *one) run(ctx context.Context, res *Result) error {
	if err := o.open(ctx); err != nil {
		return err
	}
	graphs, err := o.translate(ctx)
	if err != nil || o.req.Check {
		return err
	}
	solved, err := o.b.solver.Solve(ctx, solve.Job{
		ID: o.rec.ID, Graphs: graphs, Contexts: o.contexts, Secrets: o.req.Secrets, Project: o.project(), KeepFailed: o.req.KeepFailed,
		Imports: o.req.CacheFrom, Fetch: o.req.Fetch, Restore: o.req.Restore,
		Progress: func(e solve.Event) { o.emit(Event{Event: e}) },
	})
	if solved != nil {
		all := graph.Graph{Nodes: graph.Union(graphs)}
		res.Steps, res.Mounts, res.imports = solved.Steps, all.CacheMounts(), o.req.CacheFrom
		res.release = func() { o.b.o.Images.Release(solved.Hold) }
	}
	if err != nil {
		return o.explain(err)
	}
	cache := o.inline(solved)
	for i, g := range graphs {
		out := Output{Platform: o.platforms[i], Layers: solved.Results[i].Layers}
		if out.Config, err = assemble(g, out.Layers, solved, cache); err != nil {
			return err
		}
		res.Outputs = append(res.Outputs, out)
	}
	if !o.req.FilesOnly {
		err = o.record(ctx, graphs, solved, res)
	}
	res.Output = res.Outputs[0]
	if err == nil && !o.req.FilesOnly {
		res.Release()
	}
	return err
}

// there returns the image of a config if it is here under all its names already:
// nothing has to be brought to the disk then.
func (o *one) there(ctx context.Context, config []byte) *image.Image {
	id := digest.FromBytes(config)
	img, err := o.b.o.Images.Get(ctx, id.String())
	if err != nil || img.ID != id {
		return nil
	}
	for _, tag := range o.tags {
		members, above, err := o.b.o.Images.Members(ctx, tag.String())
		if err != nil || above != nil || members[0].Image.ID != id {
			return nil // also when the name means the image with annotations, or among others
		}
	}
	return img
}

// inline returns the document about the steps, if the image is to have it.
func (o *one) inline(solved *solve.Solved) []byte {
	if !o.req.InlineCache && o.req.Args["BUILDKIT_INLINE_CACHE"] != "1" {
		return nil
	}
	doc, _, err := o.b.solver.Share(solved.Keys(), o.req.CacheFrom)
	if err != nil {
		return nil
	}
	return doc
}

func (o *one) emit(e Event) {
	o.b.history.event(o.rec, e)
	if o.req.Progress != nil {
		o.req.Progress(e)
	}
}

// project tells this build's files from others', for explaining misses.
func (o *one) project() string {
	where := o.req.ContextDir
	if where == "" {
		where = o.req.Remote
	}
	if where == "" && o.req.ContextName != "" {
		where = "sent:" + o.req.ContextName
	}
	return where + "\x00" + o.file
}

// translate makes a graph for each platform. They share their steps.
func (o *one) translate(ctx context.Context) ([]*graph.Graph, error) {
	r := o.req
	contexts, err := o.named(ctx)
	if err != nil {
		return nil, err
	}
	args := maps.Clone(r.Args)
	if args == nil {
		args = map[string]string{}
	}
	if r.Reproducible && args["SOURCE_DATE_EPOCH"] == "" {
		args["SOURCE_DATE_EPOCH"] = "0"
	}
	hostname := r.Hostname
	if v := args["BUILDKIT_SANDBOX_HOSTNAME"]; v != "" && hostname == "" {
		hostname = v
	}
	network := r.Network
	if network == "default" {
		network = ""
	}
	return o.each(ctx, dockerfile.Options{
		File: o.file, Target: r.Target, Args: args, Labels: r.Labels, PlatformGiven: len(r.Platforms) > 0, MultiPlatform: len(o.platforms) > 1,
		Build: image.HostPlatform(), NoCache: r.NoCache, NoCacheFilter: r.NoCacheOnly, Network: network, Hosts: r.Hosts,
		Hostname: hostname, Limits: r.Limits, Images: finder{o}, Contexts: contexts, AllStages: r.Check,
		HostNetwork: slices.Contains(r.Allow, "network.host"), Insecure: slices.Contains(r.Allow, "security.insecure"),
		Ignored: o.contexts[MainContext].Ignored, CheckRules: args["BUILDKIT_DOCKERFILE_CHECK"], CacheNamespace: args["BUILDKIT_CACHE_MOUNT_NS"],
	})
}

// finder finds base images.
type finder struct{ o *one }

// Resolve implements dockerfile.Images.
func (f finder) Resolve(ctx context.Context, ref string, platform ocispec.Platform) (dockerfile.Base, error) {
	b := f.o.b
	find := b.o.Find
	if f.o.req.Find != nil {
		find = f.o.req.Find
	}
	var img *image.Image
	var err error
	if find != nil {
		_, named := digest.Parse(ref) // an id has no newer version
		img, err = find.Find(ctx, ref, platform, f.o.req.Pull && named != nil)
	} else {
		img, err = b.o.Images.GetPlatform(ctx, ref, &platform)
	}
	if err != nil {
		return dockerfile.Base{}, err
	}
	return dockerfile.Base{ID: img.ID, Config: img.Config}, nil
}

// Failure is a build's failed step with the place in the Dockerfile that it
// comes from.
type Failure struct {
	*solve.StepError
	Excerpt string
}

// Unwrap returns the step's error.
func (f *Failure) Unwrap() error { return f.StepError }

// explain adds to an error of a step where it is in the Dockerfile.
func (o *one) explain(err error) error {
	var step *solve.StepError
	if !errors.As(err, &step) {
		return err
	}
	src := dockerfile.NewSource(o.file, o.text)
	return &fault.Error{
		Kind: fault.Invalid, Op: "build", Subject: step.Name,
		Err: &Failure{step, src.Excerpt(step.Lines, 0, 0, 0)},
	}
}

// newID returns a name for a build.
func newID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// uses tells whether images have a layer, for the cache's accounts; those that are gone
// have none.
func (b *Builder) uses(ctx context.Context, gone func(image digest.Digest) bool) func(digest.Digest) bool {
	list, err := b.o.Images.List(ctx)
	if err != nil {
		return nil
	}
	have := map[digest.Digest]bool{}
	for _, i := range list {
		if gone != nil && gone(i.ID) {
			continue
		}
		for _, d := range i.DiffIDs {
			have[d] = true
		}
	}
	return func(d digest.Digest) bool { return have[d] }
}

// Usage lists what the cache keeps.
func (b *Builder) Usage(ctx context.Context) ([]solve.Item, error) {
	return b.solver.Usage(ctx, b.uses(ctx, nil))
}

// Prune removes from the cache what o allows.
func (b *Builder) Prune(ctx context.Context, o solve.PruneOptions) (solve.Pruned, error) {
	o.Shared = b.uses(ctx, nil)
	return b.solver.Prune(ctx, o)
}

// KeepsLayer reports whether the cache has a layer.
func (b *Builder) KeepsLayer(d digest.Digest) bool { return b.solver.KeepsLayer(d) }

// PrunePlan tells what Prune would do now or, unless gone is nil, when those images are
// gone.
func (b *Builder) PrunePlan(ctx context.Context, o solve.PruneOptions, gone func(image digest.Digest) bool) ([]solve.Choice, error) {
	o.Shared = b.uses(ctx, gone)
	return b.solver.Plan(ctx, o)
}
