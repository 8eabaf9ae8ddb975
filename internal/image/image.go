// Package image knows which images there are: their configs, names, layers and
// who may remove them. It exists so that docker's rules about references, tags
// and removal are in one place and survive a crash at any instant.
package image

import (
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image. It is a snapshot that callers must not modify.
type Image struct {
	ID           digest.Digest     // digest of the config
	Config       v1.DockerOCIImage // the whole config document; Config.Config is what containers inherit
	DiffIDs      []digest.Digest   // base first
	RepoTags     []string          // familiar form, sorted: "busybox:latest"
	RepoDigests  []string          // familiar form, sorted: "busybox@sha256:..."
	Parent       digest.Digest     // "" unless made here from another image
	Size         int64             // bytes of all layers' files
	Created      time.Time         // zero when the config has none
	LastTagged   time.Time         // zero when never tagged here
	Architecture string
	OS           string
	Variant      string
}

// Dangling reports whether no tag names the image.
func (i *Image) Dangling() bool { return len(i.RepoTags) == 0 }

// Progress receives messages as docker's JSON stream has them. It may be nil.
// It is never called concurrently.
type Progress func(jsonstream.Message)

// Status sends a line of text about the thing called id, which may be "".
func (p Progress) Status(id, text string) {
	if p != nil {
		p(jsonstream.Message{ID: id, Status: text})
	}
}

// record is what the database holds about an image. References are canonical
// ("docker.io/library/busybox:latest").
type record struct {
	ID         digest.Digest
	Tags       []string `json:",omitempty"`
	Digests    []string `json:",omitempty"`
	DiffIDs    []digest.Digest
	Size       int64
	Created    time.Time
	LastTagged time.Time
	OS         string
	Arch       string
	Variant    string        `json:",omitempty"`
	Parent     digest.Digest `json:",omitempty"`
	// Manifests are the manifests and indexes kept for the image; Packed are
	// the layers as they came, base first, for pushing them again.
	Manifests []digest.Digest      `json:",omitempty"`
	Packed    []ocispec.Descriptor `json:",omitempty"`
}

// clone returns a record whose lists can be changed.
func (r *record) clone() *record {
	c := *r
	c.Tags = slices.Clone(r.Tags)
	c.Digests = slices.Clone(r.Digests)
	c.Manifests = slices.Clone(r.Manifests)
	return &c
}

// blobs returns the content that the image keeps.
func (r *record) blobs() []digest.Digest {
	return append([]digest.Digest{r.ID}, r.Manifests...)
}

// image builds the snapshot for callers.
func (r *record) image(config *v1.DockerOCIImage) *Image {
	i := &Image{
		ID: r.ID, Config: *config, DiffIDs: r.DiffIDs, Parent: r.Parent, Size: r.Size,
		Created: r.Created, LastTagged: r.LastTagged,
		OS: r.OS, Architecture: r.Arch, Variant: r.Variant,
		RepoTags: familiar(r.Tags), RepoDigests: familiar(r.Digests),
	}
	return i
}

// familiar turns canonical references into what users read and write.
func familiar(refs []string) []string {
	out := make([]string, 0, len(refs))
	for _, s := range refs {
		out = append(out, familiarString(s))
	}
	slices.Sort(out)
	return out
}

func familiarString(canonical string) string {
	if named, err := reference.ParseNormalizedNamed(canonical); err == nil {
		return reference.FamiliarString(named)
	}
	return canonical
}

// Stream sends text that is shown as it is.
func (p Progress) Stream(text string) {
	if p != nil {
		p(jsonstream.Message{Stream: text})
	}
}

// Transfer sends how far the thing called id is, in bytes; total 0 means
// unknown.
func (p Progress) Transfer(id, status string, current, total int64) {
	if p != nil {
		p(jsonstream.Message{ID: id, Status: status, Progress: &jsonstream.Progress{Current: current, Total: total}})
	}
}
