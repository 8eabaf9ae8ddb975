package build

import (
	"context"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/internal/build/dockerfile"
	"berth/internal/build/graph"
	"berth/internal/build/solve"
	"berth/internal/image"
)

// Targets returns the platforms to build for, each once: this machine's when none
// is given, and for an empty one.
func (r *Request) Targets() []ocispec.Platform {
	var out []ocispec.Platform
	var names []string
	for _, p := range r.Platforms {
		if p.OS == "" {
			p = image.HostPlatform()
		}
		if same, err := image.ParsePlatform(image.FormatPlatform(p)); err == nil {
			p.Architecture, p.Variant = same.Architecture, same.Variant // as everybody writes them
		}
		if name := image.FormatPlatform(p); !slices.Contains(names, name) {
			out, names = append(out, p), append(names, name)
		}
	}
	if len(out) == 0 {
		return []ocispec.Platform{image.HostPlatform()}
	}
	return out
}

func platformNames(list []ocispec.Platform) []string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = image.FormatPlatform(p)
	}
	return names
}

// each translates the Dockerfile for every platform at once, with base images
// fetched in parallel. What the checks find for all of them is told once.
func (o *one) each(ctx context.Context, options dockerfile.Options) ([]*graph.Graph, error) {
	graphs := make([]*graph.Graph, len(o.platforms))
	found := make([][]dockerfile.Warning, len(o.platforms))
	g, ctx := errgroup.WithContext(ctx)
	for i, p := range o.platforms {
		own := options
		own.Platform = p
		own.Warn = func(w dockerfile.Warning) { found[i] = append(found[i], w) }
		g.Go(func() (err error) {
			graphs[i], err = dockerfile.Translate(ctx, o.text, own)
			return err
		})
	}
	err := g.Wait()
	for _, w := range slices.Concat(found...) {
		if !slices.Contains(o.warnings, w) {
			o.warnings = append(o.warnings, w)
			o.emit(Event{Event: solve.Event{Kind: solve.Warned, Time: time.Now(), Message: w.Message, Lines: w.Lines}, Warning: &w})
		}
	}
	if err != nil {
		return nil, err
	}
	graph.Share(graphs)
	return graphs, nil
}

// Name is the digest by which the result is known here: of the image, or of the
// index that holds the images of several platforms.
func (r *Result) Name() digest.Digest {
	if r.Top != nil && len(r.Outputs) > 1 {
		return r.Top.Digest
	}
	return r.Image.ID
}

// Platforms lists what the result is for, as people write it.
func (r *Result) Platforms() []string {
	var list []ocispec.Platform
	for _, out := range r.Outputs {
		list = append(list, out.Platform)
	}
	return platformNames(list)
}
