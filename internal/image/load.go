package image

import (
	"context"
	"encoding/json"
	"io"
	"path"
	"reflect"
	"slices"
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
	Platforms []ocispec.Platform // of images that are there for several; none: all
	Progress  Progress
}

// Load reads a docker-archive or OCI-layout tar, plain or compressed, or one
// that is both, and records all its images in one step: when anything in it is
// wrong, no image of it appears and the space is free again.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	hold := s.layers.Hold()
	defer s.Release(hold)
	content := s.content.Hold()
	defer func() { s.collectBlobs(content.Release()) }()
	a := newArchive(s, hold, content, o)
	if err := a.read(ctx, r); err != nil {
		return nil, fault.Wrap("load images", "", err)
	}
	images, err := a.images()
	if err != nil {
		return nil, fault.Wrap("load images", "", err)
	}
	if _, err := s.Register(ctx, hold, images, o.Progress); err != nil {
		return nil, fault.Wrap("load images", "", err)
	}
	return s.loadedNames(images), nil
}

// loadedNames lists the images under their names; those of one index are the
// one that its name gives.
func (s *Store) loadedNames(images []Registration) []Loaded {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var loaded []Loaded
	seen := map[digest.Digest]bool{}
	for i := range images {
		id := images[i].id
		if x := images[i].Index; x != nil {
			d := digest.FromBytes(x.Raw)
			if seen[d] {
				continue
			}
			seen[d] = true
			if st := s.images[d]; st != nil {
				id = s.choose(st.rec, nil)
			}
		}
		for _, t := range images[i].Tags {
			loaded = append(loaded, Loaded{Ref: reference.FamiliarString(t), ID: id})
		}
		if len(images[i].Tags) == 0 {
			loaded = append(loaded, Loaded{ID: id})
		}
	}
	return loaded
}

// images finds out what the archive's documents describe.
//
// An archive that is both a docker-archive and an OCI layout says more about
// images for several platforms in the latter, and lists those without a name in
// the former.
func (a *archive) images() ([]Registration, error) {
	hasDocker, hasOCI := a.documents[dockerFile] != nil, a.documents[ocispec.ImageIndexFile] != nil
	switch {
	case hasDocker && hasOCI && a.saysMore():
		images, err := a.ociImages()
		if err != nil {
			return nil, err
		}
		more, err := a.dockerImages()
		if err != nil {
			return nil, err
		}
		return a.without(more, images), nil
	case hasDocker:
		images, err := a.dockerImages()
		if err != nil {
			return nil, err
		}
		return images, a.checkPlatforms(images)
	case hasOCI:
		return a.ociImages()
	case a.documents[legacyFile] != nil:
		images, err := a.legacyImages()
		if err != nil {
			return nil, err
		}
		return images, a.checkPlatforms(images)
	}
	return nil, fault.New(fault.Invalid, "read archive", "", "%w: it has no manifest.json, index.json or repositories", ErrArchive).
		WithHint("to make an image from the files of a root directory, use import")
}

// saysMore reports whether the OCI layout has an image for several platforms, or
// annotations, which a docker-archive has no place for.
func (a *archive) saysMore() bool {
	doc, err := ParseDocument(a.documents[ocispec.ImageIndexFile], ocispec.MediaTypeImageIndex)
	return err == nil && doc.Index != nil && slices.ContainsFunc(doc.Index.Manifests, func(d ocispec.Descriptor) bool {
		if IsIndex(d.MediaType) {
			return true
		}
		data, err := a.blob(d)
		if err != nil {
			return false
		}
		doc, err := ParseDocument(data, d.MediaType)
		return err == nil && doc.Manifest != nil && doc.Manifest.Annotations != nil
	})
}

// without appends those images of more to images that are not among them. With
// platforms wanted, what is not among them was not wanted.
func (a *archive) without(more, images []Registration) []Registration {
	have := map[digest.Digest]bool{}
	for _, r := range images {
		have[digest.FromBytes(r.Config)] = true
	}
	for _, r := range more {
		if !have[digest.FromBytes(r.Config)] && a.checkPlatforms([]Registration{r}) == nil {
			images = append(images, r)
		}
	}
	return images
}

// checkPlatforms makes sure that images are for one of the platforms wanted.
func (a *archive) checkPlatforms(images []Registration) error {
	for _, r := range images {
		config, err := ParseConfig(r.Config)
		if err != nil {
			return err
		}
		if !a.wanted(config.Platform) {
			return a.otherPlatform([]string{FormatPlatform(config.Platform)})
		}
	}
	return nil
}

// wanted reports whether an image for a platform shall be loaded.
func (a *archive) wanted(have ocispec.Platform) bool {
	return len(a.o.Platforms) == 0 || slices.ContainsFunc(a.o.Platforms, func(want ocispec.Platform) bool { return Matches(want, have) })
}

func (a *archive) otherPlatform(have []string) error {
	var want []string
	for _, p := range a.o.Platforms {
		want = append(want, FormatPlatform(p))
	}
	return fault.New(fault.NotFound, "select platform", strings.Join(want, ", "), "%w among %s", ErrPlatform, listOr(have, "no images at all")).
		WithHint("choose one with --platform")
}

// dockerManifest is an element of a docker-archive's manifest.json.
type dockerManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
	Parent   digest.Digest `json:",omitempty"` // of the images of the same archive
}

func (a *archive) dockerImages() ([]Registration, error) {
	var manifests []dockerManifest
	if err := json.Unmarshal(a.documents[dockerFile], &manifests); err != nil {
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
	return images, setParents(images, manifests)
}

// setParents makes images children of others of the archive where it says so
// and their histories agree: a child has one step more, which rules out cycles.
func setParents(images []Registration, manifests []dockerManifest) error {
	configs := map[digest.Digest]*v1.DockerOCIImage{}
	for i := range images {
		c, err := ParseConfig(images[i].Config)
		if err != nil {
			return err
		}
		configs[digest.FromBytes(images[i].Config)] = c
	}
	for i, m := range manifests {
		child, parent := configs[digest.FromBytes(images[i].Config)], configs[m.Parent]
		if parent != nil && isChild(child, parent) {
			images[i].Parent = m.Parent
		}
	}
	return nil
}

// isChild reports whether an image can have been made from another in one step.
func isChild(child, parent *v1.DockerOCIImage) bool {
	h, p := child.History, parent.History
	if len(h) != len(p)+1 || len(child.RootFS.DiffIDs) < len(parent.RootFS.DiffIDs) {
		return false
	}
	return reflect.DeepEqual(h[:len(p)], p) &&
		slices.Equal(child.RootFS.DiffIDs[:len(parent.RootFS.DiffIDs)], parent.RootFS.DiffIDs)
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
	r := Registration{Config: data, kept: map[digest.Digest]digest.Digest{}}
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
		if l.kept != "" {
			r.kept[l.diffID] = l.kept
		}
	}
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
