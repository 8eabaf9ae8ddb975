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
	Index        digest.Digest // of the multi-platform index that gives it its names, or ""
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
