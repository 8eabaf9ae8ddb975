package builds

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/internal/build"
	"berth/internal/build/solve"
	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/transfer"
	"berth/internal/wire"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// caches are the build caches of elsewhere that one build takes from, and those
// that it gives to.
type caches struct {
	b    *bases
	from []*cache
	hold *content.Hold // of cache mounts on their way

	mu     sync.Mutex // guards warned
	warned map[*cache]bool
}

// cache is one that was made elsewhere. Only its records are here; its blobs are
// fetched when a step needs them.
type cache struct {
	name   string
	at     string // the repository, "" for a directory
	steps  *solve.Import
	layers map[digest.Digest]ocispec.Descriptor // by the digests of the layers
	mounts map[string]ocispec.Descriptor        // by their ids; nil: they are not wanted
	shown  *pullTeller                          // nil: it is not shown how layers come
	// layer brings a layer here, and blob reads any blob, whose digest is
	// verified when it is read to the end.
	layer func(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) error
	blob  func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// caches reads the records of the caches that a build names, all at once, and has
// the build use them. One that cannot be had makes a build slower and not wrong.
func (b *bases) caches(ctx context.Context, req *build.Request) *caches {
	c := &caches{b: b, hold: b.s.stock.Content.Hold(), warned: map[*cache]bool{}}
	if req.Check || len(b.o.CacheFrom) == 0 {
		return c
	}
	platforms := req.Targets()
	all := make([]*cache, len(b.o.CacheFrom)*len(platforms))
	var wait sync.WaitGroup
	for i, from := range b.o.CacheFrom {
		for j, p := range platforms {
			if j > 0 && from.Ref == "" {
				continue // what is in a directory is for all
			}
			wait.Go(func() { // an image has the layers of its own platform
				one, err := b.cache(ctx, i, from, p)
				switch {
				case err == nil:
					all[i*len(platforms)+j] = one
				case ctx.Err() == nil && j == 0:
					b.warn("cache-from " + from.Ref + from.Dir + ": " + err.Error())
				}
			})
		}
	}
	wait.Wait()
	for _, one := range all {
		if one != nil {
			c.from = append(c.from, one)
			req.CacheFrom = append(req.CacheFrom, one.steps)
		}
	}
	req.Fetch, req.Restore = c.fetch, c.restore
	return c
}

func (c *caches) close() { _, _ = c.b.s.stock.Content.Collect(c.hold.Release()...) }

// cache opens one cache.
func (b *bases) cache(ctx context.Context, entry int, from wire.BuildCacheFrom, platform ocispec.Platform) (*cache, error) {
	if from.Ref == "" {
		return b.directory(entry, from)
	}
	if from.Here {
		if one, err := b.imageHere(ctx, from.Ref, &platform); err == nil || from.Only {
			return one, err
		}
	}
	one, err := b.remote(ctx, from, &platform)
	if err != nil && (fault.Is(err, fault.NotFound) || fault.Is(err, fault.Unavailable)) {
		if here, e := b.imageHere(ctx, from.Ref, &platform); e == nil {
			return here, nil
		}
	}
	return one, err
}

// imageHere takes the cache in an image that is here, with its layers.
func (b *bases) imageHere(ctx context.Context, ref string, platform *ocispec.Platform) (*cache, error) {
	img, err := b.s.stock.Images.GetPlatform(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	config, err := b.s.stock.Images.Document(ctx, img.ID)
	if err != nil {
		return nil, err
	}
	one := &cache{name: ref}
	return one, one.inline(config, nil)
}

// remote looks at what a name means at its registry.
func (b *bases) remote(ctx context.Context, from wire.BuildCacheFrom, platform *ocispec.Platform) (*cache, error) {
	opened, err := b.s.remote.Transfers().OpenManifest(ctx, from.Ref, platform, b.o.auth(from.Ref))
	if err != nil {
		return nil, err
	}
	one := &cache{name: from.Ref, at: opened.Name.Name(), blob: opened.Blob}
	one.shown = &pullTeller{b: b, name: "layers of " + from.Ref, layers: map[string]*jsonstream.Progress{}}
	one.layer = func(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) error {
		return opened.Layer(ctx, d, diffID, one.shown.message)
	}
	if err := usableCache(opened.Type); err != nil {
		return nil, err
	}
	doc, err := opened.Document(ctx, solve.MaxShared)
	if err != nil {
		return nil, err
	}
	if opened.Type == "" {
		return one, one.inline(doc, opened.Manifest)
	}
	return one, one.read(opened.Manifest, doc, from.Mounts)
}

// usableCache tells what can be read from what cannot.
func usableCache(artifact string) error {
	switch {
	case artifact == "" || artifact == wire.BuildCacheType:
		return nil
	case strings.Contains(artifact, "buildkit"):
		return fault.New(fault.Unsupported, "", "", "it is a cache that BuildKit made, which tells steps apart in its own way").
			WithHint("make one with berth build --cache-to, under another name")
	}
	return fault.New(fault.Unsupported, "", "", "it is no build cache but an artifact of type %.100q", artifact)
}

// directory takes the cache that the client has read.
func (b *bases) directory(entry int, from wire.BuildCacheFrom) (*cache, error) {
	doc, err := image.ParseAny(from.Manifest, "")
	if err != nil {
		return nil, err
	}
	if doc.Index != nil {
		return nil, fault.New(fault.Unsupported, "", "", "it is an index: BuildKit's caches and images are not read from directories")
	}
	if kind := doc.ArtifactType(); kind == "" {
		return nil, fault.New(fault.Unsupported, "", "", "it is an image and no build cache")
	} else if err := usableCache(kind); err != nil {
		return nil, err
	}
	if digest.FromBytes(from.Document) != doc.Manifest.Config.Digest {
		return nil, fault.New(fault.Invalid, "", "", "%w: its document has not the digest that its manifest names", image.ErrDigest)
	}
	// Two directories may have the same name, at different times or for
	// different users: what counts as one cache has one content.
	one := &cache{name: from.Dir + " (" + digest.FromBytes(from.Manifest).Encoded()[:12] + ")"}
	one.blob = func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
		r, err := b.o.Blob(ctx, entry, d.Digest)
		if err != nil {
			return nil, err
		}
		return &verified{r, io.LimitReader(r, d.Size), d, d.Digest.Verifier(), 0}, nil
	}
	one.layer = func(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest) error {
		r, err := one.blob(ctx, d)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = b.s.stock.Layers.Apply(ctx, diffID, r)
		return err
	}
	return one, one.read(doc.Manifest, from.Document, from.Mounts)
}

// read takes a cache of our own form.
func (c *cache) read(m *ocispec.Manifest, doc []byte, mounts bool) (err error) {
	c.layers, c.mounts = map[digest.Digest]ocispec.Descriptor{}, map[string]ocispec.Descriptor{}
	for _, d := range m.Layers {
		if id := d.Annotations[wire.BuildMountID]; d.MediaType == wire.BuildMountType && mounts && id != "" {
			c.mounts[id] = d
		}
		if diffID := digest.Digest(d.Annotations[transfer.Uncompressed]); content.CheckDigest(diffID) == nil {
			c.layers[diffID] = d
		}
	}
	c.steps, err = solve.ReadImport(doc, c.name)
	return err
}

// inline takes the cache in an image's config; m tells where its layers are, nil
// if they are here.
func (c *cache) inline(config []byte, m *ocispec.Manifest) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config, &fields); err != nil {
		return fault.New(fault.Invalid, "read configuration of", c.name, "%w", err)
	}
	if len(fields[build.InlineKey]) == 0 {
		return fault.New(fault.NotFound, "", "", "the image has no build cache in it").WithHint("build it with --cache-to type=inline")
	}
	var err error
	if c.steps, err = solve.ReadImport(fields[build.InlineKey], c.name); err != nil || m == nil {
		return err
	}
	parsed, err := image.ParseConfig(config)
	if err != nil {
		return err
	}
	c.layers = map[digest.Digest]ocispec.Descriptor{}
	for i, d := range m.Layers {
		if i < len(parsed.RootFS.DiffIDs) {
			c.layers[parsed.RootFS.DiffIDs[i]] = d
		}
	}
	return nil
}

