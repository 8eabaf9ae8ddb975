package builds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// bases finds base images for one build.
type bases struct {
	s *Service
	o Options

	mu   sync.Mutex // guards tell, which is not called concurrently
	tell func(build.Event)
}

// Find implements build.Images.
func (b *bases) Find(ctx context.Context, ref string, platform ocispec.Platform, pull bool) (*image.Image, error) {
	var here error
	if !pull {
		var img *image.Image
		img, here = b.s.stock.Images.GetPlatform(ctx, ref, &platform)
		if here == nil || !fault.Is(here, fault.NotFound) {
			return img, here
		}
	}
	named, err := image.ParseName(ref)
	if err != nil {
		return nil, err
	}
	foreign := !image.Matches(image.HostPlatform(), platform)
	o := images.PullOptions{Platform: &platform, Join: foreign, Auth: b.o.auth(named.String())} // a base for another platform takes nobody's name away
	p := &pullTeller{b: b, name: reference.FamiliarString(named), layers: map[string]*jsonstream.Progress{}}
	if err := b.s.images.ImagePull(ctx, named.String(), o, p.out()); err != nil {
		if errors.Is(here, image.ErrPlatform) && !errors.Is(err, image.ErrPlatform) {
			err = fault.New(fault.KindOf(err), "", "", "%w; it is needed because %w", err, here)
		}
		return nil, err
	}
	p.send("done")
	return b.s.stock.Images.GetPlatform(ctx, ref, &platform)
}

func (b *bases) event(e build.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell(e)
}

func (b *bases) warn(text string) {
	if b.tell != nil {
		b.event(build.Event{Event: solve.Event{Kind: solve.Warned, Time: time.Now(), Message: text}})
	}
}

// pullTeller turns the messages of a pull, or of a push, into one progress.
type pullTeller struct {
	b    *bases
	name string
	push bool
	held []byte

	mu     sync.Mutex // guards what follows
	layers map[string]*jsonstream.Progress
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
		if json.Unmarshal(line, &m) == nil {
			p.message(m)
		}
		p.held = rest
	}
	return len(text), nil
}

// message implements image.Progress.
func (p *pullTeller) message(m jsonstream.Message) {
	p.mu.Lock()
	if m.ID != "" && m.Progress != nil && m.Progress.Total > 0 && (m.Status == "Downloading" || m.Status == "Pushing") {
		p.layers[m.ID] = m.Progress
	}
	due := time.Since(p.told) >= tellEvery
	if due {
		p.told = time.Now()
	}
	p.mu.Unlock()
	if due {
		p.send("")
	}
}

func (p *pullTeller) send(message string) {
	if p.b.tell == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := solve.Event{Kind: solve.Progress, Time: time.Now(), Name: p.name, Message: message, Send: p.push}
	for _, l := range p.layers {
		e.Current, e.Total = e.Current+l.Current, e.Total+l.Total
	}
	if message == "done" {
		e.Current = e.Total
	}
	p.b.event(build.Event{Event: e})
}
