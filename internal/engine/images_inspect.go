package engine

import (
	"context"
	"strings"
	"time"

	"berth/internal/fault"
	"berth/internal/image"

	api "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageInspect tells all about an image.
func (e *Engine) ImageInspect(ctx context.Context, ref string, o ImageInspectOptions) (api.InspectResponse, error) {
	img, err := e.imageFor(ctx, ref, o.Platform)
	if err != nil {
		return api.InspectResponse{}, err
	}
	config := img.Config.Config
	out := api.InspectResponse{
		ID: img.ID.String(), RepoTags: notNil(img.RepoTags), RepoDigests: notNil(img.RepoDigests),
		Author: img.Config.Author, Config: &config, Architecture: img.Architecture, Variant: img.Variant, Os: img.OS,
		OsVersion: img.Config.OSVersion, Size: img.Size,
		RootFS:   api.RootFS{Type: "layers"},
		Metadata: api.Metadata{LastTagTime: img.LastTagged},
	}
	if !img.Created.IsZero() {
		out.Created = img.Created.UTC().Format(time.RFC3339Nano)
	}
	if n := len(img.Config.History); n > 0 {
		out.Comment = img.Config.History[n-1].Comment
	}
	for _, d := range img.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, d.String())
	}
	if lower, err := e.layers.Lower(img.DiffIDs); err == nil {
		out.GraphDriver = &storage.DriverData{Name: storageDriver, Data: map[string]string{"LowerDir": strings.Join(lower, ":")}}
	}
	return out, nil
}

// imageFor finds an image and checks that it is for a platform; nil means
// whatever there is.
func (e *Engine) imageFor(ctx context.Context, ref string, p *ocispec.Platform) (*image.Image, error) {
	img, err := e.images.Get(ctx, ref)
	if err != nil || p == nil {
		return img, err
	}
	have := ocispec.Platform{OS: img.OS, Architecture: img.Architecture, Variant: img.Variant}
	if !image.Matches(*p, have) {
		return nil, fault.New(fault.NotFound, "", "", "image with reference %s was found but does not provide the specified platform (%s): it is for %s",
			ref, image.FormatPlatform(*p), image.FormatPlatform(have))
	}
	return img, nil
}
