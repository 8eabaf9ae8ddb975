package transfer

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/image"
)

// Bundle is an artifact: a document, which is its manifest's config, and the
// layers and archives that the document is about. To a registry they are what an
// image's are, so that it keeps each layer once.
type Bundle struct {
	Type     string // of the document, and with that of the artifact
	Document []byte
	Parts    []Part
}

// Part is one blob of a bundle: a layer that is here, or what Write gives,
// packed.
type Part struct {
	DiffID      digest.Digest
	Write       func(ctx context.Context, w io.Writer) error
	MediaType   string // of what Write gives, packed
	Annotations map[string]string
	// Known is how the part is known to be packed, nil if it is not, and At the
	// repository that has it so.
	Known *ocispec.Descriptor
	At    string
	// Bring fetches a layer that is not here; nil: it cannot be had.
	Bring func(ctx context.Context) error
}

// Uncompressed is the annotation that has a packed layer's digest before it was
// packed.
const Uncompressed = "containerd.io/uncompressed"

// PushBundle sends a bundle to the registry that is part of ref. What the
// registry has is not sent, and the manifest comes last. It returns the
// manifest; its layers are in the order of the parts.
func (c *Client) PushBundle(ctx context.Context, ref string, b Bundle, o PushOptions) (*ocispec.Manifest, digest.Digest, error) {
	named, err := image.ParseName(ref)
	if err != nil {
		return nil, "", err
	}
	tagged, ok := named.(reference.NamedTagged)
	if _, digested := named.(reference.Digested); digested || !ok {
		return nil, "", fault.New(fault.Invalid, "push", ref, "a digest is no name to push to")
	}
	progress, end := serial(o.Progress)
	defer end()
	subject := reference.FamiliarString(named)
	s, err := c.open(ctx, reference.TrimNamed(named), actionPush, o.Auth)
	if err != nil {
		return nil, "", fault.Wrap("push", subject, err)
	}
	p := &push{c: c, session: s, o: o, progress: progress, layers: c.c.Layers.Hold(), blobs: c.c.Content.Hold(), sent: map[digest.Digest]*sending{}}
	defer p.release()
	if err := p.findLocal(ctx); err != nil {
		return nil, "", fault.Wrap("push", subject, err)
	}
	m, d, err := p.bundle(ctx, tagged, b)
	if fault.Is(err, fault.Unsupported) && p.local != nil { // it has a store of its own: send
		p.local, p.links = nil, nil
		m, d, err = p.bundle(ctx, tagged, b)
	}
	return m, d, fault.Wrap("push", subject, err)
}

func (p *push) bundle(ctx context.Context, named reference.NamedTagged, b Bundle) (*ocispec.Manifest, digest.Digest, error) {
	var all []digest.Digest
	for _, part := range b.Parts {
		if part.DiffID != "" {
			all = append(all, part.DiffID)
		}
	}
	p.layers.Add(all...)
	known, err := p.c.packings(ctx, p.session.name, &image.Image{DiffIDs: all})
	if err != nil {
		return nil, "", err
	}
	m := &ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: b.Type, Config: describe(b.Type, b.Document)}
	m.SchemaVersion = 2
	m.Layers = make([]ocispec.Descriptor, len(b.Parts))
	g, gctx := errgroup.WithContext(ctx)
	for i := range b.Parts {
		part := &b.Parts[i]
		g.Go(func() error {
			d, err := p.part(gctx, part, known[part.DiffID])
			m.Layers[i] = ocispec.Descriptor{MediaType: ociLayerType(d.MediaType), Digest: d.Digest, Size: d.Size, Annotations: part.Annotations}
			return err
		})
	}
	g.Go(func() error {
		if p.local != nil { // it is linked like the rest
			p.blobs.Add(m.Config.Digest)
			if _, err := p.c.c.Content.Ingest(gctx, bytes.NewReader(b.Document), m.Config.Digest, m.Config.Size); err != nil {
				return err
			}
		}
		return p.document(gctx, m.Config, b.Document)
	})
	if err := g.Wait(); err != nil {
		return nil, "", err
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, "", fault.New(fault.Internal, "make manifest", named.String(), "%w", err)
	}
	out := manifestOut{desc: describe(m.MediaType, raw), raw: raw}
	return m, out.desc.Digest, p.publish(ctx, named.Tag(), named.Tag(), out)
}

// part sees to it that the registry has one part.
func (p *push) part(ctx context.Context, part *Part, known []packedForm) (ocispec.Descriptor, error) {
	if part.Known != nil {
		repo := ""
		if at, err := reference.ParseNormalizedNamed(part.At); err == nil && reference.Domain(at) == reference.Domain(p.session.name) {
			repo = reference.Path(at)
		}
		known = addPacking([]packedForm{{desc: *part.Known}}, *part.Known, repo, true)
	}
	if part.DiffID == "" {
		return p.file(ctx, part)
	}
	j := layerJob{part.DiffID, known}
	for _, k := range known {
		p.blobs.Add(k.desc.Digest)
	}
	d, err := p.layer(ctx, j)
	if fault.Is(err, fault.NotFound) && part.Bring != nil && !p.c.c.Layers.Has(part.DiffID) {
		if err := part.Bring(ctx); err != nil {
			return d, err
		}
		return p.layer(ctx, j)
	}
	return d, err
}

