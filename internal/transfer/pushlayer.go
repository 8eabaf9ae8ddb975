package transfer

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/internal/image"
)

// sending is a layer on its way; the images of one push share it.
type sending struct {
	done chan struct{} // closed when the rest is set
	desc ocispec.Descriptor
	err  error
}

// layerJob is one layer of an image that is pushed.
type layerJob struct {
	diffID digest.Digest
	known  []packedForm
}

func (p *push) jobs(img *image.Image, known map[digest.Digest][]packedForm) []layerJob {
	jobs := make([]layerJob, 0, len(img.DiffIDs))
	for _, d := range img.DiffIDs {
		jobs = append(jobs, layerJob{d, known[d]})
		for _, k := range known[d] {
			p.blobs.Add(k.desc.Digest)
		}
	}
	return jobs
}

// sendAll sends layers and config at once and returns how the layers are
// packed, base first.
func (p *push) sendAll(ctx context.Context, img *image.Image, jobs []layerJob, config []byte) ([]ocispec.Descriptor, error) {
	for _, j := range slices.Backward(jobs) {
		p.progress.Transfer(shortDigest(j.diffID), "Preparing", 0, 0)
	}
	packed := make([]ocispec.Descriptor, len(jobs))
	g, ctx := errgroup.WithContext(ctx)
	for i, j := range slices.Backward(jobs) {
		g.Go(func() (err error) {
			packed[i], err = p.once(ctx, j)
			return err
		})
	}
	g.Go(func() error { return p.document(ctx, describe(ocispec.MediaTypeImageConfig, config), config) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return packed, nil
}

func shortDigest(d digest.Digest) string { return d.Encoded()[:12] }

func itoa64(n int64) string { return strconv.FormatInt(n, 10) }

// once sends a layer, or waits for whoever in this push does.
func (p *push) once(ctx context.Context, j layerJob) (ocispec.Descriptor, error) {
	p.mu.Lock()
	s, ok := p.sent[j.diffID]
	if !ok {
		s = &sending{done: make(chan struct{})}
		p.sent[j.diffID] = s
	}
	p.mu.Unlock()
	if !ok {
		s.desc, s.err = p.layer(ctx, j)
		close(s.done)
		return s.desc, s.err
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		return ocispec.Descriptor{}, ctx.Err()
	}
	if s.err == nil {
		p.progress.Transfer(shortDigest(j.diffID), "Layer already exists", 0, 0)
	}
	return s.desc, s.err
}

// layer sees to it that the registry has one layer: it has it already, it takes
// it from another of its repositories, it is sent as it is kept, or it is
// packed on the way.
func (p *push) layer(ctx context.Context, j layerJob) (ocispec.Descriptor, error) {
	id := shortDigest(j.diffID)
	slots := p.c.uploads
	if err := takeSlot(ctx, slots, func() { p.progress.Transfer(id, "Waiting", 0, 0) }); err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { <-slots }()
	if p.local != nil {
		return p.linked(ctx, j)
	}
	for _, k := range j.known[:min(len(j.known), maxPackings)] {
		has, err := p.session.hasBlob(ctx, k.desc)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if has {
			p.progress.Transfer(id, "Layer already exists", 0, 0)
			return k.desc, nil
		}
	}
	u, d, err := p.mount(ctx, j)
	if err != nil || d.Digest != "" {
		return d, err
	}
	for _, k := range j.known {
		if sent, err := p.kept(ctx, u, j, k.desc); sent || err != nil {
			return k.desc, err
		}
	}
	return p.packed(ctx, u, j)
}

// mount has the registry take the layer from another of its repositories. When
// none gives it, the upload that was begun instead is returned, or nil.
func (p *push) mount(ctx context.Context, j layerJob) (u *upload, d ocispec.Descriptor, err error) {
	left := maxMounts
	for _, k := range j.known {
		for _, repo := range k.repos {
			if repo == reference.Path(p.session.name) || left == 0 {
				continue
			}
			left--
			begun, mounted, err := p.session.begin(ctx, k.desc.Digest, repo)
			if ctx.Err() != nil {
				return nil, d, ctx.Err()
			}
			if err != nil {
				continue // it may not, or cannot: then the layer is sent
			}
			if mounted {
				p.progress.Transfer(shortDigest(j.diffID), "Mounted from "+repo, 0, 0)
				return nil, k.desc, nil
			}
			u = begun
		}
	}
	return u, d, nil
}

// kept sends a layer as it is kept in the content store, if it is.
func (p *push) kept(ctx context.Context, u *upload, j layerJob, d ocispec.Descriptor) (bool, error) {
	if info, err := p.c.c.Content.Stat(d.Digest); err != nil || info.Size != d.Size {
		return false, nil
	}
	blob, err := p.c.c.Content.Open(d.Digest)
	if err != nil {
		return false, nil
	}
	defer blob.Close()
	if err := p.session.sendBlob(ctx, u, d, blob, p.pushing(j.diffID, d.Size)); err != nil {
		return false, err
	}
	p.progress.Transfer(shortDigest(j.diffID), "Pushed", 0, 0)
	return true, nil
}

// packed packs a layer and sends it meanwhile. When the sending breaks off, the
// packing goes on, and what is missing is sent from its result.
func (p *push) packed(ctx context.Context, u *upload, j layerJob) (ocispec.Descriptor, error) {
	var err error
	if u == nil {
		if u, _, err = p.session.begin(ctx, "", ""); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	body, in := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := u.patch(ctx, body)
		body.CloseWithError(err) // the packing goes on without
		sent <- err
	}()
	l, err := p.c.c.Layers.Stat(j.diffID)
	var done *packed
	if err == nil {
		done, err = p.c.pack(ctx, j.diffID, p.keep(), in, p.pushing(j.diffID, l.Size))
	}
	in.CloseWithError(err)
	sendErr := <-sent
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer done.Close()
	return done.desc, p.settle(ctx, u, j, done, sendErr)
}

// settle ends an upload whose bytes were streamed.
func (p *push) settle(ctx context.Context, u *upload, j layerJob, done *packed, err error) error {
	if err == nil {
		err = u.put(ctx, done.desc, done.desc.Size, nil)
	}
	if err != nil && ctx.Err() == nil {
		// The registry may have taken part of it, or lost it.
		err = p.session.sendBlob(ctx, u, done.desc, done, p.pushing(j.diffID, done.desc.Size))
	}
	if err == nil {
		p.progress.Transfer(shortDigest(j.diffID), "Pushed", 0, 0)
	}
	return err
}

// linked makes sure that a layer is packed in the content store.
func (p *push) linked(ctx context.Context, j layerJob) (ocispec.Descriptor, error) {
	for _, k := range j.known {
		if info, err := p.c.c.Content.Stat(k.desc.Digest); err == nil && info.Size == k.desc.Size {
			p.progress.Transfer(shortDigest(j.diffID), "Layer already exists", 0, 0)
			p.link(k.desc)
			return k.desc, nil
		}
	}
	l, err := p.c.c.Layers.Stat(j.diffID)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	done, err := p.c.pack(ctx, j.diffID, p.keep(), nil, p.pushing(j.diffID, l.Size))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer done.Close()
	p.link(done.desc)
	p.progress.Transfer(shortDigest(j.diffID), "Pushed", 0, 0)
	return done.desc, nil
}

func (p *push) link(d ocispec.Descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links = append(p.links, d)
}

// pushing reports how much of a layer has gone, not too often.
func (p *push) pushing(diffID digest.Digest, total int64) func(n int64) {
	var shown time.Time
	return func(n int64) {
		if now := time.Now(); now.Sub(shown) >= reportEvery {
			shown = now
			p.progress.Transfer(shortDigest(diffID), "Pushing", min(n, total), total)
		}
	}
}

// document sends a small blob.
func (p *push) document(ctx context.Context, d ocispec.Descriptor, data []byte) error {
	if p.local != nil {
		p.link(d)
		return nil
	}
	has, err := p.session.hasBlob(ctx, d)
	if err != nil || has {
		return err
	}
	return p.session.sendBlob(ctx, nil, d, bytes.NewReader(data), func(int64) {})
}
