package engine

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"sync"

	"berth/internal/image"

	"github.com/moby/moby/api/types/events"
	api "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
)

// progress writes docker's progress messages, one JSON object a line.
type progress struct {
	mu  sync.Mutex // serialises writes
	out io.Writer
	err error // of the first write that failed: the client went away
}

func (p *progress) send(m jsonstream.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	text, err := json.Marshal(m)
	if err == nil {
		_, err = p.out.Write(append(text, '\r', '\n'))
	}
	p.err = err
}

func (p *progress) status(text string) { p.send(jsonstream.Message{Status: text}) }

// ImageTag gives an image a further name.
func (e *Engine) ImageTag(ctx context.Context, src, target string) error {
	if err := e.images.Tag(ctx, src, target); err != nil {
		return err
	}
	if img, err := e.images.Get(ctx, target); err == nil {
		e.emitImage(events.ActionTag, img.ID.String(), familiarTagged(target), img)
	}
	return nil
}

// familiarTagged writes a name the way users do, with its tag.
func familiarTagged(ref string) string {
	named, err := image.ParseName(ref)
	if err != nil {
		return ref
	}
	return familiar(named)
}

// ImageRemove removes a name of an image, or the image.
func (e *Engine) ImageRemove(ctx context.Context, ref string, force, prune bool) ([]api.DeleteResponse, error) {
	known := e.lineage(ctx, ref)
	gone, err := e.images.Remove(ctx, ref, image.RemoveOptions{Force: force, Prune: prune, InUse: e.usersOf})
	if err != nil {
		return nil, err
	}
	e.emitRemoval(gone, known)
	return gone, nil
}

// lineage returns an image, those from which it was made and those that are with
// it in an index, the image first.
func (e *Engine) lineage(ctx context.Context, ref string) []*image.Image {
	var list []*image.Image
	for img, err := e.images.Get(ctx, ref); err == nil; img, err = e.images.Get(ctx, img.Parent.String()) {
		list = append(list, img)
		if img.Parent == "" || len(list) > 1000 {
			break
		}
	}
	if len(list) == 0 || list[0].Index == "" {
		return list
	}
	members, _, err := e.images.Members(ctx, list[0].Index.String())
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

// emitRemoval tells what an image's removal took away: names, images; layers
// have no events.
func (e *Engine) emitRemoval(gone []api.DeleteResponse, known []*image.Image) {
	if len(known) == 0 {
		return
	}
	byID := make(map[string]*image.Image, len(known))
	for _, img := range known {
		byID[img.ID.String()] = img
	}
	for _, g := range gone {
		if g.Untagged != "" {
			e.emitImage(events.ActionUnTag, known[0].ID.String(), known[0].ID.String(), known[0])
		}
		if img := byID[g.Deleted]; img != nil {
			e.emitImage(events.ActionDelete, g.Deleted, g.Deleted, img)
		}
	}
}

// usersOf returns the containers made from an image.
func (e *Engine) usersOf(id digest.Digest) []image.User {
	var users []image.User
	for _, c := range e.containers.All() {
		rec := c.Record()
		if rec.ImageID == id {
			users = append(users, image.User{ID: rec.ID, Running: rec.State.Up()})
		}
	}
	return users
}

// emitImage publishes an event of an image with the attributes that docker gives
// it: the image's labels and a name. A nil image has no labels.
func (e *Engine) emitImage(action events.Action, id, name string, img *image.Image) {
	attrs := map[string]string{}
	if img != nil {
		maps.Copy(attrs, img.Config.Config.Labels)
	}
	attrs["name"] = name
	e.bus.Publish(events.ImageEventType, action, id, attrs)
}

// emitByID publishes an event that names its image by id alone.
func (e *Engine) emitByID(ctx context.Context, action events.Action, id digest.Digest) {
	img, err := e.images.Get(ctx, id.String())
	if err != nil {
		img = nil
	}
	e.emitImage(action, id.String(), id.String(), img)
}
