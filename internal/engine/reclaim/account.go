package reclaim

import (
	"context"
	"slices"

	"berth/internal/image"

	"github.com/opencontainers/go-digest"
)

// thing is what images are made of on disk: an unpacked layer or a blob.
type thing struct {
	blob   bool
	digest digest.Digest
}

// account knows what each image takes and who shares it: images and containers, by id.
type account struct {
	uses map[thing]map[digest.Digest]bool // thing to those that need it
	of   map[digest.Digest][]thing        // the other way round
	size map[thing]int64                  // bytes that come back when nobody needs it
}

// accountOf adds up the layers and blobs of listed images; those behind an
// index count for the one that stands for it. What a container's root is made of, or
// mounts, stays whatever happens to the image, and so does what others keep.
func (p *Images) accountOf(ctx context.Context, all []*image.Image) *account {
	a := &account{uses: map[thing]map[digest.Digest]bool{}, of: map[digest.Digest][]thing{}, size: map[thing]int64{}}
	for _, img := range all {
		p.addImage(ctx, a, img.ID, img)
		if img.Index == "" {
			continue
		}
		p.addThing(ctx, a, img.ID, thing{true, img.Index})
		members, _, err := p.stock.Images.Members(ctx, img.Index.String())
		if err != nil {
			continue // it has gone meanwhile
		}
		for _, m := range members {
			if m.Image != nil && m.Image.ID != img.ID {
				p.addImage(ctx, a, img.ID, m.Image)
			}
		}
	}
	for _, c := range p.stock.Containers.All() {
		rec := c.Record()
		for _, d := range slices.Concat(rec.Layers, rec.MountedLayers()) {
			p.addThing(ctx, a, digest.Digest(c.ID), thing{false, d})
		}
	}
	return a
}

// addImage notes what an image needs on behalf of the one called id.
func (p *Images) addImage(ctx context.Context, a *account, id digest.Digest, img *image.Image) {
	for _, d := range img.DiffIDs {
		p.addThing(ctx, a, id, thing{false, d})
	}
	for _, d := range p.stock.Blobs(ctx, img.ID) {
		p.addThing(ctx, a, id, thing{true, d})
	}
}

func (p *Images) addThing(ctx context.Context, a *account, id digest.Digest, t thing) {
	if a.uses[t] == nil {
		a.uses[t] = map[digest.Digest]bool{}
		a.size[t] = p.thingSize(ctx, t)
	}
	if !a.uses[t][id] {
		a.uses[t][id] = true
		a.of[id] = append(a.of[id], t)
	}
}

// thingSize is what a thing takes on disk, in bytes; 0 when it is not there, or stays
// whatever goes.
func (p *Images) thingSize(ctx context.Context, t thing) int64 {
	if p.stock.Images.Keeps(t.digest, t.blob) {
		return 0
	}
	if t.blob {
		info, err := p.stock.Content.Stat(t.digest)
		if err != nil || p.others.Keeps(ctx, t.digest) {
			return 0
		}
		return info.Size
	}
	l, err := p.stock.Layers.Stat(t.digest)
	if err != nil || p.others.KeepsLayer(t.digest) {
		return 0
	}
	return l.Disk
}

// orphans lists what nobody needs when exactly these images go.
func (a *account) orphans(gone map[digest.Digest]bool) []thing {
	var list []thing
	for t, users := range a.uses {
		all := true
		for id := range users {
			all = all && gone[id]
		}
		if all {
			list = append(list, t)
		}
	}
	return list
}

// freed is how much has come back after these images went, in bytes.
func (p *Images) freed(a *account, gone map[digest.Digest]bool) int64 {
	total := int64(0)
	for _, t := range a.orphans(gone) {
		if t.blob && p.stock.Content.Has(t.digest) || !t.blob && p.stock.Layers.Has(t.digest) {
			continue // somebody has found a use for it
		}
		total += a.size[t]
	}
	return total
}

// alone is how much of an image nobody else needs.
func (a *account) alone(id digest.Digest) int64 {
	total := int64(0)
	for _, t := range a.of[id] {
		if len(a.uses[t]) == 1 {
			total += a.size[t]
		}
	}
	return total
}
