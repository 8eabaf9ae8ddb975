package transfer

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/fault"
	"berth/internal/image"
	"berth/internal/layer"
)

// PushOptions steer one Push.
type PushOptions struct {
	Platform *ocispec.Platform // of an image of several: only this one; nil: all
	AllTags  bool              // every tag of the repository that is here; the reference has none then
	Auth     Auth
	Progress image.Progress
	// Pushed, when set, is told of each name when it is at the registry.
	Pushed func(named reference.Named, d digest.Digest)
}

// LocalRegistry is this engine's own registry, which has the engine's content
// store: what is there needs not be sent.
type LocalRegistry interface {
	// Link makes blobs and manifests that are in the content store a
	// repository's. fault.Unsupported means that they must be sent after all.
	Link(ctx context.Context, repo, tag string, manifests, blobs []ocispec.Descriptor) error
}

// PushResult is sent, as the message's aux, when a tag is at the registry.
type PushResult struct {
	Tag    string
	Digest string
	Size   int
}

// Push sends what ref names (name[:tag] or name@digest) to the registry that is
// part of its name, and returns the digest of the manifest or index there. Only
// what the registry lacks is sent. The manifest comes last: a push that fails
// changes nothing that others see, and the next goes on from what has come.
func (c *Client) Push(ctx context.Context, ref string, o PushOptions) (digest.Digest, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		_, err = image.ParseName(ref) // in its words
		return "", err
	}
	subject := reference.FamiliarString(named)
	if o.AllTags && !reference.IsNameOnly(named) {
		return "", fault.New(fault.Invalid, "push", subject, "tag can't be used with --all-tags/-a")
	}
	progress, end := serial(o.Progress)
	defer end()
	s, err := c.open(ctx, reference.TrimNamed(named), actionPush, o.Auth)
	if err != nil {
		return "", fault.Wrap("push", subject, err)
	}
	s.notify = func(status string) { progress.Status("", status) }
	names, err := c.pushNames(ctx, named, o.AllTags)
	if err != nil {
		return "", err
	}
	progress.Status("", "The push refers to repository ["+named.Name()+"]")
	p := &push{c: c, session: s, o: o, progress: progress, layers: c.c.Layers.Hold(), blobs: c.c.Content.Hold(), sent: map[digest.Digest]*sending{}}
	defer p.release()
	if err := p.findLocal(ctx); err != nil {
		return "", fault.Wrap("push", subject, err)
	}
	var last digest.Digest
	for _, name := range names {
		last, err = p.name(ctx, name)
		if fault.Is(err, fault.Unsupported) && p.local != nil { // it has a store of its own: send
			p.local, p.sent, p.links = nil, map[digest.Digest]*sending{}, nil
			last, err = p.name(ctx, name)
		}
		if err != nil {
			return "", fault.Wrap("push", reference.FamiliarString(name), err)
		}
		if o.Pushed != nil {
			o.Pushed(name, last)
		}
	}
	return last, nil
}

