package image

import (
	"context"
	"slices"

	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// missingID is what docker shows for a step whose image is not here.
const missingID = "<missing>"

// History returns the steps in which an image was made, newest first, as docker
// has them: texts as they were recorded, the size of the layer that a step made
// (bytes), and the id and tags of those images of the lineage that are here.
func (s *Store) History(ctx context.Context, ref string, platform *ocispec.Platform) ([]image.HistoryResponseItem, error) {
	img, err := s.GetPlatform(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	items := []image.HistoryResponseItem{}
	layer := 0
	for _, h := range img.Config.History {
		item := image.HistoryResponseItem{ID: missingID, CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer {
			if layer >= len(img.DiffIDs) {
				return nil, fault.New(fault.Invalid, "read history of", ref, "too many non-empty layers in History section")
			}
			l, err := s.layers.Stat(img.DiffIDs[layer])
			if err != nil {
				return nil, fault.Wrap("read history of", ref, err)
			}
			item.Size = l.Size
			layer++
		}
		items = append(items, item)
	}
	slices.Reverse(items)
	s.nameSteps(items, img.ID)
	return items, nil
}

// nameSteps gives steps the ids and tags of the image and of those it was made
// from, one step each.
func (s *Store) nameSteps(items []image.HistoryResponseItem, id digest.Digest) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range items {
		st := s.images[id]
		if st == nil {
			return
		}
		items[i].ID = id.String()
		var tags []string
		for _, r := range s.naming(st.rec) {
			tags = append(tags, r.Tags...)
		}
		if len(tags) > 0 {
			items[i].Tags = familiar(tags)
		}
		id = st.rec.Parent
	}
}
