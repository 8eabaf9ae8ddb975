package image

import (
	"context"
	"encoding/json"
	"io"
	"path"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// Loaded is one image that Load brought in, under one of its names.
type Loaded struct {
	Ref string // familiar name, "" when the archive names none
	ID  digest.Digest
}

// LoadOptions steers Load.
type LoadOptions struct {
	Platform *ocispec.Platform // nil: this machine's
	Progress Progress
}

// Load reads a docker-archive or OCI-layout tar, plain or compressed, and
// records all its images in one step: when anything in it is wrong, no image
// of it appears and the space is free again.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	hold := s.layers.Hold()
	defer s.Release(hold)
	a := newArchive(s, hold, o.Progress)
	if err := a.read(ctx, r); err != nil {
		return nil, fault.Wrap("load images", "", err)
	}
	images, err := a.images(o.Platform)
	if err != nil {
		return nil, fault.Wrap("load images", "", err)
	}
	if _, err := s.Register(ctx, hold, images, o.Progress); err != nil {
		return nil, fault.Wrap("load images", "", err)
	}
	var loaded []Loaded
	for i := range images {
		for _, t := range images[i].Tags {
			loaded = append(loaded, Loaded{Ref: reference.FamiliarString(t), ID: images[i].id})
		}
		if len(images[i].Tags) == 0 {
			loaded = append(loaded, Loaded{ID: images[i].id})
		}
	}
	return loaded, nil
}

// images finds out what the archive's documents describe.
func (a *archive) images(platform *ocispec.Platform) ([]Registration, error) {
	switch {
	case a.documents["manifest.json"] != nil:
		return a.dockerImages()
	case a.documents["index.json"] != nil:
		return a.ociImages(platform)
	case a.documents["repositories"] != nil:
		return a.legacyImages()
	}
	return nil, fault.New(fault.Invalid, "read archive", "", "%w: it has no manifest.json, index.json or repositories", ErrArchive).
		WithHint("to make an image from the files of a root directory, use import")
}

// dockerManifest is an element of a docker-archive's manifest.json.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func (a *archive) dockerImages() ([]Registration, error) {
	var manifests []dockerManifest
	if err := json.Unmarshal(a.documents["manifest.json"], &manifests); err != nil {
		return nil, memberError("manifest.json", "%w: %w", ErrDocument, err)
	}
	if len(manifests) == 0 {
		return nil, memberError("manifest.json", "%w: it lists no image", ErrDocument)
	}
	var images []Registration
	for _, m := range manifests {
		r, err := a.dockerImage(m)
		if err != nil {
			return nil, err
		}
		images = append(images, r)
	}
	return images, nil
}

func (a *archive) dockerImage(m dockerManifest) (Registration, error) {
	p, err := cleanMember(m.Config)
	if err != nil {
		return Registration{}, err
	}
	data, err := a.doc(p)
	if err != nil {
		return Registration{}, err
	}
	// Where the name says what the digest is, it must be so.
	if hex := strings.TrimSuffix(path.Base(p), ".json"); len(hex) == 64 && isHex(hex) && digest.FromBytes(data).Encoded() != hex {
		return Registration{}, memberError(p, "%w: its bytes have digest %s", ErrDigest, digest.FromBytes(data))
	}
	config, err := ParseConfig(data)
	if err != nil {
		return Registration{}, fault.Wrap("load image", p, err)
	}
	if len(m.Layers) != len(config.RootFS.DiffIDs) {
		return Registration{}, memberError("manifest.json", "%w: %d layers for %d diff_ids in %s", ErrDocument, len(m.Layers), len(config.RootFS.DiffIDs), p)
	}
	for i, name := range m.Layers {
		p, err := cleanMember(name)
		if err != nil {
			return Registration{}, err
		}
		l, err := a.layer(p)
		if err != nil {
			return Registration{}, err
		}
		if err := a.verify(p, l, config, i); err != nil {
			return Registration{}, err
		}
	}
	r := Registration{Config: data}
	for _, t := range m.RepoTags {
		named, err := parseTag(t)
		if err != nil {
			return Registration{}, err
		}
		r.Tags = append(r.Tags, named)
	}
	return r, nil
}

// verify compares a layer with what the config says is in its place.
func (a *archive) verify(name string, l member, config *v1.DockerOCIImage, i int) error {
	if want := config.RootFS.DiffIDs[i]; l.diffID != want {
		return memberError(name, "%w: the config wants diff_id %s and the layer has %s", ErrDigest, want, l.diffID)
	}
	return nil
}

// parseTag reads a name that an archive gives.
func parseTag(s string) (reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, badName(s, err)
	}
	tagged, ok := named.(reference.NamedTagged)
	if _, digested := named.(reference.Digested); !ok || digested {
		return nil, fault.New(fault.Invalid, "parse reference", quoteShort(s), "invalid tag")
	}
	return tagged, nil
}

// Annotations by which an OCI layout names its images.
const (
	containerdName = "io.containerd.image.name" // the whole reference
	maxNesting     = 4                          // of indexes
)

