package engine

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"berth/internal/image"

	api "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageInspect tells all about an image.
func (e *Engine) ImageInspect(ctx context.Context, ref string, o ImageInspectOptions) (api.InspectResponse, error) {
	img, err := e.images.GetPlatform(ctx, ref, o.Platform)
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
	if o.Manifests {
		members, raw, err := e.images.Members(ctx, ref)
		if err != nil {
			return api.InspectResponse{}, err
		}
		out.Manifests = e.manifestSummaries(ctx, members)
		out.Descriptor = targetOf(members, raw)
	}
	return out, nil
}

// ImageHistory tells of what steps an image was made, the last one first.
func (e *Engine) ImageHistory(ctx context.Context, ref string, p *ocispec.Platform) ([]api.HistoryResponseItem, error) {
	return e.images.History(ctx, ref, p)
}

// ImageTree tells which layers images share.
func (e *Engine) ImageTree(ctx context.Context) (ImageTree, error) { return e.images.Tree(ctx) }

// targetOf describes what a name stands for: the index, or the only manifest.
func targetOf(members []image.Member, raw []byte) *ocispec.Descriptor {
	if raw != nil {
		var typed struct {
			MediaType string `json:"mediaType"`
		}
		_ = json.Unmarshal(raw, &typed) // it was parsed when it was recorded
		if typed.MediaType == "" {
			typed.MediaType = ocispec.MediaTypeImageIndex
		}
		return &ocispec.Descriptor{MediaType: typed.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	}
	if len(members) != 1 || members[0].Descriptor.Digest == "" {
		return nil
	}
	d := members[0].Descriptor
	d.Platform = nil
	return &d
}

// manifestSummaries tells of each image of an index; an image without a manifest
// has none to tell of.
func (e *Engine) manifestSummaries(ctx context.Context, members []image.Member) []api.ManifestSummary {
	var list []api.ManifestSummary
	for _, m := range members {
		if m.Descriptor.Digest == "" {
			continue
		}
		s := api.ManifestSummary{ID: m.Descriptor.Digest.String(), Descriptor: m.Descriptor, Available: m.Image != nil, Kind: api.ManifestKindImage}
		props := &api.ImageProperties{Platform: m.Platform, Containers: []string{}}
		if m.Image != nil {
			s.Size.Content = e.contentSize(ctx, m)
			props.Size.Unpacked = m.Image.Size
			for _, u := range e.usersOf(m.Image.ID) {
				props.Containers = append(props.Containers, u.ID)
			}
		}
		s.Size.Total = s.Size.Content + props.Size.Unpacked
		s.ImageData = props
		list = append(list, s)
	}
	return list
}

// contentSize adds up the blobs of an image that are kept, in bytes.
func (e *Engine) contentSize(ctx context.Context, m image.Member) int64 {
	total := int64(0)
	for _, d := range e.blobsOf(ctx, m.Image.ID) {
		if info, err := e.content.Stat(d); err == nil {
			total += info.Size
		}
	}
	return total
}

// blobsOf lists the blobs that an image refers to, whether they are here or not:
// its config, its manifest and its packed layers.
func (e *Engine) blobsOf(ctx context.Context, id digest.Digest) []digest.Digest {
	list := []digest.Digest{id}
	raw, err := e.images.Manifest(ctx, id)
	if err != nil {
		return list // made or loaded here: there is none
	}
	list = append(list, digest.FromBytes(raw))
	var m ocispec.Manifest
	if json.Unmarshal(raw, &m) == nil {
		for _, l := range m.Layers {
			list = append(list, l.Digest)
		}
	}
	return list
}
