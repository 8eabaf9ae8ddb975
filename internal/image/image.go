// Package image knows which images there are: their configs, names, layers and
// who may remove them. It exists so that docker's rules about references, tags
// and removal are in one place and survive a crash at any instant.
package image

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/content"
	"berth/internal/layer"
	"berth/internal/metadata"
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
	LastTagged   time.Time
	Architecture string
	OS           string
	Variant      string
}

// Dangling reports whether no tag names the image.
func (i *Image) Dangling() bool { return len(i.RepoTags) == 0 }

// Progress receives messages as docker's JSON stream has them. It may be nil,
// and is called from several goroutines but never concurrently.
type Progress func(jsonstream.Message)

// Options wires a Store.
type Options struct {
	DB      *metadata.DB
	Content *content.Store
	Layers  *layer.Store
	Logger  *slog.Logger // nil: slog.Default()
}

// Store is the set of images. It is safe for concurrent use.
type Store struct{}

// Open loads the records and sweeps layers and blobs that nothing refers to.
func Open(ctx context.Context, o Options) (*Store, error) { return &Store{}, nil }

// Get finds an image by name[:tag][@digest], full id or unique short id.
func (s *Store) Get(ctx context.Context, ref string) (*Image, error) { return nil, nil }

// List returns all images, newest first.
func (s *Store) List(ctx context.Context) ([]*Image, error) { return nil, nil }

// Tag gives the image src the further name target; a tag that named another
// image moves.
func (s *Store) Tag(ctx context.Context, src, target string) error { return nil }

// User is a container that uses an image.
type User struct {
	ID      string // container id
	Running bool
}

// RemoveOptions says how Remove treats conflicts.
type RemoveOptions struct {
	Force bool
	Prune bool // also remove untagged parents
	// InUse returns the containers made from the image; nil means none.
	InUse func(id digest.Digest) []User
}

// Remove removes a name, or the image itself, by docker's rules.
func (s *Store) Remove(ctx context.Context, ref string, o RemoveOptions) ([]image.DeleteResponse, error) {
	return nil, nil
}

// Loaded is one image that Load brought in.
type Loaded struct {
	Ref string // familiar name, "" when the archive names none
	ID  digest.Digest
}

// LoadOptions steers Load.
type LoadOptions struct {
	Platform *ocispec.Platform // nil: this machine's
	Progress Progress
}

// Load reads a docker-archive or OCI-layout tar, plain or compressed.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	return nil, nil
}

// ImportOptions describes the image that Import makes.
type ImportOptions struct {
	Ref      string   // name to give, may be ""
	Message  string   // history comment; "" means "Imported from -"
	Changes  []string // Dockerfile instructions: CMD, ENTRYPOINT, ENV, EXPOSE, ...
	Platform *ocispec.Platform
}

// Import makes a one-layer image from the tar of a root file system.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	return nil, nil
}
