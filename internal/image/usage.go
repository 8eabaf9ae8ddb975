package image

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Usage is what images take on disk, unpacked.
type Usage struct {
	Images []ImageUsage // as List has them
	Layers int64        // bytes of all layers that images have, each once
	Blobs  int64        // bytes of the blobs that images keep: documents, packed layers
}

// ImageUsage is one image's part, in bytes.
type ImageUsage struct {
	Image  *Image
	Size   int64 // all layers
	Shared int64 // of layers that other images have, too
	Unique int64 // what its removal frees
}

// Usage measures images.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	list, err := s.List(ctx)
	if err != nil {
		return Usage{}, err
	}
	users := s.LayerUsers()
	var u Usage
	sizes := map[digest.Digest]int64{}
	for d := range users {
		if l, err := s.layers.Stat(d); err == nil {
			sizes[d] = l.Size
			u.Layers += l.Size
		}
	}
	for _, img := range list {
		one := ImageUsage{Image: img, Size: img.Size}
		for _, d := range distinct(img.DiffIDs) {
			if len(users[d]) > 1 {
				one.Shared += sizes[d]
			} else {
				one.Unique += sizes[d]
			}
		}
		u.Images = append(u.Images, one)
	}
	s.mu.RLock()
	blobs := make([]digest.Digest, 0, len(s.refs.blobs))
	for d := range s.refs.blobs {
		blobs = append(blobs, d)
	}
	s.mu.RUnlock()
	for _, d := range blobs {
		if i, err := s.content.Stat(d); err == nil {
			u.Blobs += i.Size
		}
	}
	return u, nil
}

// LayerUsers returns the ids of the images that have each layer.
func (s *Store) LayerUsers() map[digest.Digest][]digest.Digest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	users := map[digest.Digest][]digest.Digest{}
	for id, st := range s.images {
		for _, d := range distinct(st.rec.DiffIDs) {
			users[d] = append(users[d], id)
		}
	}
	return users
}

func distinct(ds []digest.Digest) []digest.Digest {
	out := slices.Clone(ds)
	slices.Sort(out)
	return slices.Compact(out)
}

// Branch is a layer in the tree of layers: below it are the layers that images
// stack on it.
type Branch struct {
	DiffID  digest.Digest
	ChainID digest.Digest // names the layer with all below it
	Size    int64         // bytes
	Images  int           // how many images have it, here or elsewhere in the tree
	Tops    []TreeImage   `json:",omitempty"` // images of which this is the topmost layer
	Above   []*Branch     `json:",omitempty"`
}

// TreeImage is an image in the tree.
type TreeImage struct {
	ID       digest.Digest
	RepoTags []string `json:",omitempty"`
	Platform string
	Size     int64 // bytes
}

// Tree is all images by the layers they are stacked of.
type Tree struct {
	Roots []*Branch   `json:",omitempty"`
	Empty []TreeImage `json:",omitempty"` // images without layers
}

// Tree shows which layers images share.
func (s *Store) Tree(ctx context.Context) (Tree, error) {
	users := s.LayerUsers()
	s.mu.RLock()
	images := make([]TreeImage, 0, len(s.images))
	stacks := map[digest.Digest][]digest.Digest{}
	for id, st := range s.images {
		if st.rec.isIndex() {
			continue
		}
		var tags []string
		for _, r := range s.naming(st.rec) {
			tags = append(tags, r.Tags...)
		}
		images = append(images, TreeImage{ID: id, RepoTags: familiar(tags), Platform: FormatPlatform(st.rec.platform()), Size: st.rec.Size})
		stacks[id] = st.rec.DiffIDs
	}
	s.mu.RUnlock()
	slices.SortFunc(images, func(a, b TreeImage) int { return strings.Compare(treeKey(a), treeKey(b)) })

	var t Tree
	known := map[digest.Digest]*Branch{}
	for _, img := range images {
		at := &t.Roots
		var top *Branch
		chain := chainIDs(stacks[img.ID])
		for i, d := range stacks[img.ID] {
			b := known[chain[i]]
			if b == nil {
				b = &Branch{DiffID: d, ChainID: chain[i], Images: len(users[d])}
				if l, err := s.layers.Stat(d); err == nil {
					b.Size = l.Size
				}
				known[chain[i]] = b
				*at = append(*at, b)
			}
			top, at = b, &b.Above
		}
		if top == nil {
			t.Empty = append(t.Empty, img)
		} else {
			top.Tops = append(top.Tops, img)
		}
	}
	return t, ctx.Err()
}

// treeKey orders images by name, those without one last.
func treeKey(i TreeImage) string {
	if len(i.RepoTags) == 0 {
		return "~" + i.ID.String()
	}
	return i.RepoTags[0] + i.ID.String()
}
