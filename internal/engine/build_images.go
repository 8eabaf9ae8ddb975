package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"berth/internal/build"
	"berth/internal/build/solve"
	"berth/internal/engine/images"
	"berth/internal/fault"
	"berth/internal/image"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Authorizer returns the credentials for the registry of a name, empty ones for
// nobody's.
type Authorizer func(ref string) registry.AuthConfig

// BuildOptions are what builds need of the engine besides the request.
type BuildOptions struct {
	Auth      Authorizer // nil: nobody
	CacheFrom []string   // images that may have a build cache in their configuration
}

// bases finds base images for one build.
type bases struct {
	e *Engine
	o BuildOptions

	mu   sync.Mutex // guards tell, which is not called concurrently
	tell func(build.Event)
}

// Find implements build.Images.
func (b *bases) Find(ctx context.Context, ref string, platform ocispec.Platform, pull bool) (*image.Image, error) {
	if !pull {
		img, err := b.e.images.GetPlatform(ctx, ref, &platform)
		if err == nil || !fault.Is(err, fault.NotFound) {
			return img, err
		}
	}
	named, err := image.ParseName(ref)
	if err != nil {
		return nil, err
	}
	o := images.PullOptions{Platform: &platform}
	if b.o.Auth != nil {
		o.Auth = b.o.Auth(named.String())
	}
	p := &pullTeller{b: b, name: reference.FamiliarString(named), layers: map[string]*jsonstream.Progress{}}
	if err := b.e.ImagePull(ctx, named.String(), o, p.out()); err != nil {
		return nil, err
	}
	p.send("done")
	return b.e.images.GetPlatform(ctx, ref, &platform)
}

func (b *bases) event(e build.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell(e)
}

// caches returns the build caches that are in images. An image that cannot be
// had, or has none, makes a build slower and not wrong.
func (b *bases) caches(ctx context.Context) [][]byte {
	var out [][]byte
	for _, ref := range b.o.CacheFrom {
		doc, err := b.cache(ctx, ref)
		if err != nil {
			b.warn("cache-from " + ref + ": " + err.Error())
			continue
		}
		out = append(out, doc)
	}
	return out
}

func (b *bases) warn(text string) {
	if b.tell != nil {
		b.event(build.Event{Event: solve.Event{Kind: solve.Warned, Time: time.Now(), Message: text}})
	}
}

func (b *bases) cache(ctx context.Context, ref string) ([]byte, error) {
	img, err := b.Find(ctx, ref, image.HostPlatform(), false)
	if err != nil {
		return nil, err
	}
	doc, err := b.e.images.Document(ctx, img.ID)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(doc, &fields); err != nil {
		return nil, fault.Wrap("read configuration of", ref, err)
	}
	if raw := fields[build.InlineKey]; len(raw) > 0 {
		return raw, nil
	}
	return nil, fault.New(fault.NotFound, "find build cache", ref, "the image has none in it").
		WithHint("build it with --cache-to type=inline")
}

// pullTeller turns the messages of a pull into one progress.
type pullTeller struct {
	b      *bases
	name   string
	layers map[string]*jsonstream.Progress
	held   []byte
	told   time.Time
}

// tellEvery bounds how often the progress of a pull is told.
const tellEvery = 100 * time.Millisecond

func (p *pullTeller) out() io.Writer {
	if p.b.tell == nil {
		return io.Discard
	}
	return p
}

// Write takes the pull's messages, one a line.
func (p *pullTeller) Write(text []byte) (int, error) {
	p.held = append(p.held, text...)
	for {
		line, rest, ok := bytes.Cut(p.held, []byte("\n"))
		if !ok {
			break
		}
		var m jsonstream.Message
		if json.Unmarshal(line, &m) == nil && m.ID != "" && m.Progress != nil && m.Progress.Total > 0 && m.Status == "Downloading" {
			p.layers[m.ID] = m.Progress
		}
		p.held = rest
	}
	if time.Since(p.told) >= tellEvery {
		p.told = time.Now()
		p.send("")
	}
	return len(text), nil
}

func (p *pullTeller) send(message string) {
	if p.b.tell == nil {
		return
	}
	e := solve.Event{Kind: solve.Progress, Time: time.Now(), Name: p.name, Message: message}
	for _, l := range p.layers {
		e.Current, e.Total = e.Current+l.Current, e.Total+l.Total
	}
	if message == "done" {
		e.Current = e.Total
	}
	p.b.event(build.Event{Event: e})
}
