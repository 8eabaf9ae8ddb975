package transfer

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
	"berth/internal/image"
)

// Options steers one Pull.
type Options struct {
	Platform     *ocispec.Platform // nil: this machine's
	AllPlatforms bool              // every image of an index
	// Join lets what is here for other platforms keep the name: an image of an
	// index is recorded as that, so that the name stands for all of them.
	Join     bool
	AllTags  bool // every tag of the repository; the reference has none then
	Auth     Auth
	Progress image.Progress
	// Pulled, when set, is told of each image when it is there.
	Pulled func(named reference.Named, img *image.Image)
}

// Pull fetches the image that ref names (name[:tag][@digest]) and returns it
// with the digest of its manifest or index at the registry; with AllTags, the
// last of them. Layers that are here already are not fetched; the others come
// in parallel and are unpacked while they come. When something fails, nothing
// of the image is visible; the layers that were whole are kept for an hour, so
// that the next try is shorter.
func (c *Client) Pull(ctx context.Context, ref string, o Options) (*image.Image, digest.Digest, error) {
	named, err := image.ParseName(ref)
	if err != nil {
		return nil, "", err
	}
	if err := o.check(ref); err != nil {
		return nil, "", err
	}
	progress, end := serial(o.Progress)
	defer end()
	s, err := c.open(ctx, reference.TrimNamed(named), actionPull, o.Auth)
	if err != nil {
		return nil, "", fault.Wrap("pull", reference.FamiliarString(named), err)
	}
	s.notify = func(status string) { progress.Status("", status) }
	if o.AllTags {
		return c.pullTags(ctx, s, o, progress)
	}
	p := &pull{c: c, session: s, ref: named, o: o, progress: progress}
	if err := p.run(ctx); err != nil {
		return nil, "", fault.Wrap("pull", reference.FamiliarString(named), err)
	}
	s.showQuota()
	p.finish(reference.FamiliarString(named), p.newer)
	return p.image, p.digest, nil
}

func (o *Options) check(ref string) error {
	if o.AllPlatforms && o.Platform != nil {
		return fault.New(fault.Invalid, "pull", ref, "all platforms and one platform exclude one another")
	}
	if !o.AllTags {
		return nil
	}
	if named, err := reference.ParseNormalizedNamed(ref); err == nil && !reference.IsNameOnly(named) {
		return fault.New(fault.Invalid, "pull", ref, "tag can't be used with --all-tags/-a")
	}
	return nil
}

// pullTags pulls every tag of a repository, one after another.
func (c *Client) pullTags(ctx context.Context, s *session, o Options, progress image.Progress) (*image.Image, digest.Digest, error) {
	name := reference.FamiliarName(s.name)
	tags, err := s.tags(ctx)
	if err == nil && len(tags) == 0 {
		err = fault.New(fault.NotFound, "", "", "the repository has no tags")
	}
	if err != nil {
		return nil, "", fault.Wrap("pull", name, err)
	}
	var last *pull
	newer := false
	for _, tag := range tags {
		tagged, err := reference.WithTag(s.name, tag)
		if err != nil {
			return nil, "", fault.New(fault.Invalid, "pull", name, "the registry lists %.100q as a tag", tag)
		}
		p := &pull{c: c, session: s, ref: tagged, o: o, progress: progress}
		err = p.run(ctx)
		if isArtifact(tag, err) {
			progress.Status(tag, "Passed over: it is no image to run")
			continue
		}
		if err != nil {
			return nil, "", fault.Wrap("pull", reference.FamiliarString(tagged), err)
		}
		last, newer = p, newer || p.newer
	}
	if last == nil {
		return nil, "", fault.New(fault.Unsupported, "pull", name, "none of the repository's %d tags is an image to run", len(tags))
	}
	s.showQuota()
	last.finish(name, newer)
	return last.image, last.digest, nil
}