// file packs and sends what is no layer.
func (p *push) file(ctx context.Context, part *Part) (ocispec.Descriptor, error) {
	if err := takeSlot(ctx, p.c.uploads, func() {}); err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { <-p.c.uploads }()
	if k := part.Known; k != nil && p.local == nil {
		if has, err := p.session.hasBlob(ctx, *k); err != nil || has {
			return *k, err
		}
	}
	var keep *content.Hold
	if p.local != nil {
		keep = p.blobs
	}
	done, err := p.c.packed(part.MediaType, keep, nil, func(w io.Writer) error { return gzipped(ctx, w, part.Write) })
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer done.Close()
	if p.local != nil {
		p.link(done.desc)
		return done.desc, nil
	}
	if has, err := p.session.hasBlob(ctx, done.desc); err != nil || has {
		return done.desc, err
	}
	return done.desc, p.session.sendBlob(ctx, nil, done.desc, done, func(int64) {})
}

// Packed is a blob as it is sent. It must be closed.
type Packed struct {
	ocispec.Descriptor
	io.Reader
	io.Closer
}

// Pack packs a layer as a push would. known, if not nil, is how it is known to
// be packed: such a blob is taken if it was kept. The caller holds the layer.
func (c *Client) Pack(ctx context.Context, diffID digest.Digest, known *ocispec.Descriptor) (*Packed, error) {
	if known != nil {
		if f, err := c.c.Content.Open(known.Digest); err == nil {
			return &Packed{*known, f, f}, nil
		}
	}
	return readable(c.pack(ctx, diffID, nil, nil, func(int64) {}))
}

// PackFile packs what write gives.
func (c *Client) PackFile(ctx context.Context, mediaType string, write func(context.Context, io.Writer) error) (*Packed, error) {
	return readable(c.packed(mediaType, nil, nil, func(w io.Writer) error { return gzipped(ctx, w, write) }))
}

func readable(p *packed, err error) (*Packed, error) {
	if err != nil {
		return nil, err
	}
	return &Packed{p.desc, io.NewSectionReader(p, 0, p.desc.Size), p}, nil
}

// Opened is what a name means at a registry, of which parts can be fetched.
type Opened struct {
	c *Client
	s *session

	Name     reference.Named   // without tag and digest
	Digest   digest.Digest     // of the manifest
	Manifest *ocispec.Manifest // nil: it is an index of something other than images
	Type     string            // of the artifact; "" is an image
}

// OpenManifest asks a registry what ref means. Of an image for several platforms
// it is the one for this machine, or platform.
func (c *Client) OpenManifest(ctx context.Context, ref string, platform *ocispec.Platform, auth Auth) (*Opened, error) {
	const op = "look for"
	named, err := image.ParseName(ref)
	if err != nil {
		return nil, err
	}
	subject := reference.FamiliarString(named)
	s, err := c.open(ctx, reference.TrimNamed(named), actionPull, auth)
	if err != nil {
		return nil, fault.Wrap(op, subject, err)
	}
	raw, err := s.fetchManifest(ctx, (&pull{ref: named}).version())
	if err != nil {
		return nil, fault.Wrap(op, subject, err)
	}
	if c.c.Policy != nil {
		if err := c.c.Policy.Check(ctx, named, raw.digest, source{s}); err != nil {
			return nil, err
		}
	}
	doc, err := image.ParseAny(raw.data, raw.mediaType)
	if err != nil {
		return nil, fault.Wrap(op, subject, err)
	}
	o := &Opened{c: c, s: s, Name: reference.TrimNamed(named), Digest: raw.digest, Manifest: doc.Manifest, Type: doc.ArtifactType()}
	if doc.Index == nil {
		return o, nil
	}
	for _, d := range doc.Index.Manifests {
		if !image.IsManifest(d.MediaType) && !image.IsIndex(d.MediaType) {
			o.Type = d.MediaType
			if strings.Contains(d.MediaType, "config") {
				break
			}
		}
	}
	if o.Type != "" {
		return o, nil
	}
	top, err := s.parse(raw)
	if err != nil {
		return nil, err
	}
	chain, err := s.resolve(ctx, top, platform)
	if err != nil {
		return nil, fault.Wrap(op, subject, err)
	}
	last := chain[len(chain)-1]
	o.Digest, o.Manifest = last.digest, last.Manifest
	return o, nil
}

// Document returns the manifest's config, of at most so many bytes.
func (o *Opened) Document(ctx context.Context, most int64) ([]byte, error) {
	if data, err := o.c.c.Content.Read(o.Manifest.Config.Digest, most); err == nil && int64(len(data)) == o.Manifest.Config.Size {
		return data, nil
	}
	return o.s.document(ctx, o.Manifest.Config, most)
}

// Layer brings a layer here. What comes is diffID, or nothing comes. The caller
// holds it.
func (o *Opened) Layer(ctx context.Context, d ocispec.Descriptor, diffID digest.Digest, progress image.Progress) error {
	if err := content.CheckDigest(diffID); err != nil {
		return err
	}
	return o.c.layer(ctx, o.s, d, diffID, func(r report) { progress.Transfer(shortID(d), r.status, r.current, r.total) })
}

// Blob reads a blob. What is read to the end has the digest that it should have.
func (o *Opened) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if err := content.CheckDigest(d.Digest); err != nil {
		return nil, err
	}
	if d.Size < 0 {
		return nil, fault.New(fault.Invalid, "download", d.Digest.String(), "%w: %d bytes", image.ErrSize, d.Size)
	}
	return o.s.blob(ctx, d, nil), nil
}
