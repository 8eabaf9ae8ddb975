package images

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"berth/internal/container"
	"berth/internal/content"
	"berth/internal/events"
	"berth/internal/image"
	"berth/internal/layer"

	"github.com/distribution/reference"
	api "github.com/moby/moby/api/types/events"
	apiimage "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Stock is the images that there are, the containers made from them, and who is told
// when something happens to an image.
type Stock struct {
	Images     *image.Store
	Layers     *layer.Store
	Content    *content.Store
	Containers *container.Index
	Bus        *events.Bus
}

// familiarTagged writes a name the way users do, with its tag.
func familiarTagged(ref string) string {
	named, err := image.ParseName(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(named)
}

// lineage returns an image, those from which it was made and those that are with
// it in an index, the image first.
func (s *Stock) lineage(ctx context.Context, ref string) []*image.Image {
	var list []*image.Image
	for img, err := s.Images.Get(ctx, ref); err == nil; img, err = s.Images.Get(ctx, img.Parent.String()) {
		list = append(list, img)
		if img.Parent == "" || len(list) > 1000 {
			break
		}
	}
	if len(list) == 0 || list[0].Index == "" {
		return list
	}
	members, _, err := s.Images.Members(ctx, list[0].Index.String())
	if err != nil {
		return list // it has gone meanwhile
	}
	for _, m := range members {
		if m.Image != nil && m.Image.ID != list[0].ID {
			list = append(list, m.Image)
		}
	}
	return list
}

// Remove removes a name of an image, or the image, unless a container uses it, and
// tells of it. known are the images of which something may go, the one named first.
func (s *Stock) Remove(ctx context.Context, ref string, o image.RemoveOptions, known ...*image.Image) ([]apiimage.DeleteResponse, error) {
	o.InUse = s.Users
	gone, err := s.Images.Remove(ctx, ref, o)
	if err == nil {
		s.tellRemoval(gone, known)
	}
	return gone, err
}

// tellRemoval tells what an image's removal took away: names, images; layers
// have no events.
func (s *Stock) tellRemoval(gone []apiimage.DeleteResponse, known []*image.Image) {
	if len(known) == 0 {
		return
	}
	byID := make(map[string]*image.Image, len(known))
	for _, img := range known {
		byID[img.ID.String()] = img
	}
	for _, g := range gone {
		if g.Untagged != "" {
			s.Tell(api.ActionUnTag, known[0].ID.String(), known[0].ID.String(), known[0])
		}
		if img := byID[g.Deleted]; img != nil {
			s.Tell(api.ActionDelete, g.Deleted, g.Deleted, img)
		}
	}
}

// AllUsers returns the containers made from each image, and those that mount it, for
// who asks about many.
func (s *Stock) AllUsers() map[digest.Digest][]image.User {
	users := map[digest.Digest][]image.User{}
	for _, c := range s.Containers.All() {
		rec := c.Record()
		for _, id := range rec.Images() {
			users[id] = append(users[id], image.User{ID: rec.ID, Running: rec.State.Up()})
		}
	}
	return users
}

// Users returns the containers made from an image, and those that mount it.
func (s *Stock) Users(id digest.Digest) []image.User {
	var users []image.User
	for _, c := range s.Containers.All() {
		rec := c.Record()
		if slices.Contains(rec.Images(), id) {
			users = append(users, image.User{ID: rec.ID, Running: rec.State.Up()})
		}
	}
	return users
}

// Tell publishes an event of an image with the attributes that docker gives
// it: the image's labels and a name. A nil image has no labels.
func (s *Stock) Tell(action api.Action, id, name string, img *image.Image) {
	attrs := map[string]string{}
	if img != nil {
		maps.Copy(attrs, img.Config.Config.Labels)
	}
	attrs["name"] = name
	s.Bus.Publish(api.ImageEventType, action, id, attrs)
}

// tellOf publishes an event that names its image by id alone.
func (s *Stock) tellOf(ctx context.Context, action api.Action, id digest.Digest) {
	img, err := s.Images.Get(ctx, id.String())
	if err != nil {
		img = nil
	}
	s.Tell(action, id.String(), id.String(), img)
}

// Blobs lists the blobs that an image refers to, whether they are here or not:
// its config, its manifest and its packed layers.
func (s *Stock) Blobs(ctx context.Context, id digest.Digest) []digest.Digest {
	list := []digest.Digest{id}
	raw, err := s.Images.Manifest(ctx, id)
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
