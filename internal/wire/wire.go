// Package wire is what berth and its engine say to each other beyond docker's
// API. It exists so that both sides share one definition although neither may
// import the other; it holds documents, and nothing that does something.
package wire

import (
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
)

// MaxBuildRequest bounds the encoded form of a BuildRequest, in bytes.
const MaxBuildRequest = 16 << 20

// BuildRequest is the beginning of the body of POST /berth/build: one JSON
// document that ends with a newline. With Archive the build context follows, a
// tar archive, plain or compressed. The answer is a stream of BuildEvents, one
// JSON document a line.
type BuildRequest struct {
	ContextDir string `json:",omitempty"` // absolute path on the engine's machine, read in place with the caller's rights
	Remote     string `json:",omitempty"` // git address, or URL of an archive or a Dockerfile
	Archive    bool   `json:",omitempty"` // the context follows

	Dockerfile string `json:",omitempty"` // path in the context; "" is "Dockerfile"
	Text       []byte `json:",omitempty"` // the Dockerfile itself, from outside of the context

	Tags     []string          `json:",omitempty"`
	Target   string            `json:",omitempty"`
	Args     map[string]string `json:",omitempty"`
	Labels   map[string]string `json:",omitempty"`
	Platform string            `json:",omitempty"`
	Contexts map[string]string `json:",omitempty"` // name: directory, docker-image://, git or http address
	Secrets  map[string][]byte `json:",omitempty"` // by id
	SSH      map[string]string `json:",omitempty"` // id: path of the agent's socket on the engine's machine
	Allow    []string          `json:",omitempty"` // network.host, security.insecure
	Network  string            `json:",omitempty"`
	Hosts    []string          `json:",omitempty"` // name:address
	ShmSize  int64             `json:",omitempty"` // bytes

	Resources container.Resources // limits of each step

	Pull         bool     `json:",omitempty"`
	NoCache      bool     `json:",omitempty"`
	NoCacheOnly  []string `json:",omitempty"` // stages
	Reproducible bool     `json:",omitempty"` // all times are SOURCE_DATE_EPOCH, 0 unless given as an argument
	Check        bool     `json:",omitempty"` // only look for mistakes
	Files        bool     `json:",omitempty"` // make no image: send the result's files, one tar archive, as events

	Auths map[string]registry.AuthConfig `json:",omitempty"` // by registry, as in docker's X-Registry-Config
}

// Kinds of BuildEvents.
const (
	BuildPlanned  = "planned" // a step is known
	BuildStarted  = "started"
	BuildCached   = "cached"
	BuildDone     = "done"
	BuildErrored  = "errored"
	BuildOutput   = "output"   // Data of the step's program
	BuildProgress = "progress" // Current of Total
	BuildWarning  = "warning"
	BuildFiles    = "files"  // Data of the archive
	BuildResult   = "result" // the last event of a build that succeeded
	BuildFailed   = "failed" // the last event of one that did not
)

// BuildEvent is one thing that happens in a build.
type BuildEvent struct {
	Kind   string
	Time   time.Time `json:",omitzero"`
	Step   int       `json:",omitempty"` // 1 and up; 0 for the build itself
	Name   string    `json:",omitempty"`
	Stage  string    `json:",omitempty"`
	Inputs []int     `json:",omitempty"` // of planned
	Line   int       `json:",omitempty"` // in the Dockerfile, 1 and up

	Stream  int           `json:",omitempty"` // of output: 1 or 2
	Data    []byte        `json:",omitempty"`
	Why     string        `json:",omitempty"` // of started: what differs from the closest earlier run
	Current int64         `json:",omitempty"`
	Total   int64         `json:",omitempty"`
	Message string        `json:",omitempty"` // of warning, errored, failed
	Rule    string        `json:",omitempty"` // of warning
	URL     string        `json:",omitempty"` // of warning
	Excerpt string        `json:",omitempty"` // of warning, failed: lines of the Dockerfile
	Failure *BuildFailure `json:",omitempty"`
	Result  *Build        `json:",omitempty"`
}

// BuildFailure is a step whose program failed.
type BuildFailure struct {
	Step string
	Args []string
	Env  []string
	Dir  string
	User string
	Code int
	OOM  bool
	Tail string // of its output
}

// Build is what a build gave.
type Build struct {
	ID      string // in the history
	ImageID string `json:",omitempty"`
	Config  []byte `json:",omitempty"` // the image's config document
}
