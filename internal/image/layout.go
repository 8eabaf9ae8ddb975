package image

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/fault"
)

// Annotations by which an OCI layout names its images.
const (
	containerdName = "io.containerd.image.name" // the whole reference
	maxNesting     = 4                          // of indexes
)

func (a *archive) ociImages() ([]Registration, error) {
	top, err := ParseDocument(a.documents[ocispec.ImageIndexFile], ocispec.MediaTypeImageIndex)
	if err != nil {
		return nil, fault.Wrap("load images", ocispec.ImageIndexFile, err)
	}
	if top.Index == nil {
		return nil, memberError(ocispec.ImageIndexFile, "%w: it is no index", ErrDocument)
	}
	var images []Registration
	for _, d := range a.oneEach(top.Index.Manifests) {
		tags, err := ociTags(d)
		if err != nil {
			return nil, err
		}
		more, err := a.ociEntry(d)
		if err != nil {
			return nil, err
		}
		for i := range more {
			more[i].Tags = tags
		}
		images = append(images, more...)
	}
	if len(images) == 0 {
		return nil, memberError(ocispec.ImageIndexFile, "%w: it lists no image", ErrDocument)
	}
	return images, nil
}

// oneEach returns the entries to load. Entries of the same name that differ in
// platform are one image, of which the best for this machine, or for each
// platform that is wanted, is taken.
func (a *archive) oneEach(all []ocispec.Descriptor) []ocispec.Descriptor {
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
			continue
		}
		wanted := []*ocispec.Platform{nil}
		if len(a.o.Platforms) > 0 {
			wanted = nil
		}
		for i := range a.o.Platforms {
			wanted = append(wanted, &a.o.Platforms[i])
		}
		found := 0
		for _, p := range wanted {
			if d, err := Select(g, p); err == nil {
				out = append(out, d)
				found++
			}
		}
		if found == 0 {
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

// ociEntry reads what an entry of the layout's index stands for: one image, or
// those of an index that are in the archive.
func (a *archive) ociEntry(d ocispec.Descriptor) ([]Registration, error) {
	data, err := a.blob(d)
	if err != nil {
		return nil, err
	}
	doc, err := ParseDocument(data, d.MediaType)
	if err != nil {
		return nil, fault.Wrap("load image", d.Digest.String(), err)
	}
	if doc.Index != nil {
		return a.ociIndex(d, data)
	}
	r, err := a.ociImage(d.Digest, doc.Manifest, data)
	if err != nil {
		return nil, err
	}
	if doc.Manifest.Annotations != nil {
		r.Index = &IndexMembership{Raw: data, Manifest: d.Digest, Annotations: ownAnnotations(d)}
		r.leaveManifest(doc.Manifest)
	}
	images := []Registration{r}
	return images, a.checkPlatforms(images)
}

// ociIndex reads the images of an index.
func (a *archive) ociIndex(d ocispec.Descriptor, raw []byte) ([]Registration, error) {
	var documents [][]byte
	err := a.indexDocuments(raw, d.MediaType, 0, map[digest.Digest]bool{}, &documents)
	if err != nil {
		return nil, fault.Wrap("load image", d.Digest.String(), err)
	}
	members, err := parseMembers(raw, documents)
	if err != nil {
		return nil, fault.Wrap("load image", d.Digest.String(), err)
	}
	var images []Registration
	var have []string
	var missing error
	for _, m := range members {
		platform := memberPlatform(m, nil)
		if m.Descriptor.Platform != nil {
			have = append(have, FormatPlatform(platform))
			if platform.OS != "linux" || !a.wanted(platform) {
				continue
			}
		}
		data, err := a.blob(m.Descriptor)
		if errors.Is(err, ErrMissing) {
			missing = err // not every platform is in every archive
			continue
		}
		if err != nil {
			return nil, err
		}
		doc, err := ParseDocument(data, m.Descriptor.MediaType)
		if err == nil && doc.Manifest == nil {
			err = badDocument("manifest", "%w: it is an index", ErrDocument)
		}
		if err != nil {
			return nil, fault.Wrap("load image", m.Descriptor.Digest.String(), err)
		}
		r, err := a.ociImage(m.Descriptor.Digest, doc.Manifest, data)
		if err != nil {
			return nil, err
		}
		r.Index = &IndexMembership{Raw: raw, Manifest: m.Descriptor.Digest, Documents: documents, Annotations: ownAnnotations(d)}
		r.leaveManifest(doc.Manifest)
		images = append(images, r)
	}
	switch len(images) {
	case 0:
		if missing != nil {
			return nil, missing
		}
		return nil, a.otherPlatform(have)
	case 1:
		if len(members) > 1 || len(documents) == 0 {
			images[0].Index = nil // one image is just that
		}
	}
	return images, nil
}

// leaveManifest leaves the manifest of an image to its index if it is of the kind
// that is made here: so its annotations are not those of the image's other names.
func (r *Registration) leaveManifest(m *ocispec.Manifest) {
	if config, err := ParseConfig(r.Config); err == nil && IsUnpacked(m, config.RootFS.DiffIDs) {
		r.Index.Documents = append(slices.Clone(r.Index.Documents), r.Manifests...)
		r.Manifests = nil
	}
}

// ownAnnotations are those of a layout's entry that do not name it.
func ownAnnotations(d ocispec.Descriptor) map[string]string {
	own := maps.Clone(d.Annotations)
	delete(own, containerdName)
	delete(own, ocispec.AnnotationRefName)
	if len(own) == 0 {
		return nil
	}
	return own
}

// indexDocuments gathers, each once, what else of an index is in the archive:
// indexes within it, and attestations with what they name.
func (a *archive) indexDocuments(raw []byte, mediaType string, depth int, seen map[digest.Digest]bool, all *[][]byte) error {
	doc, err := ParseAny(raw, mediaType)
	if err != nil || depth > maxNesting {
		return err // too deep: whoever reads the members says so
	}
	add := func(d ocispec.Descriptor) []byte {
		data, err := a.blob(d)
		if err != nil || seen[d.Digest] {
			return nil
		}
		seen[d.Digest] = true
		*all = append(*all, data)
		return data
	}
	if m := doc.Manifest; m != nil {
		for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			add(d)
		}
		return nil
	}
	for _, d := range doc.Index.Manifests {
		if isImage(&d) && !IsIndex(d.MediaType) {
			continue
		}
		if data := add(d); data != nil {
			// What is no document of a kind that is known is kept as it is.
			if err := a.indexDocuments(data, d.MediaType, depth+1, seen, all); err != nil && IsIndex(d.MediaType) {
				return err
			}
		}
	}
	return nil
}

// ociImage reads the image of a manifest.
func (a *archive) ociImage(d digest.Digest, m *ocispec.Manifest, data []byte) (Registration, error) {
	config, err := a.blob(m.Config)
	if err != nil {
		return Registration{}, err
	}
	parsed, err := ParseConfig(config)
	if err != nil {
		return Registration{}, fault.Wrap("load image", m.Config.Digest.String(), err)
	}
	if len(m.Layers) != len(parsed.RootFS.DiffIDs) {
		return Registration{}, memberError(blobs+d.Encoded(), "%w: %d layers for %d diff_ids in the config", ErrDocument, len(m.Layers), len(parsed.RootFS.DiffIDs))
	}
	r := Registration{Config: config, Manifests: [][]byte{data}, kept: map[digest.Digest]digest.Digest{}}
	for i, desc := range m.Layers {
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
		if l.kept != "" {
			r.kept[l.diffID] = l.kept
		}
	}
	return r, nil
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