// referrerTag is what clients call signatures and lists of referrers.
var referrerTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.[a-z]+)?$`)

// isArtifact reports whether a tag could not be pulled because it stands for
// something other than an image.
func isArtifact(tag string, err error) bool {
	return err != nil && (errors.Is(err, image.ErrMediaType) || referrerTag.MatchString(tag) && errors.Is(err, image.ErrPlatform))
}

// serial makes a Progress that is called from one goroutine at a time, and not
// after end.
func serial(f image.Progress) (p image.Progress, end func()) {
	if f == nil {
		return nil, func() {}
	}
	var mu sync.Mutex
	return func(m jsonstream.Message) {
			mu.Lock()
			defer mu.Unlock()
			if f != nil {
				f(m)
			}
		}, func() {
			mu.Lock()
			defer mu.Unlock()
			f = nil
		}
}

// pull is the pull of one name.
type pull struct {
	c        *Client
	session  *session
	ref      reference.Named // with tag or digest
	o        Options
	progress image.Progress

	image  *image.Image
	digest digest.Digest // of the manifest or index
	newer  bool          // the name meant another image before, or none
}

func (p *pull) run(ctx context.Context) error {
	version := p.version()
	before := p.current(ctx)
	top, err := p.session.top(ctx, version, before.digests)
	if err != nil {
		return err
	}
	// Not sooner: as long as nothing was said the answer can have a status, and
	// clients tell by it what is not there and what they may not have.
	p.progress.Status(version, "Pulling from "+reference.Path(p.ref))
	if p.c.c.Policy != nil {
		if err := p.c.c.Policy.Check(ctx, p.ref, top.digest, source{p.session}); err != nil {
			return err
		}
	}
	if p.image, err = p.bring(ctx, top, before.index == top.digest); err != nil {
		return err
	}
	p.digest = top.digest
	p.newer = before.id != p.image.ID
	p.progress.Status("", "Digest: "+top.digest.String())
	if p.o.Pulled != nil {
		p.o.Pulled(p.ref, p.image)
	}
	return nil
}

// finish says how it ended, as docker's clients show and scripts look for it.
func (p *pull) finish(name string, newer bool) {
	status := "Status: Image is up to date for "
	if newer {
		status = "Status: Downloaded newer image for "
	}
	p.progress.Status("", status+name)
}

// version is the tag or, where given, the digest to ask for.
func (p *pull) version() string {
	if d, ok := p.ref.(reference.Digested); ok {
		return d.Digest().String()
	}
	return p.ref.(reference.Tagged).Tag()
}

// named is what a name means before a pull.
type named struct {
	id      digest.Digest   // "": nothing
	index   digest.Digest   // "" unless it is one of several platforms
	digests []digest.Digest // what it is called at this registry
}

func (p *pull) current(ctx context.Context) named {
	img, err := p.c.c.Images.Get(ctx, p.ref.String())
	if err != nil {
		return named{}
	}
	now := named{id: img.ID, index: img.Index}
	for _, s := range img.RepoDigests {
		other, err := reference.ParseNormalizedNamed(s)
		if err != nil || other.Name() != p.ref.Name() {
			continue
		}
		if canonical, ok := other.(reference.Canonical); ok {
			now.digests = append(now.digests, canonical.Digest())
		}
	}
	return now
}

// part is one image that is pulled: for one platform.
type part struct {
	chain    []*document // from the top to its manifest
	manifest *ocispec.Manifest
	config   []byte
	diffIDs  []digest.Digest
	index    *image.IndexMembership // nil: it is recorded alone
}

// choose finds out what there is to fetch. An index that is recorded as one
// already stays one.
func (p *pull) choose(ctx context.Context, top *document, k *keeper, indexed bool) ([]part, error) {
	if p.o.AllPlatforms && top.Index != nil {
		return p.every(ctx, top, k)
	}
	chain, err := p.session.resolve(ctx, top, p.o.Platform)
	if err != nil {
		return nil, err
	}
	one, err := p.read(ctx, chain)
	if err != nil {
		return nil, err
	}
	if (indexed || p.o.Join) && len(chain) > 1 {
		one.index = &image.IndexMembership{Raw: top.raw, Manifest: chain[len(chain)-1].digest}
		for _, doc := range chain[1 : len(chain)-1] {
			one.index.Documents = append(one.index.Documents, doc.raw)
		}
	}
	return []part{one}, nil
}

// read gets the config of one image and holds it against the manifest.
func (p *pull) read(ctx context.Context, chain []*document) (part, error) {
	m := chain[len(chain)-1].Manifest
	config, err := p.configOf(ctx, m.Config)
	if err != nil {
		return part{}, err
	}
	parsed, err := image.ParseConfig(config)
	if err != nil {
		return part{}, err
	}
	// An index has said what the image is for; else only the config does.
	if want := p.o.Platform; want != nil && len(chain) == 1 && !image.Matches(*want, parsed.Platform) {
		return part{}, fault.New(fault.NotFound, "select platform", image.FormatPlatform(*want), "%w: the image is for %s",
			image.ErrPlatform, image.FormatPlatform(parsed.Platform))
	}
	if len(m.Layers) != len(parsed.RootFS.DiffIDs) {
		return part{}, fault.New(fault.Invalid, "read manifest", "", "%w: %d layers for %d diff_ids in the config",
			image.ErrDocument, len(m.Layers), len(parsed.RootFS.DiffIDs))
	}
	return part{chain: chain, manifest: m, config: config, diffIDs: parsed.RootFS.DiffIDs}, nil
}

// configOf returns an image's config, from here if it is here.
func (p *pull) configOf(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if data, err := p.c.c.Content.Read(d.Digest, image.MaxConfig); err == nil && int64(len(data)) == d.Size {
		return data, nil
	}
	return p.session.document(ctx, d, image.MaxConfig)
}

// bring fetches what is missing and records the images. It returns the one that
// the name means here.
func (p *pull) bring(ctx context.Context, top *document, indexed bool) (img *image.Image, err error) {
	k := p.c.keep(top.digest)
	defer func() { k.release(ctx, err) }()
	parts, err := p.choose(ctx, top, k, indexed)
	if err != nil {
		return nil, err
	}
	k.hold(parts)
	if err := p.layers(ctx, parts, k); err != nil {
		return nil, err
	}
	var regs []image.Registration
	for i := range parts {
		reg, err := p.registration(&parts[i])
		if err != nil {
			return nil, err
		}
		regs = append(regs, reg)
	}
	images, err := p.c.c.Images.Register(ctx, k.layers, regs, nil)
	if err != nil {
		return nil, err
	}
	if len(images) > 1 {
		return p.c.c.Images.Get(ctx, p.ref.String())
	}
	return images[0], nil
}

// registration says what is to be recorded about an image.
func (p *pull) registration(one *part) (image.Registration, error) {
	reg := image.Registration{Config: one.config, Packed: one.manifest.Layers, Index: one.index}
	for _, doc := range one.chain {
		if one.index == nil || doc.Manifest != nil {
			reg.Manifests = append(reg.Manifests, doc.raw)
		}
	}
	canonical, err := reference.WithDigest(reference.TrimNamed(p.ref), one.chain[0].digest)
	if err != nil {
		return reg, fault.New(fault.Internal, "name image", p.ref.String(), "%w", err)
	}
	reg.Digests = []reference.Canonical{canonical}
	if _, digested := p.ref.(reference.Digested); !digested {
		reg.Tags = []reference.NamedTagged{p.ref.(reference.NamedTagged)}
	}
	return reg, nil
}

// layers brings the layers of all parts here, each once.
func (p *pull) layers(ctx context.Context, parts []part, k *keeper) error {
	type job struct {
		packed ocispec.Descriptor
		diffID digest.Digest
	}
	var missing []job
	var seen []digest.Digest
	for _, one := range parts {
		for i, d := range one.manifest.Layers {
			switch {
			case p.c.c.Layers.Has(one.diffIDs[i]), slices.Contains(seen, one.diffIDs[i]):
				p.progress.Status(shortID(d), "Already exists")
			default:
				p.progress.Transfer(shortID(d), "Pulling fs layer", 0, 0)
				missing = append(missing, job{d, one.diffIDs[i]})
			}
			seen = append(seen, one.diffIDs[i])
		}
	}
	var fetches []func(context.Context) error
	for _, j := range missing {
		id := shortID(j.packed)
		fetches = append(fetches, func(ctx context.Context) error {
			err := p.c.layer(ctx, p.session, j.packed, j.diffID, func(r report) {
				p.progress.Transfer(id, r.status, r.current, r.total)
			})
			if err == nil {
				k.arrived(ctx, j.diffID, j.packed.Digest)
				p.progress.Transfer(id, "Pull complete", 0, 0)
			}
			return err
		})
	}
	return k.run(ctx, fetches)
}

func shortID(d ocispec.Descriptor) string { return d.Digest.Encoded()[:12] }
