package image

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/metadata"
)

var records = metadata.NewBucket[record]("images")

// record is what the database holds about an image, or about an index of images
// for several platforms. References are canonical
// ("docker.io/library/busybox:latest"). A record in memory is never changed,
// only replaced.
type record struct {
	ID         digest.Digest // of the image's config, or of the index
	Tags       []string      `json:",omitempty"`
	Digests    []string      `json:",omitempty"`
	DiffIDs    []digest.Digest
	Size       int64
	Created    time.Time
	LastTagged time.Time
	OS         string
	Arch       string
	Variant    string        `json:",omitempty"`
	Parent     digest.Digest `json:",omitempty"`
	// Manifests are the manifests and indexes kept for the image; Packed are
	// the layers as they came, base first, for pushing them again. Those of
	// Packed that are in the content store stay there as long as the record.
	Manifests []digest.Digest      `json:",omitempty"`
	Packed    []ocispec.Descriptor `json:",omitempty"`
	// Kept says from which blob a layer is read whose tree is not enough to
	// write its tar again.
	Kept map[digest.Digest]digest.Digest `json:",omitempty"`
	// Members makes the record one of an index, whose names are the record's.
	// Blobs are what else of it is kept: attestations and what they name.
	Members []indexEntry    `json:",omitempty"`
	Blobs   []digest.Digest `json:",omitempty"`
	// Annotations are those of the descriptor by which an archive names the index.
	Annotations map[string]string `json:",omitempty"`
}

// indexEntry is an image in an index. Image is "" when it is not here.
type indexEntry struct {
	Descriptor ocispec.Descriptor
	Image      digest.Digest `json:",omitempty"`
}

func (r *record) isIndex() bool { return r.Members != nil }

// clone returns a record whose lists can be changed.
func (r *record) clone() *record {
	c := *r
	c.Tags = slices.Clone(r.Tags)
	c.Digests = slices.Clone(r.Digests)
	c.Manifests = slices.Clone(r.Manifests)
	c.Members = slices.Clone(r.Members)
	c.Blobs = slices.Clone(r.Blobs)
	c.Annotations = maps.Clone(r.Annotations)
	if r.Kept != nil {
		c.Kept = map[digest.Digest]digest.Digest{}
		for k, v := range r.Kept {
			c.Kept[k] = v
		}
	}
	return &c
}

// blobs returns the content that the record keeps; of Packed only some is
// there.
func (r *record) blobs() []digest.Digest {
	all := make([]digest.Digest, 0, 1+len(r.Manifests)+len(r.Packed)+len(r.Kept)+len(r.Blobs))
	all = append(append(append(all, r.ID), r.Manifests...), r.Blobs...)
	for _, p := range r.Packed {
		all = append(all, p.Digest)
	}
	for _, b := range r.Kept {
		all = append(all, b)
	}
	return all
}

// sources calls fn with each layer and a blob that it can be read from.
func (r *record) sources(fn func(diffID, blob digest.Digest)) {
	for d, b := range r.Kept {
		fn(d, b)
	}
	if len(r.Packed) == len(r.DiffIDs) {
		for i, p := range r.Packed {
			fn(r.DiffIDs[i], p.Digest)
		}
	}
}

// names returns how many tags and digests name the record.
func (r *record) names() int { return len(r.Tags) + len(r.Digests) }

// platform is what the record says the image is for.
func (r *record) platform() ocispec.Platform {
	return ocispec.Platform{OS: r.OS, Architecture: r.Arch, Variant: r.Variant}
}

// hasName reports whether a tag or digest of the record is in the repository.
func (r *record) hasName(repository string) bool {
	for _, t := range r.Tags {
		if name, _ := cutTag(t); name == repository {
			return true
		}
	}
	for _, d := range r.Digests {
		if name, _, _ := strings.Cut(d, "@"); name == repository {
			return true
		}
	}
	return false
}

// image builds the snapshot for callers.
func (r *record) image(config *v1.DockerOCIImage, names []*record) *Image {
	i := &Image{
		ID: r.ID, Config: *config, DiffIDs: r.DiffIDs, Parent: r.Parent, Size: r.Size,
		Created: r.Created, OS: r.OS, Architecture: r.Arch, Variant: r.Variant,
	}
	var tags, digests []string
	for _, n := range names {
		tags = append(tags, n.Tags...)
		digests = append(digests, n.Digests...)
		if n.LastTagged.After(i.LastTagged) {
			i.LastTagged = n.LastTagged
		}
		if n.isIndex() {
			i.Index = n.ID
		}
	}
	i.RepoTags, i.RepoDigests = familiar(tags), familiar(digests)
	return i
}
