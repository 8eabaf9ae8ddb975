package transfer

import (
	"context"
	"slices"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/internal/fault"
	"berth/internal/image"
)

// Options steers one Pull.
type Options struct {
	Platform *ocispec.Platform // nil: this machine's
	Progress image.Progress
}

// Pull fetches the image that ref names (name[:tag][@digest]) and returns it
// with the digest of its manifest or index at the registry. Layers that are
// here already are not fetched; the others come in parallel and are unpacked
// while they come. When something fails, nothing of the image is visible.
func (p *Puller) Pull(ctx context.Context, ref string, o Options) (*image.Image, digest.Digest, error) {
	named, err := image.ParseName(ref)
	if err != nil {
		return nil, "", err
	}
	pl := &pull{p: p, ref: named, platform: o.Platform, progress: serial(o.Progress)}
	img, d, err := pl.run(ctx)
	if err != nil {
		return nil, "", fault.Wrap("pull", reference.FamiliarString(named), err)
	}
	return img, d, nil
}

// serial makes a Progress that is called from one goroutine at a time.
func serial(f image.Progress) image.Progress {
	if f == nil {
		return nil
	}
	var mu sync.Mutex
	return func(m jsonstream.Message) {
		mu.Lock()
		defer mu.Unlock()
		f(m)
	}
}

// pull is one Pull under way.
type pull struct {
	p        *Puller
	ref      reference.Named
	platform *ocispec.Platform
	progress image.Progress
	session  *session
}

func (pl *pull) run(ctx context.Context) (*image.Image, digest.Digest, error) {
	var err error
	if pl.session, err = pl.p.open(ctx, reference.TrimNamed(pl.ref)); err != nil {
		return nil, "", err
	}
	pl.session.notify = func(status string) { pl.progress.Status("", status) }
	version := pl.version()
	pl.progress.Status(version, "Pulling from "+reference.Path(pl.ref))
	chain, err := pl.session.resolve(ctx, version, pl.platform)
	if err != nil {
		return nil, "", err
	}
	manifest := chain[len(chain)-1].Manifest
	config, err := pl.config(ctx, manifest.Config)
	if err != nil {
		return nil, "", err
	}
	parsed, err := image.ParseConfig(config)
	if err != nil {
		return nil, "", err
	}
	// An index has said what the image is for; else only the config does.
	if want := pl.platform; want != nil && len(chain) == 1 && !image.Matches(*want, parsed.Platform) {
		return nil, "", fault.New(fault.NotFound, "select platform", image.FormatPlatform(*want), "%w: the image is for %s",
			image.ErrPlatform, image.FormatPlatform(parsed.Platform))
	}
	if len(manifest.Layers) != len(parsed.RootFS.DiffIDs) {
		return nil, "", fault.New(fault.Invalid, "read manifest", "", "%w: %d layers for %d diff_ids in the config",
			image.ErrDocument, len(manifest.Layers), len(parsed.RootFS.DiffIDs))
	}

	before := pl.current(ctx)
	hold := pl.p.c.Layers.Hold()
	defer pl.p.c.Images.Release(hold)
	hold.Add(parsed.RootFS.DiffIDs...)
	if err := pl.layers(ctx, manifest.Layers, parsed.RootFS.DiffIDs); err != nil {
		return nil, "", err
	}

	reg, err := pl.registration(chain, config, manifest.Layers)
	if err != nil {
		return nil, "", err
	}
	images, err := pl.p.c.Images.Register(ctx, hold, []image.Registration{reg}, nil)
	if err != nil {
		return nil, "", err
	}
	top := chain[0].digest
	pl.progress.Status("", "Digest: "+top.String())
	status := "Status: Downloaded newer image for "
	if before == images[0].ID {
		status = "Status: Image is up to date for "
	}
	pl.progress.Status("", status+reference.FamiliarString(pl.ref))
	return images[0], top, nil
}

// version is the tag or, where given, the digest to ask for.
func (pl *pull) version() string {
	if d, ok := pl.ref.(reference.Digested); ok {
		return d.Digest().String()
	}
	return pl.ref.(reference.Tagged).Tag()
}

// current returns which image has the name now, "" for none.
func (pl *pull) current(ctx context.Context) digest.Digest {
	if img, err := pl.p.c.Images.Get(ctx, pl.ref.String()); err == nil {
		return img.ID
	}
	return ""
}

// config returns the image config, from here if it is here.
func (pl *pull) config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if data, err := pl.p.c.Content.Read(d.Digest, image.MaxConfig); err == nil && int64(len(data)) == d.Size {
		return data, nil
	}
	return pl.session.document(ctx, d, image.MaxConfig)
}

// layers brings all layers here.
func (pl *pull) layers(ctx context.Context, layers []ocispec.Descriptor, diffIDs []digest.Digest) error {
	var missing []int
	for i, d := range layers {
		switch {
		case pl.p.c.Layers.Has(diffIDs[i]), slices.Contains(diffIDs[:i], diffIDs[i]):
			pl.progress.Status(shortID(d), "Already exists")
		default:
			pl.progress.Transfer(shortID(d), "Pulling fs layer", 0, 0)
			missing = append(missing, i)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, i := range missing {
		id := shortID(layers[i])
		g.Go(func() error {
			err := pl.p.layer(ctx, pl.session, layers[i], diffIDs[i], func(r report) {
				pl.progress.Transfer(id, r.status, r.current, r.total)
			})
			if err == nil {
				pl.progress.Transfer(id, "Pull complete", 0, 0)
			}
			return err
		})
	}
	return g.Wait()
}

func shortID(d ocispec.Descriptor) string { return d.Digest.Encoded()[:12] }

// registration says what is to be recorded about the image.
func (pl *pull) registration(chain []*document, config []byte, layers []ocispec.Descriptor) (image.Registration, error) {
	reg := image.Registration{Config: config, Packed: layers}
	for _, doc := range chain {
		reg.Manifests = append(reg.Manifests, doc.raw)
	}
	canonical, err := reference.WithDigest(reference.TrimNamed(pl.ref), chain[0].digest)
	if err != nil {
		return reg, fault.New(fault.Internal, "name image", pl.ref.String(), "%w", err)
	}
	reg.Digests = []reference.Canonical{canonical}
	if _, digested := pl.ref.(reference.Digested); !digested {
		reg.Tags = []reference.NamedTagged{pl.ref.(reference.NamedTagged)}
	}
	return reg, nil
}