// fetch brings layers from the caches that have them: solve.Job.Fetch. When one
// cannot be had, none is fetched.
func (c *caches) fetch(ctx context.Context, layers []digest.Digest) error {
	type job struct {
		from   *cache
		diffID digest.Digest
	}
	var jobs []job
	for _, d := range layers {
		if c.b.s.stock.Layers.Has(d) || slices.ContainsFunc(jobs, func(j job) bool { return j.diffID == d }) {
			continue
		}
		i := slices.IndexFunc(c.from, func(one *cache) bool { _, ok := one.layers[d]; return ok && one.layer != nil })
		if i < 0 {
			return fault.New(fault.NotFound, "fetch layer", d.String(), "no cache of this build has it")
		}
		jobs = append(jobs, job{c.from[i], d})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, j := range jobs {
		g.Go(func() error {
			d := j.from.layers[j.diffID]
			err := j.from.layer(ctx, d, j.diffID)
			if err == nil && j.from.at != "" {
				c.b.s.builder.Cache().NotePacked(map[digest.Digest]ocispec.Descriptor{j.diffID: d}, j.from.at)
			}
			if err != nil && ctx.Err() == nil {
				c.failed(j.from, err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, one := range c.from {
		if one.shown != nil && slices.ContainsFunc(jobs, func(j job) bool { return j.from == one }) {
			one.shown.send("done")
		}
	}
	return nil
}

// failed warns, once for each cache, that steps run although they were found.
func (c *caches) failed(one *cache, err error) {
	c.mu.Lock()
	first := !c.warned[one]
	c.warned[one] = true
	c.mu.Unlock()
	if first {
		c.b.warn("cache-from " + one.name + ": steps are run again, because their layers cannot be had: " + err.Error())
	}
}

// restore returns a cache mount's content if a cache has it from later than used:
// solve.Job.Restore. It is complete and verified before anything is replaced.
func (c *caches) restore(ctx context.Context, id string, used time.Time) (io.ReadCloser, error) {
	for _, one := range c.from {
		d, ok := one.mounts[id]
		at, err := time.Parse(time.RFC3339Nano, d.Annotations[wire.BuildMountUsed])
		if !ok || err != nil || !at.After(used) || one.blob == nil {
			continue
		}
		r, err := one.blob(ctx, d)
		if err != nil {
			return nil, err
		}
		c.hold.Add(d.Digest)
		_, err = c.b.s.stock.Content.Ingest(ctx, r, d.Digest, d.Size)
		r.Close()
		if err != nil {
			return nil, err
		}
		return c.b.s.stock.Content.Open(d.Digest)
	}
	return nil, nil
}

// verified reads what must have the digest and size of a descriptor.
type verified struct {
	io.Closer
	r    io.Reader
	desc ocispec.Descriptor
	sum  digest.Verifier
	n    int64
}

// Read fails at the end if it was something else.
func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	_, _ = v.sum.Write(p[:n])
	v.n += int64(n)
	if err == io.EOF && (v.n != v.desc.Size || !v.sum.Verified()) {
		err = fault.New(fault.Invalid, "read blob", v.desc.Digest.String(), "%w: its bytes are others", image.ErrDigest)
	}
	return n, err
}