func (a *archive) ociImages(platform *ocispec.Platform) ([]Registration, error) {
	top, err := ParseDocument(a.documents["index.json"], ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, fault.Wrap("load images", "index.json", err)
	}
	if top.Index == nil {
		return nil, memberError("index.json", "%w: it is no index", ErrDocument)
	}
	var images []Registration
	for _, d := range oneEach(top.Index.Manifests, platform) {
		r, err := a.ociImage(d, platform, 0)
		if err != nil {
			return nil, err
		}
		if r.Tags, err = ociTags(d); err != nil {
			return nil, err
		}
		images = append(images, r)
	}
	if len(images) == 0 {
		return nil, memberError("index.json", "%w: it lists no image", ErrDocument)
	}
	return images, nil
}

// oneEach returns the entries to load. Entries of the same name that differ in
// platform are one image, of which the best is taken.
func oneEach(all []ocispec.Descriptor, platform *ocispec.Platform) []ocispec.Descriptor {
	var out []ocispec.Descriptor
	groups := map[string]*ocispec.Index{}
	var order []string
	for _, d := range all {
		switch {
		case !isImage(&d):
		case d.Platform == nil || IsIndex(d.MediaType):
			out = append(out, d)
		default:
			name := d.Annotations[containerdName] + " " + d.Annotations[ocispec.AnnotationRefName]
			if groups[name] == nil {
				groups[name] = &ocispec.Index{}
				order = append(order, name)
			}
			groups[name].Manifests = append(groups[name].Manifests, d)
		}
	}
	for _, name := range order {
		g := groups[name]
		if len(g.Manifests) == 1 {
			out = append(out, g.Manifests[0]) // the only one: wanted, whatever it is for
		} else if d, err := Select(g, platform); err == nil {
			out = append(out, d)
		} else {
			out = append(out, g.Manifests...) // lets the error name what is there
		}
	}
	return out
}

// ociTags reads an image's name from its annotations. A ref.name is often only
// a tag, which names nothing.
func ociTags(d ocispec.Descriptor) ([]reference.NamedTagged, error) {
	name := d.Annotations[containerdName]
	if ref := d.Annotations[ocispec.AnnotationRefName]; name == "" && strings.ContainsAny(ref, ":/") {
		name = ref
	}
	if name == "" {
		return nil, nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, badName(name, err)
	}
	if tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged); ok {
		return []reference.NamedTagged{tagged}, nil
	}
	return nil, nil
}

// ociImage follows a descriptor, through indexes, to one image.
func (a *archive) ociImage(d ocispec.Descriptor, platform *ocispec.Platform, depth int) (Registration, error) {
	if depth > maxNesting {
		return Registration{}, memberError("index.json", "%w: indexes nested more than %d deep", ErrDocument, maxNesting)
	}
	data, err := a.blob(d)
	if err != nil {
		return Registration{}, err
	}
	doc, err := ParseDocument(data, d.MediaType)
	if err != nil {
		return Registration{}, fault.Wrap("load image", d.Digest.String(), err)
	}
	if doc.Index != nil {
		next, err := Select(doc.Index, platform)
		if err != nil {
			return Registration{}, fault.Wrap("load image", d.Digest.String(), err)
		}
		return a.ociImage(next, platform, depth+1)
	}
	config, err := a.blob(doc.Manifest.Config)
	if err != nil {
		return Registration{}, err
	}
	parsed, err := ParseConfig(config)
	if err != nil {
		return Registration{}, fault.Wrap("load image", doc.Manifest.Config.Digest.String(), err)
	}
	if len(doc.Manifest.Layers) != len(parsed.RootFS.DiffIDs) {
		return Registration{}, memberError(blobs+d.Digest.Encoded(), "%w: %d layers for %d diff_ids in the config", ErrDocument, len(doc.Manifest.Layers), len(parsed.RootFS.DiffIDs))
	}
	for i, desc := range doc.Manifest.Layers {
		p := blobs + desc.Digest.Encoded()
		l, err := a.layer(p)
		if err != nil {
			return Registration{}, err
		}
		if l.blob != desc.Digest {
			return Registration{}, memberError(p, "%w: its bytes have digest %s", ErrDigest, l.blob)
		}
		if l.size != desc.Size {
			return Registration{}, memberError(p, "%w: %d bytes, the manifest says %d", ErrSize, l.size, desc.Size)
		}
		if err := a.verify(p, l, parsed, i); err != nil {
			return Registration{}, err
		}
	}
	return Registration{Config: config, Manifests: [][]byte{data}}, nil
}

// blob returns the document that a descriptor names.
func (a *archive) blob(d ocispec.Descriptor) ([]byte, error) {
	p := blobs + d.Digest.Encoded()
	data, err := a.doc(p)
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != d.Size {
		return nil, memberError(p, "%w: %d bytes, its descriptor says %d", ErrSize, len(data), d.Size)
	}
	if digest.FromBytes(data) != d.Digest { // it may have come by a link
		return nil, memberError(p, "%w: its bytes have digest %s", ErrDigest, digest.FromBytes(data))
	}
	return data, nil
}
