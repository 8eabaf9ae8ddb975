package transfer

import (
	"context"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/image"
)

// packedForm is a form in which a layer is known to exist somewhere.
type packedForm struct {
	desc  ocispec.Descriptor
	repos []string // paths of repositories of the registry in question that have it
	own   bool     // the image itself came or went with it
}

const (
	maxPackings = 4 // of a layer that are looked for at the registry
	maxMounts   = 2 // repositories that a layer is looked for in
)

// packings finds how the layers of an image are known to be packed, by what
// images were pulled and pushed as: first as the image itself was, then as at
// the registry it goes to, then elsewhere.
func (c *Client) packings(ctx context.Context, target reference.Named, img *image.Image) (map[digest.Digest][]packedForm, error) {
	images, err := c.c.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	known := map[digest.Digest][]packedForm{}
	domain := reference.Domain(target)
	for _, other := range append([]*image.Image{img}, images...) {
		if !slices.ContainsFunc(other.DiffIDs, func(d digest.Digest) bool { return slices.Contains(img.DiffIDs, d) }) {
			continue
		}
		for _, at := range c.manifestsAt(ctx, other) {
			doc, err := image.ParseDocument(at.raw, "")
			if err != nil || doc.Manifest == nil || len(doc.Manifest.Layers) != len(other.DiffIDs) {
				continue
			}
			repo := ""
			if at.name != nil && reference.Domain(at.name) == domain {
				repo = reference.Path(at.name)
			}
			for i, d := range doc.Manifest.Layers {
				if diffID := other.DiffIDs[i]; slices.Contains(img.DiffIDs, diffID) {
					known[diffID] = addPacking(known[diffID], d, repo, other.ID == img.ID)
				}
			}
		}
	}
	for _, list := range known {
		slices.SortStableFunc(list, func(a, b packedForm) int { return b.weight() - a.weight() })
	}
	return known, nil
}

func (k packedForm) weight() int {
	w := 0
	if k.own {
		w += 2
	}
	if len(k.repos) > 0 {
		w++
	}
	return w
}

func addPacking(list []packedForm, d ocispec.Descriptor, repo string, own bool) []packedForm {
	i := slices.IndexFunc(list, func(k packedForm) bool { return k.desc.Digest == d.Digest })
	if i < 0 {
		list = append(list, packedForm{desc: d})
		i = len(list) - 1
	}
	list[i].own = list[i].own || own
	if repo != "" && !slices.Contains(list[i].repos, repo) {
		list[i].repos = append(list[i].repos, repo)
	}
	return list
}

// manifestAt is a manifest of an image, and a repository that has it if known.
type manifestAt struct {
	raw  []byte
	name reference.Named
}

// manifestsAt returns the manifests that an image was pulled and pushed with.
func (c *Client) manifestsAt(ctx context.Context, img *image.Image) []manifestAt {
	var all []manifestAt
	if raw, err := c.c.Images.Manifest(ctx, img.ID); err == nil {
		all = append(all, manifestAt{raw: raw})
	}
	for _, s := range img.RepoDigests {
		named, err := reference.ParseNormalizedNamed(s)
		canonical, ok := named.(reference.Canonical)
		if err != nil || !ok {
			continue
		}
		for _, raw := range c.imageManifests(ctx, canonical.Digest(), img.ID, 0) {
			all = append(all, manifestAt{raw, reference.TrimNamed(named)})
		}
	}
	return all
}

func (c *Client) manifestsOf(ctx context.Context, img *image.Image) [][]byte {
	var all [][]byte
	for _, at := range c.manifestsAt(ctx, img) {
		all = append(all, at.raw)
	}
	return all
}

// imageManifests returns the manifests of an image that a manifest or index
// which is here leads to.
func (c *Client) imageManifests(ctx context.Context, d, id digest.Digest, depth int) [][]byte {
	raw, err := c.c.Images.Document(ctx, d)
	if err != nil || depth > maxNesting {
		return nil
	}
	doc, err := image.ParseDocument(raw, "")
	switch {
	case err != nil:
		return nil
	case doc.Manifest != nil && doc.Manifest.Config.Digest == id:
		return [][]byte{raw}
	case doc.Index == nil:
		return nil
	}
	var all [][]byte
	for _, next := range doc.Index.Manifests {
		if c.c.Content.Has(next.Digest) {
			all = append(all, c.imageManifests(ctx, next.Digest, id, depth+1)...)
		}
	}
	return all
}
