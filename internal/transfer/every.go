package transfer

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/image"
)

// Bounds on what belongs to an index beside its images.
const (
	maxAttestation      = 64 << 20 // bytes of one blob
	maxAttestationBlobs = 64       // of one manifest
	maxIndexDocuments   = 1000
)

// attestationType marks entries of an index that are about an image and are
// none themselves.
const attestationType = "vnd.docker.reference.type"

// every finds all images of an index and fetches what else belongs to it. What
// is for another system is passed over.
func (p *pull) every(ctx context.Context, top *document, k *keeper) ([]part, error) {
	w := &walk{p: p, k: k}
	if err := w.index(ctx, top, []*document{top}); err != nil {
		return nil, err
	}
	var parts []part
	for _, one := range w.found {
		if one != nil {
			parts = append(parts, *one)
		}
	}
	if len(parts) == 0 {
		return nil, fault.New(fault.NotFound, fetchOp, p.session.subject(), "%w: the index holds no image for Linux", image.ErrPlatform)
	}
	member := image.IndexMembership{Raw: top.raw, Documents: w.documents, Blobs: w.blobs}
	for i := range parts {
		own := member
		own.Manifest = parts[i].chain[len(parts[i].chain)-1].digest
		parts[i].index = &own
	}
	return parts, nil
}

// walk goes through an index and the indexes in it.
type walk struct {
	p *pull
	k *keeper

	mu        sync.Mutex // guards what follows
	found     []*part    // in the index' order; nil: passed over
	documents [][]byte
	blobs     []digest.Digest
}

func (w *walk) index(ctx context.Context, doc *document, chain []*document) error {
	if len(chain) > maxNesting+1 {
		return fault.New(fault.Invalid, fetchOp, w.p.session.subject(), "%w: indexes nested more than %d deep", image.ErrDocument, maxNesting)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cap(w.p.c.slots))
	var inner []ocispec.Descriptor
	for _, d := range doc.Index.Manifests {
		switch {
		case d.Annotations[attestationType] != "" || d.Platform != nil && d.Platform.OS == "unknown":
			g.Go(func() error { return w.attestation(ctx, d) })
		case image.IsIndex(d.MediaType):
			inner = append(inner, d)
		case d.MediaType == "" || image.IsManifest(d.MediaType):
			slot := w.slot()
			g.Go(func() error { return w.image(ctx, d, chain, slot) })
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, d := range inner {
		next, err := w.p.session.byDigest(ctx, d)
		if err != nil {
			return err
		}
		if next.Index == nil {
			return fault.New(fault.Invalid, fetchOp, w.p.session.subject(), "%w: %s is no index", image.ErrDocument, d.Digest)
		}
		if err := w.keep(next.raw); err != nil {
			return err
		}
		if err := w.index(ctx, next, append(chain[:len(chain):len(chain)], next)); err != nil {
			return err
		}
	}
	return nil
}

// slot reserves the place of an image.
func (w *walk) slot() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found = append(w.found, nil)
	return len(w.found) - 1
}

func (w *walk) keep(doc []byte, blobs ...digest.Digest) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.documents = append(w.documents, doc)
	w.blobs = append(w.blobs, blobs...)
	if len(w.documents) > maxIndexDocuments {
		return fault.New(fault.Invalid, fetchOp, w.p.session.subject(), "%w: the index has more than %d documents", image.ErrTooLarge, maxIndexDocuments)
	}
	return nil
}

// image reads one image's manifest and config.
func (w *walk) image(ctx context.Context, d ocispec.Descriptor, chain []*document, slot int) error {
	if d.Platform != nil && d.Platform.OS != "" && d.Platform.OS != "linux" {
		w.p.progress.Status("", image.FormatPlatform(*d.Platform)+" is passed over: it is not for Linux")
		return nil
	}
	doc, err := w.p.session.byDigest(ctx, d)
	if err != nil {
		return err
	}
	if doc.Manifest == nil {
		return fault.New(fault.Invalid, fetchOp, w.p.session.subject(), "%w: %s is no manifest", image.ErrDocument, d.Digest)
	}
	one, err := w.p.read(ctx, append(chain[:len(chain):len(chain)], doc))
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.found[slot] = &one
	return nil
}

// attestation fetches a manifest that is about an image, and what it names.
func (w *walk) attestation(ctx context.Context, d ocispec.Descriptor) error {
	s := w.p.session
	data, err := w.p.c.c.Content.Read(d.Digest, image.MaxManifest)
	if err != nil {
		m, err := s.fetchManifest(ctx, d.Digest.String())
		if err != nil {
			return err
		}
		data = m.data
	}
	blobs, err := namedBlobs(data)
	if err != nil {
		return fault.Wrap(fetchOp, s.subject(), err)
	}
	var digests []digest.Digest
	for _, b := range blobs {
		digests = append(digests, b.Digest)
		w.k.blobs.Add(b.Digest)
		if w.p.c.c.Content.Has(b.Digest) {
			continue
		}
		r := s.blob(ctx, b, nil)
		_, err := w.p.c.c.Content.Ingest(ctx, r, b.Digest, b.Size)
		r.Close()
		if err != nil {
			return err
		}
	}
	return w.keep(data, digests...)
}

// namedBlobs lists what a manifest of any kind names.
func namedBlobs(data []byte) ([]ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fault.New(fault.Invalid, "read manifest", "", "%w: %w", image.ErrDocument, err)
	}
	blobs := m.Layers
	if m.Config.Digest != "" {
		blobs = append(blobs, m.Config)
	}
	if len(blobs) > maxAttestationBlobs {
		return nil, fault.New(fault.Invalid, "read manifest", "", "%w: %d blobs", image.ErrTooLarge, len(blobs))
	}
	for _, b := range blobs {
		if err := content.CheckDigest(b.Digest); err != nil {
			return nil, err
		}
		if b.Size < 0 || b.Size > maxAttestation {
			return nil, fault.New(fault.Invalid, "read manifest", b.Digest.String(), "%w: %d bytes", image.ErrTooLarge, b.Size)
		}
	}
	return blobs, nil
}
