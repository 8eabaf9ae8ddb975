// Package build is the builder: a request goes in, an image or files come out. It
// exists so that the engine, the HTTP API and later front ends share one way from
// a Dockerfile to a result; the language, the contexts and the steps are its
// sub-packages' business.
package build

import (
	"bufio"
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/internal/build/dockerfile"
	"berth/internal/build/graph"
	"berth/internal/build/solve"
	"berth/internal/build/tree"
	"berth/internal/image"
)

// Request is everything that a build may be asked for. Exactly one of ContextDir,
// Archive, Remote and Sent[MainContext] says where the files are; none is an empty
// context, for which Text is needed.
type Request struct {
	ContextDir  string            // absolute path on this machine, read in place
	Credentials *tree.Credentials // whose rights apply to it; nil: the engine's
	Archive     io.Reader         // tar, plain or compressed
	Remote      string            // git address, or URL of an archive or a Dockerfile
	// Sent are contexts that the client sends what changed of: what
	// source.Store.Receive called them, by name. Contents has what they lack, one
	// after the other in the order of their names.
	Sent     map[string]string
	Contents *bufio.Reader
	// ContextName is what the client calls a context that it sends.
	ContextName string

	Dockerfile string // path in the context; "" is "Dockerfile"
	Text       []byte // the Dockerfile itself, from outside of the context

	Tags        []string
	Target      string
	Args        map[string]string
	Labels      map[string]string
	Annotations []string           // [LEVEL[PLATFORM],...:]KEY=VALUE
	Attests     []string           // type=provenance[,NAME=VALUE...]
	Platforms   []ocispec.Platform // none: this machine's; several give an image index
	Contexts    map[string]string  // name -> directory, docker-image://, oci-layout://, git or http address
	Secrets     solve.Secrets      // nil: none
	Allow       []string           // "network.host", "security.insecure"
	Network     string             // of RUN: "", "default", "none", "host"
	Hosts       []string           // "name:address"
	Hostname    string
	Limits      graph.Limits
	Pull        bool // ask the registry also for images that are here
	NoCache     bool
	NoCacheOnly []string // stages

	// Reproducible makes all times SOURCE_DATE_EPOCH, which is 0 unless it is
	// given as a build argument.
	Reproducible bool
	// CacheFrom are caches that were made elsewhere. Fetch brings the layers
	// that they name, and Restore cache mounts: see solve.Job.
	CacheFrom []*solve.Import
	Fetch     func(ctx context.Context, layers []digest.Digest) error
	Restore   func(ctx context.Context, id string, used time.Time) (io.ReadCloser, error)
	// InlineCache puts the document about the cache into the image's config,
	// under InlineKey.
	InlineCache bool

	// Check only looks for mistakes.
	Check bool
	// FilesOnly makes no image: the caller exports the result's layers.
	FilesOnly bool
	// KeepFailed leaves a failed step's root for a shell: see solve.StepError.
	KeepFailed bool

	Find Images // of base images; nil: the builder's own
	// Progress may be nil. It is not called concurrently, and must not block for
	// long: put a queue before a slow client.
	Progress func(Event)
	Version  string // of whoever asks, for the history
}

// MainContext is the name of the main context among those that have one.
const MainContext = "context"

// InlineKey is the field of an image's config that holds its build cache.
const InlineKey = "berth.build.cache.v1"

// Event is one thing that happens in a build: a step's, or a finding of the
// checks.
type Event struct {
	solve.Event
	Warning *dockerfile.Warning
}

// Output is what a build gave for one platform.
type Output struct {
	Platform ocispec.Platform
	Image    *image.Image    // nil with FilesOnly
	Layers   []digest.Digest // base first
	Config   []byte          // of the image, also with FilesOnly
}

// Result is what a build gave.
type Result struct {
	ID      string   // of the build, in the history
	Output           // of the first platform
	Outputs []Output // of all, in the order of the request
	// Top is the document that the image's names stand for when there is more to
	// it than the image: an index, or a manifest with annotations.
	Top *ocispec.Descriptor

	Steps    []solve.StepInfo
	Mounts   []string // ids of the cache mounts that steps have
	Warnings []dockerfile.Warning
	Started  time.Time
	Finished time.Time
	imports  []*solve.Import
	release  func()
}

// Release lets go of layers that only a result without an image keeps. It may be
// called more than once.
func (r *Result) Release() {
	if r != nil && r.release != nil {
		r.release()
		r.release = nil
	}
}

// Images finds base images for builds.
type Images interface {
	// Find returns the image that ref means for a platform and pulls it if it
	// is not here, or if pull says so. ref is a normalized name or an id.
	Find(ctx context.Context, ref string, platform ocispec.Platform, pull bool) (*image.Image, error)
}
