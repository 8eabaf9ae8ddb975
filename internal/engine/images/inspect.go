package images

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

// InspectOptions say what to tell of an image; the two exclude each other.
type InspectOptions struct {
	Manifests bool              // list what the image has for each platform
	Platform  *ocispec.Platform // tell of this one
}

// Inspection is all about an image, with what only clients older than 1.52 ask for.
type Inspection struct {
	api.InspectResponse
	Parent string // ID of the image that it was made from, "" for none
}

// Tree is all images by the layers that they are stacked of.
type Tree = image.Tree

// ImageInspect tells all about an image.
func (s *Service) ImageInspect(ctx context.Context, ref string, o InspectOptions) (Inspection, error) {
	img, err := s.stock.Images.GetPlatform(ctx, ref, o.Platform)
	if err != nil {
		return Inspection{}, err
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
	if lower, err := s.stock.Layers.Lower(img.DiffIDs); err == nil {
		out.GraphDriver = &storage.DriverData{Name: StorageDriver, Data: map[string]string{"LowerDir": strings.Join(lower, ":")}}
	}
	if o.Manifests {
		members, raw, err := s.stock.Images.Members(ctx, ref)
		if err != nil {
			return Inspection{}, err
		}
		out.Manifests = s.manifestSummaries(ctx, members, s.stock.AllUsers())
		out.Descriptor = targetOf(members, raw)
	}
	return Inspection{out, img.Parent.String()}, nil
}

// ImageHistory tells of what steps an image was made, the last one first.
func (s *Service) ImageHistory(ctx context.Context, ref string, p *ocispec.Platform) ([]api.HistoryResponseItem, error) {
	return s.stock.Images.History(ctx, ref, p)
}

// ImageTree tells which layers images share.
func (s *Service) ImageTree(ctx context.Context) (Tree, error) { return s.stock.Images.Tree(ctx) }

// targetOf describes what a name stands for: the index, or the only manifest.
// There is no other place to show the annotations in it.
func targetOf(members []image.Member, raw []byte) *ocispec.Descriptor {
	if raw != nil {
		var typed struct {
			MediaType   string            `json:"mediaType"`
			Annotations map[string]string `json:"annotations"`
		}
		_ = json.Unmarshal(raw, &typed) // it was parsed when it was recorded
		if typed.MediaType == "" {
			typed.MediaType = ocispec.MediaTypeImageIndex
		}
		return &ocispec.Descriptor{MediaType: typed.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw)), Annotations: typed.Annotations}
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
func (s *Service) manifestSummaries(ctx context.Context, members []image.Member, users map[digest.Digest][]image.User) []api.ManifestSummary {
	var list []api.ManifestSummary
	for _, m := range members {
		if m.Descriptor.Digest == "" {
			continue
		}
		sum := api.ManifestSummary{ID: m.Descriptor.Digest.String(), Descriptor: m.Descriptor, Available: m.Image != nil, Kind: api.ManifestKindImage}
		props := &api.ImageProperties{Platform: m.Platform, Containers: []string{}}
		if m.Image != nil {
			sum.Size.Content = s.contentSize(ctx, m)
			props.Size.Unpacked = m.Image.Size
			for _, u := range users[m.Image.ID] {
				props.Containers = append(props.Containers, u.ID)
			}
		}
		sum.Size.Total = sum.Size.Content + props.Size.Unpacked
		sum.ImageData = props
		list = append(list, sum)
	}
	return list
}

// contentSize adds up the blobs of an image that are kept, in bytes.
func (s *Service) contentSize(ctx context.Context, m image.Member) int64 {
	total := int64(0)
	for _, d := range s.stock.Blobs(ctx, m.Image.ID) {
		if info, err := s.stock.Content.Stat(d); err == nil {
			total += info.Size
		}
	}
	return total
}
