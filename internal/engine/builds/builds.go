// Package builds holds the use cases of builds: it gives the builder what only an
// engine has, base images from registries, programs that are run as containers are,
// caches that were made elsewhere, and tells clients what the builder keeps. It exists
// because a build concerns no container and no volume of the engine's: it works on the
// stores of images and of the builder, on the networks and on the monitor.
package builds

import (
	"context"
	"io"

	"berth/internal/build"
	"berth/internal/build/source"
	"berth/internal/engine/images"
	"berth/internal/engine/intake"
	"berth/internal/image"
	"berth/internal/wire"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
)

// Service answers what is asked about builds.
type Service struct {
	builder *build.Builder
	steps   *Steps
	stock   *images.Stock
	images  *images.Service
	remote  images.Remote
	intake  *intake.Ledger
}

// New returns the use cases of a builder, whose steps are run by steps, for a stock of
// images. What they bring in is noted in the ledger.
func New(builder *build.Builder, steps *Steps, stock *images.Stock, cases *images.Service, remote images.Remote, ledger *intake.Ledger) *Service {
	return &Service{builder, steps, stock, cases, remote, ledger}
}

// Options are what builds need of the engine besides the request.
type Options struct {
	// Auth returns the credentials for the registry of a name, empty ones for
	// nobody's; nil: nobody.
	Auth      func(ref string) registry.AuthConfig
	CacheFrom []wire.BuildCacheFrom
	CacheTo   []wire.BuildCacheTo
	// Blob asks the client for a blob of an entry of CacheFrom.
	Blob func(ctx context.Context, entry int, d digest.Digest) (io.ReadCloser, error)
	// CacheData takes the archive for an entry of CacheTo.
	CacheData func(entry int) io.Writer
}

// auth returns the credentials for a name's registry.
func (o *Options) auth(ref string) registry.AuthConfig {
	if o.Auth == nil {
		return registry.AuthConfig{}
	}
	return o.Auth(ref)
}

// Build builds an image, or files. The result must be released.
func (s *Service) Build(ctx context.Context, req build.Request, o Options) (res *build.Result, err error) {
	ctx, room := s.intake.Begin(ctx, "build")
	defer func() { err = room.End(ctx, err) }()
	b := &bases{s: s, o: o, tell: req.Progress}
	if b.tell != nil {
		req.Progress = b.event
	}
	req.Find = b
	caches := b.caches(ctx, &req)
	defer caches.close()
	if res, err = s.builder.Build(ctx, req); err != nil || req.Check {
		return res, err
	}
	for _, t := range req.Tags {
		if named, err := image.ParseName(t); err == nil && res.Image != nil {
			s.stock.Tell(events.ActionTag, res.Image.ID.String(), reference.FamiliarString(named), res.Image)
		}
	}
	return res, caches.export(ctx, res)
}

// BuildReceive begins to take over a directory of a client elsewhere.
func (s *Service) BuildReceive(ctx context.Context, sent source.Sent) (in *source.Incoming, err error) {
	ctx, room := s.intake.Begin(ctx, "build")
	defer func() { err = room.End(ctx, err) }()
	return s.builder.Receive(ctx, sent)
}

// BuildFiles writes the files of a build's result as one tar archive; with split
// those of each platform are in a directory of their own.
func (s *Service) BuildFiles(ctx context.Context, res *build.Result, split bool, w io.Writer) error {
	return s.builder.ExportTar(ctx, res.Outputs, split, w)
}

// BuildHistory is what was built.
func (s *Service) BuildHistory() *build.History { return s.builder.History() }
