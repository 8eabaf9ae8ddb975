package engine

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"

	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/transfer"

	"github.com/moby/moby/api/types/events"
	api "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
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

func (p *progress) status(format string) { p.send(jsonstream.Message{Status: format}) }

// ImageLoad reads an archive of images. Progress and what was loaded go to out
// as docker's stream; quiet leaves out the progress.
func (e *Engine) ImageLoad(ctx context.Context, r io.Reader, quiet bool, out io.Writer) error {
	p := &progress{out: out}
	o := image.LoadOptions{}
	if !quiet {
		o.Progress = p.send
	}
	loaded, err := e.images.Load(ctx, r, o)
	if err != nil {
		return err
	}
	for _, l := range loaded {
		text := "Loaded image: " + l.Ref + "\n"
		if l.Ref == "" {
			text = "Loaded image ID: " + l.ID.String() + "\n"
		}
		p.send(jsonstream.Message{Stream: text})
		e.emitImage(events.ActionLoad, l.ID, l.Ref)
	}
	return nil
}

// ImageImport makes an image from the archive of a root file system.
func (e *Engine) ImageImport(ctx context.Context, o ImageImportOptions, r io.Reader, out io.Writer) error {
	img, err := e.images.Import(ctx, r, image.ImportOptions{Ref: o.Ref, Message: o.Message, Changes: o.Changes, Platform: o.Platform})
	if err != nil {
		return err
	}
	p := &progress{out: out}
	p.status(img.ID.String())
	e.emitImage(events.ActionImport, img.ID, o.Ref)
	return nil
}

// ImagePull fetches an image from a registry. Progress goes to out as docker's
// stream.
func (e *Engine) ImagePull(ctx context.Context, ref string, platform *ocispec.Platform, out io.Writer) error {
	p := &progress{out: out}
	before, _ := e.images.Get(ctx, ref)
	img, dgst, err := e.puller.Pull(ctx, ref, transfer.Options{Platform: platform, Progress: p.send})
	if err != nil {
		return err
	}
	name := ref
	if tags := tagged(img, ref); tags != "" {
		name = tags
	}
	p.status("Digest: " + dgst.String())
	if before != nil && before.ID == img.ID {
		p.status("Status: Image is up to date for " + name)
	} else {
		p.status("Status: Downloaded newer image for " + name)
	}
	e.emitImage(events.ActionPull, img.ID, name)
	return nil
}

// tagged returns the image's own spelling of a reference, with its tag.
func tagged(img *image.Image, ref string) string {
	for _, t := range img.RepoTags {
		if t == ref || t == ref+":latest" {
			return t
		}
	}
	return ""
}

// ImageTag gives an image a further name.
func (e *Engine) ImageTag(ctx context.Context, src, target string) error {
	if err := e.images.Tag(ctx, src, target); err != nil {
		return err
	}
	if img, err := e.images.Get(ctx, target); err == nil {
		e.emitImage(events.ActionTag, img.ID, target)
	}
	return nil
}

// ImageRemove removes a name of an image, or the image.
func (e *Engine) ImageRemove(ctx context.Context, ref string, force, prune bool) ([]api.DeleteResponse, error) {
	gone, err := e.images.Remove(ctx, ref, image.RemoveOptions{Force: force, Prune: prune, InUse: e.usersOf})
	if err != nil {
		return nil, err
	}
	for _, g := range gone {
		if g.Untagged != "" {
			e.bus.Publish(events.ImageEventType, events.ActionUnTag, g.Untagged, map[string]string{"name": g.Untagged})
		}
		if g.Deleted != "" {
			e.bus.Publish(events.ImageEventType, events.ActionDelete, g.Deleted, map[string]string{"name": g.Deleted})
		}
	}
	return gone, nil
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

func (e *Engine) emitImage(action events.Action, id digest.Digest, name string) {
	if name == "" {
		name = id.String()
	}
	e.bus.Publish(events.ImageEventType, action, id.String(), map[string]string{"name": name})
}

// ImageList returns images, newest first.
func (e *Engine) ImageList(ctx context.Context, o ImageListOptions) ([]api.Summary, error) {
	f := o.Filters
	if err := f.Check("before", "dangling", "label", "reference", "since", "until"); err != nil {
		return nil, err
	}
	dangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	before, since, err := e.imageBounds(ctx, f)
	if err != nil {
		return nil, err
	}
	until, err := untilTime(f)
	if err != nil {
		return nil, err
	}
	images, err := e.images.List(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.Summary{}
	for _, img := range images {
		switch {
		case f.Has("dangling") && dangling != img.Dangling(),
			!f.Labels("label", img.Config.Config.Labels),
			before != nil && !img.Created.Before(before.Created),
			since != nil && !img.Created.After(since.Created),
			!until.IsZero() && !img.Created.Before(until),
			f.Has("reference") && !referenceMatches(f, img):
			continue
		}
		out = append(out, e.imageSummary(img, o))
	}
	return out, nil
}

// imageBounds resolves the images between which the list shall be.
func (e *Engine) imageBounds(ctx context.Context, f Filters) (before, since *image.Image, err error) {
	for key, to := range map[string]**image.Image{"before": &before, "since": &since} {
		for _, ref := range f.Get(key) {
			if *to, err = e.images.Get(ctx, ref); err != nil {
				return nil, nil, err
			}
		}
	}
	return before, since, nil
}

// untilTime reads a time, or an age.
func untilTime(f Filters) (time.Time, error) {
	values := f.Get("until")
	switch len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
	default:
		return time.Time{}, fault.New(fault.Invalid, "", "", "more than one until filter specified")
	}
	if d, err := time.ParseDuration(values[0]); err == nil {
		return time.Now().Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, values[0]); err == nil {
			return t, nil
		}
	}
	var sec int64
	if err := json.Unmarshal([]byte(values[0]), &sec); err == nil {
		return time.Unix(sec, 0), nil
	}
	return time.Time{}, fault.New(fault.Invalid, "", "", "invalid filter 'until=%s'", values[0])
}

// referenceMatches compares names with patterns, with and without the tag.
func referenceMatches(f Filters, img *image.Image) bool {
	for _, t := range append(append([]string{}, img.RepoTags...), img.RepoDigests...) {
		name := t
		if i := strings.IndexByte(t, '@'); i >= 0 {
			name = t[:i]
		} else if i := strings.LastIndexByte(t, ':'); i > strings.LastIndexByte(t, '/') {
			name = t[:i]
		}
		if f.MatchPath("reference", t) || f.MatchPath("reference", name) {
			return true
		}
	}
	return false
}

func (e *Engine) imageSummary(img *image.Image, o ImageListOptions) api.Summary {
	s := api.Summary{
		ID: img.ID.String(), ParentID: img.Parent.String(), RepoTags: notNil(img.RepoTags), RepoDigests: notNil(img.RepoDigests),
		Created: unixOrZero(img.Created), Size: img.Size, SharedSize: -1, Containers: -1, Labels: img.Config.Config.Labels,
	}
	if o.ContainerCount {
		s.Containers = int64(len(e.usersOf(img.ID)))
	}
	return s
}

func notNil(list []string) []string { return append([]string{}, list...) }

func unixOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// ImageInspect tells all about an image.
func (e *Engine) ImageInspect(ctx context.Context, ref string) (api.InspectResponse, error) {
	img, err := e.images.Get(ctx, ref)
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