// pushNames lists what is to be pushed, and refuses what is not here in
// docker's words.
func (c *Client) pushNames(ctx context.Context, named reference.Named, all bool) ([]reference.Named, error) {
	images, err := c.c.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	var tags []string
	known := false
	for _, img := range images {
		for _, t := range img.RepoTags {
			if other, err := reference.ParseNormalizedNamed(t); err == nil && other.Name() == named.Name() {
				tags = append(tags, other.String())
			}
		}
		known = known || slices.ContainsFunc(img.RepoDigests, func(d string) bool {
			other, err := reference.ParseNormalizedNamed(d)
			return err == nil && other.Name() == named.Name()
		})
	}
	if !all {
		named = reference.TagNameOnly(named)
		_, err := c.c.Images.Get(ctx, named.String())
		if fault.Is(err, fault.NotFound) {
			if len(tags) == 0 && !known {
				return nil, fault.New(fault.NotFound, "", "", "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
			}
			return nil, fault.New(fault.NotFound, "", "", "tag does not exist: %s", reference.FamiliarString(named))
		}
		return []reference.Named{named}, err
	}
	if len(tags) == 0 {
		return nil, fault.New(fault.NotFound, "", "", "An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	slices.Sort(tags)
	var names []reference.Named
	for _, t := range slices.Compact(tags) {
		other, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			return nil, fault.New(fault.Internal, "push", t, "%w", err)
		}
		names = append(names, other)
	}
	return names, nil
}

// push is one Push under way.
type push struct {
	c        *Client
	session  *session
	o        PushOptions
	progress image.Progress
	local    LocalRegistry // nil: it is sent
	layers   *layer.Hold
	blobs    *content.Hold

	mu   sync.Mutex // guards sent
	sent map[digest.Digest]*sending

	// What goes to a local registry together with the manifest; guarded by mu.
	links []ocispec.Descriptor
}

// keep is where a layer that is packed is held; nil: it is not kept.
func (p *push) keep() *content.Hold {
	if p.c.c.KeepBlobs || p.local != nil {
		return p.blobs
	}
	return nil
}

// release lets go of what the push held.
func (p *push) release() {
	p.c.c.Images.Release(p.layers)
	_, _ = p.c.c.Content.Collect(p.blobs.Release()...)
}

// findLocal finds out whether the registry is this engine's own, and whether
// the caller may push there: what is linked is not asked for a password, so the
// registry is asked to begin an upload.
func (p *push) findLocal(ctx context.Context) error {
	if p.c.c.Local == nil {
		return nil
	}
	local := p.c.c.Local(p.session.origin().host)
	if local == nil {
		return nil
	}
	u, _, err := p.session.begin(ctx, "", "")
	if err != nil {
		return err
	}
	u.cancel(ctx)
	p.local = local
	return nil
}

// name pushes what one name means.
func (p *push) name(ctx context.Context, named reference.Named) (digest.Digest, error) {
	members, index, err := p.c.c.Images.Members(ctx, named.String())
	if err != nil {
		return "", err
	}
	var m manifestOut
	var id digest.Digest
	switch {
	case index == nil:
		if want := p.o.Platform; want != nil && !image.Matches(*want, members[0].Platform) {
			return "", fault.New(fault.NotFound, "select platform", image.FormatPlatform(*want), "%w: the image is for %s",
				image.ErrPlatform, image.FormatPlatform(members[0].Platform))
		}
		id = members[0].Image.ID
		m, err = p.image(ctx, members[0].Image, "")
	case p.o.Platform != nil:
		var img *image.Image
		if img, err = p.c.c.Images.GetPlatform(ctx, named.String(), p.o.Platform); err == nil {
			id = img.ID
			m, err = p.image(ctx, img, entryOf(members, img))
		}
	default:
		id, m, err = p.index(ctx, named, members, index)
	}
	if err != nil {
		return "", err
	}
	return m.desc.Digest, p.finish(ctx, named, id, m)
}

// manifestOut is a manifest or index whose parts are at the registry.
type manifestOut struct {
	desc   ocispec.Descriptor
	raw    []byte
	packed []ocispec.Descriptor // an image's layers as they were sent
	inner  []ocispec.Descriptor // what is to be linked before it
	docs   [][]byte             // of an index that was made for the push: what else it consists of
}

// entryOf is by which manifest an index has an image.
func entryOf(members []image.Member, img *image.Image) digest.Digest {
	for _, m := range members {
		if m.Image != nil && m.Image.ID == img.ID {
			return m.Descriptor.Digest
		}
	}
	return ""
}

// finish gives the manifest its name at the registry and remembers that.
func (p *push) finish(ctx context.Context, named reference.Named, id digest.Digest, m manifestOut) error {
	ref, tag := m.desc.Digest.String(), ""
	switch n := named.(type) {
	case reference.Digested:
		if n.Digest() != m.desc.Digest {
			return fault.New(fault.Unsupported, "", "", "the layers were not kept as they came, and packed again the manifest is %s", m.desc.Digest).
				WithHint("push it by tag")
		}
	case reference.Tagged:
		tag = n.Tag()
		ref = tag
	}
	if err := p.publish(ctx, ref, tag, m); err != nil {
		return err
	}
	canonical, err := reference.WithDigest(reference.TrimNamed(named), m.desc.Digest)
	if err != nil {
		return fault.New(fault.Internal, "name image", named.String(), "%w", err)
	}
	if err := p.c.c.Images.Pushed(ctx, id, m.packed, m.raw, canonical, m.docs...); err != nil && !fault.Is(err, fault.NotFound) {
		return err // an image that was removed meanwhile needs not know
	}
	if tag == "" {
		tag = m.desc.Digest.String()
	}
	p.progress.Status("", tag+": digest: "+m.desc.Digest.String()+" size: "+itoa64(m.desc.Size))
	p.aux(PushResult{Tag: tag, Digest: m.desc.Digest.String(), Size: int(m.desc.Size)})
	return nil
}

func (p *push) aux(v any) {
	if p.progress == nil {
		return
	}
	if data, err := json.Marshal(v); err == nil {
		p.progress(jsonstream.Message{Progress: &jsonstream.Progress{}, Aux: (*json.RawMessage)(&data)})
	}
}

// publish sends the manifest, or has everything linked.
func (p *push) publish(ctx context.Context, ref, tag string, m manifestOut) error {
	if p.local == nil {
		_, err := p.session.putManifest(ctx, ref, m.desc.MediaType, m.raw)
		return err
	}
	top := m.desc
	top.Data = m.raw
	p.mu.Lock()
	links := slices.Clone(p.links)
	p.mu.Unlock()
	return p.local.Link(ctx, reference.Path(p.session.name), tag, append(m.inner, top), links)
}

// image sends an image's layers and config and makes its manifest. entry is the
// manifest by which an index has it, or "": its annotations stay.
func (p *push) image(ctx context.Context, img *image.Image, entry digest.Digest) (manifestOut, error) {
	p.layers.Add(img.DiffIDs...)
	p.blobs.Add(img.ID)
	config, err := p.c.c.Images.Document(ctx, img.ID)
	if err != nil {
		return manifestOut{}, err
	}
	known, err := p.c.packings(ctx, p.session.name, img)
	if err != nil {
		return manifestOut{}, err
	}
	jobs := p.jobs(img, known)
	packed, err := p.sendAll(ctx, img, jobs, config)
	if err != nil {
		return manifestOut{}, err
	}
	return p.manifestFor(ctx, img, config, packed, p.annotations(ctx, img, entry))
}

// annotations are those of the manifest by which an index has an image, or of the
// one that the image last came or went with.
func (p *push) annotations(ctx context.Context, img *image.Image, entry digest.Digest) map[string]string {
	raw, err := p.c.c.Images.Document(ctx, entry)
	if entry == "" {
		raw, err = p.c.c.Images.Manifest(ctx, img.ID)
	}
	if err != nil {
		return nil
	}
	doc, err := image.ParseDocument(raw, "")
	if err != nil || doc.Manifest == nil {
		return nil
	}
	return doc.Manifest.Annotations
}

// manifestFor returns the manifest that the image has already if it names just
// these blobs and has the annotations, and else makes one.
func (p *push) manifestFor(ctx context.Context, img *image.Image, config []byte, packed []ocispec.Descriptor, annotations map[string]string) (manifestOut, error) {
	for _, raw := range p.c.manifestsOf(ctx, img) {
		doc, err := image.ParseDocument(raw, "")
		if err != nil || doc.Manifest == nil {
			continue
		}
		same := slices.EqualFunc(doc.Manifest.Layers, packed, func(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest && a.Size == b.Size })
		same = same && maps.Equal(annotations, doc.Manifest.Annotations)
		if same && doc.Manifest.Config.Digest == img.ID {
			mediaType := doc.Manifest.MediaType
			if mediaType == "" {
				mediaType = ocispec.MediaTypeImageManifest
			}
			return manifestOut{desc: describe(mediaType, raw), raw: raw, packed: doc.Manifest.Layers}, nil
		}
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: describe(ocispec.MediaTypeImageConfig, config), Annotations: annotations}
	m.SchemaVersion = 2
	m.Layers = make([]ocispec.Descriptor, 0, len(packed))
	for _, d := range packed {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ociLayerType(d.MediaType), Digest: d.Digest, Size: d.Size})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return manifestOut{}, fault.New(fault.Internal, "make manifest", img.ID.String(), "%w", err)
	}
	return manifestOut{desc: describe(m.MediaType, raw), raw: raw, packed: m.Layers}, nil
}

// ociLayerType is what OCI calls a layer of docker's types, which has the same
// bytes.
func ociLayerType(mediaType string) string {
	switch mediaType {
	case image.DockerLayer:
		return ocispec.MediaTypeImageLayer
	case image.DockerLayerGzip:
		return ocispec.MediaTypeImageLayerGzip
	case image.DockerLayerZstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return mediaType
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}
