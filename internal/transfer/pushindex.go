package transfer

import (
	"context"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/image"
)

// index sends an index with everything in it. Where images of it are neither
// here nor at the registry, the one for this machine goes alone, as docker does
// it. It returns what was sent and which image or index that was.
func (p *push) index(ctx context.Context, named reference.Named, members []image.Member, raw []byte) (digest.Digest, manifestOut, error) {
	var absent []string
	for _, m := range members {
		if m.Image != nil {
			continue
		}
		has := false
		if p.local == nil {
			var err error
			if has, err = p.session.hasManifest(ctx, m.Descriptor.Digest); err != nil {
				return "", manifestOut{}, err
			}
		}
		if !has {
			absent = append(absent, image.FormatPlatform(m.Platform))
		}
	}
	if len(absent) > 0 {
		img, err := p.c.c.Images.Get(ctx, named.String())
		if err != nil {
			return "", manifestOut{}, err
		}
		p.progress.Status("", "Only the image for "+img.OS+"/"+img.Architecture+" is pushed: those for "+strings.Join(absent, ", ")+
			" are not here (pull them with --all-platforms)")
		m, err := p.image(ctx, img, entryOf(members, img))
		return img.ID, m, err
	}
	sent, err := p.members(ctx, members)
	if err != nil {
		return "", manifestOut{}, err
	}
	if top := digest.FromBytes(raw); len(members) == 1 && members[0].Descriptor.Digest == top { // a manifest, as good as an index of one
		return top, sent[top], nil
	}
	for _, m := range members {
		if out, ok := sent[m.Descriptor.Digest]; ok && out.desc.Digest != m.Descriptor.Digest {
			out, err := p.rebuilt(ctx, members, raw, sent)
			return digest.FromBytes(raw), out, err
		}
	}
	w := &indexPush{p: p, sent: sent}
	out, err := w.document(ctx, raw, "", 0)
	return digest.FromBytes(raw), out, err
}

// members sends the images of an index and returns what became of them by the
// digests in the index.
func (p *push) members(ctx context.Context, members []image.Member) (map[digest.Digest]manifestOut, error) {
	var mu sync.Mutex
	sent := map[digest.Digest]manifestOut{}
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range members {
		if m.Image == nil {
			continue
		}
		g.Go(func() error {
			out, err := p.image(ctx, m.Image, m.Descriptor.Digest)
			mu.Lock()
			defer mu.Unlock()
			sent[m.Descriptor.Digest] = out
			return err
		})
	}
	return sent, g.Wait()
}

// member puts one image's manifest to the registry, or among what is linked.
func (p *push) member(ctx context.Context, out manifestOut, inner *[]ocispec.Descriptor) error {
	if p.local != nil {
		d := out.desc
		d.Data = out.raw
		*inner = append(*inner, d)
		return nil
	}
	_, err := p.session.putManifest(ctx, out.desc.Digest.String(), out.desc.MediaType, out.raw)
	return err
}

// indexPush sends the documents of an index, from the inside out.
type indexPush struct {
	p    *push
	sent map[digest.Digest]manifestOut // images whose layers are there
	docs int
}

func (w *indexPush) document(ctx context.Context, raw []byte, mediaType string, depth int) (manifestOut, error) {
	doc, err := image.ParseDocument(raw, mediaType)
	if err != nil {
		return manifestOut{}, err
	}
	if doc.Index == nil || depth > maxNesting {
		return manifestOut{}, fault.New(fault.Invalid, "read index", "", "%w: it is none, or nested too deep", image.ErrDocument)
	}
	if mediaType = doc.Index.MediaType; mediaType == "" {
		mediaType = ocispec.MediaTypeImageIndex
	}
	out := manifestOut{desc: describe(mediaType, raw), raw: raw}
	for _, d := range doc.Index.Manifests {
		if w.docs++; w.docs > maxIndexDocuments {
			return manifestOut{}, fault.New(fault.Invalid, "read index", "", "%w: more than %d documents", image.ErrTooLarge, maxIndexDocuments)
		}
		if err := w.entry(ctx, d, depth, &out.inner); err != nil {
			return manifestOut{}, err
		}
	}
	return out, nil
}

// entry sends what one entry of an index means. What is not here is at the
// registry, or was passed over when the index was pulled and is left to it.
func (w *indexPush) entry(ctx context.Context, d ocispec.Descriptor, depth int, inner *[]ocispec.Descriptor) error {
	if out, ok := w.sent[d.Digest]; ok {
		return w.p.member(ctx, out, inner)
	}
	if !w.p.c.c.Content.Has(d.Digest) {
		return nil
	}
	raw, err := w.p.c.c.Images.Document(ctx, d.Digest)
	if err != nil {
		return err
	}
	if image.IsIndex(d.MediaType) {
		out, err := w.document(ctx, raw, d.MediaType, depth+1)
		if err != nil {
			return err
		}
		*inner = append(*inner, out.inner...)
		return w.p.member(ctx, out, inner)
	}
	blobs, err := namedBlobs(raw)
	if err != nil {
		return err
	}
	w.p.blobs.Add(d.Digest)
	for _, b := range blobs {
		if err := w.blob(ctx, b); err != nil {
			return err
		}
	}
	return w.p.member(ctx, manifestOut{desc: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: int64(len(raw))}, raw: raw}, inner)
}

func (w *indexPush) blob(ctx context.Context, d ocispec.Descriptor) error {
	p := w.p
	p.blobs.Add(d.Digest)
	if p.local != nil {
		p.link(d)
		return nil
	}
	has, err := p.session.hasBlob(ctx, d)
	if err != nil || has {
		return err
	}
	if err := content.CheckDigest(d.Digest); err != nil {
		return err
	}
	f, err := p.c.c.Content.Open(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.session.sendBlob(ctx, nil, d, f, func(int64) {})
}
