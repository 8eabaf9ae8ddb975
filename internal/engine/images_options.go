package engine

import (
	"berth/internal/engine/filter"
	"berth/internal/image"

	"github.com/moby/moby/api/types/container"
	api "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImageListOptions select images and say what to tell of them.
type ImageListOptions struct {
	All            bool // also those that are only parents of others
	SharedSize     bool // fill Summary.SharedSize
	Manifests      bool // fill Summary.Manifests
	ContainerCount bool // fill Summary.Containers
	Filters        filter.Set
}

// ImageInspectOptions say what to tell of an image; the two exclude each other.
type ImageInspectOptions struct {
	Manifests bool              // list what the image has for each platform
	Platform  *ocispec.Platform // tell of this one
}

// ImageImportOptions describe an image made from a plain file system archive.
type ImageImportOptions struct {
	Ref      string   // name for the new image; may be empty
	Message  string   // comment in its history
	Changes  []string // Dockerfile instructions applied to its config
	Platform *ocispec.Platform
}

// ImagePullOptions steer a pull.
type ImagePullOptions struct {
	Platform     *ocispec.Platform // nil means the host's
	AllPlatforms bool              // every platform of an index
	AllTags      bool              // every tag of the repository
	Auth         registry.AuthConfig
}

// ImagePushOptions steer a push.
type ImagePushOptions struct {
	Platform *ocispec.Platform // nil means all there are
	AllTags  bool              // every tag of the repository that is here
	Auth     registry.AuthConfig
}

// ImageLoadOptions steer a load.
type ImageLoadOptions struct {
	Quiet     bool                // no progress
	Platforms []*ocispec.Platform // empty means all there are
}

// CommitOptions describe an image made of a container.
type CommitOptions struct {
	Container string            // id or name
	Repo, Tag string            // name for the new image; may be empty
	Comment   string            // in its history
	Author    string            //
	Changes   []string          // Dockerfile instructions applied to its config
	Pause     bool              // freeze a running container meanwhile
	Config    *container.Config // goes before the container's own; may be nil
}

// ImagePruneOptions steer a prune.
type ImagePruneOptions struct {
	Filters filter.Set // dangling (default true), until, label, label!
	DryRun  bool       // make the plan and leave it at that
}

// PlanItem is one thing that a plan is about.
type PlanItem struct {
	Kind   string   // "image"
	ID     string   // of the thing
	Names  []string `json:",omitempty"`
	Size   int64    // bytes that come back, or that it takes and shares with nobody
	Reason string   // why it goes, or why it is kept
}

// ImagePruneReport is what a prune did or, after a dry run, what it would do.
type ImagePruneReport struct {
	ImagesDeleted  []api.DeleteResponse
	SpaceReclaimed uint64 // bytes
	// Remove and Keep are the plan from which the above follows.
	Remove, Keep []PlanItem
}

// SearchOptions describe a search in a registry.
type SearchOptions struct {
	Term    string
	Limit   int        // 1 to 100; 0 means 25
	Filters filter.Set // is-official, is-automated, stars
	Auth    registry.AuthConfig
}

// ImageVerifyOptions say what is wanted of an image besides being whole.
type ImageVerifyOptions struct {
	PublicKeys []string // PEM; one of them must have signed it
	Auth       registry.AuthConfig
}

// Artifact is a document about an image, such as a signature, with what it
// refers to.
type Artifact struct {
	Manifest []byte
	Blobs    [][]byte
}

// ImageTree is all images by the layers that they are stacked of.
type ImageTree = image.Tree
