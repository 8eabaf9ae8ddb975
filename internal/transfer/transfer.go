// Package transfer moves images between registries and this machine. It exists
// so that everything that talks to a hostile network is in one room.
package transfer

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/image"
	"berth/internal/layer"
)

// Config wires a Puller.
type Config struct {
	Images    *image.Store
	Content   *content.Store
	Layers    *layer.Store
	Insecure  []string // host[:port] of registries that may be spoken to over plain http; loopback always may
	UserAgent string   // "" means "berth"
	Parallel  int      // layers at once, 0 means 4
}

// Puller pulls images. It is safe for concurrent use; pulls share downloads.
type Puller struct{}

// New returns a Puller.
func New(c Config) *Puller { return &Puller{} }

// Options steers one Pull.
type Options struct {
	Platform *ocispec.Platform // nil: this machine's
	Progress image.Progress
}

// Pull fetches the image that ref names (name[:tag][@digest]) and returns it
// with the digest of its manifest or index at the registry.
func (p *Puller) Pull(ctx context.Context, ref string, o Options) (*image.Image, digest.Digest, error) {
	return nil, "", nil
}
