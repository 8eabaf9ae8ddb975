package build

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/graph"
	"berth/internal/build/solve"
	"berth/internal/fault"
)

// assemble makes the image's config. Times are those at which the steps were run
// for the first time, so building again what is cached gives the same image.
// cache, if not nil, goes in as it is.
func assemble(g *graph.Graph, layers []digest.Digest, s *solve.Solved, cache []byte) ([]byte, error) {
	img := g.Image.Config
	img.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: slices.Clone(layers)}
	if img.RootFS.DiffIDs == nil {
		img.RootFS.DiffIDs = []digest.Digest{}
	}
	var at *time.Time
	for _, h := range g.Image.History {
		entry := h.History
		switch {
		case h.Node != nil:
			t := s.Finished[h.Node].UTC()
			at = &t
			entry.EmptyLayer = !s.Made[h.Node]
			entry.Created = at
		case entry.Created == nil:
			entry.Created = at
		default:
			at = entry.Created
		}
		if g.Image.Epoch != nil && (entry.Created == nil || entry.Created.After(*g.Image.Epoch) || h.Node != nil) {
			entry.Created = g.Image.Epoch
		}
		img.History = append(img.History, entry)
	}
	img.Created = at
	if g.Image.Epoch != nil {
		img.Created = g.Image.Epoch
	}
	if img.Created == nil {
		t := time.Unix(0, 0).UTC()
		img.Created = &t
	}
	for i := range img.History {
		if img.History[i].Created == nil {
			img.History[i].Created = img.Created
		}
	}
	data, err := json.Marshal(img)
	if err != nil {
		return nil, fault.Wrap("write image config", "", err)
	}
	// The fields in docker's order, which is the alphabet's.
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fault.Wrap("write image config", "", err)
	}
	if cache != nil {
		fields[InlineKey] = cache
	}
	return json.Marshal(fields)
}
