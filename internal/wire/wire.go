// Package wire is what berth and its engine say to each other beyond docker's
// API. It exists so that both sides share one definition although neither may
// import the other; it holds documents, and nothing that does something. It
// imports no types of docker's API, which would make berth slow to start.
package wire

import (
	"strconv"
	"time"
)

// MaxBuildRequest bounds the encoded form of a BuildRequest, in bytes.
const MaxBuildRequest = 16 << 20

// BuildRequest is the beginning of the body of POST /berth/build: one JSON
// document that ends with a newline. With Archive the build context follows, a
// tar archive, plain or compressed. The answer is a stream of BuildEvents, one
// JSON document a line.
type BuildRequest struct {
	ContextDir string `json:",omitempty"` // absolute path on the engine's machine, read in place with the caller's rights
	// Seen is what the caller sees at the directories that it names, by their
	// paths: see FileID. An engine that sees something else there (one of them is
	// in a container, or the socket is forwarded) refuses with status 409 instead
	// of building from the wrong files.
	Seen    map[string]string `json:",omitempty"`
	Remote  string            `json:",omitempty"` // git address, or URL of an archive or a Dockerfile
	Archive bool              `json:",omitempty"` // the context follows
	// Sent are contexts of which the engine is sent what it lacks: the ID that POST
	// /berth/build/context answered, by name; the main one is called "context". The
	// contents that were missing follow this document, in the order of the names,
	// each list's in the order in which they were asked for, as package manifest
	// has them; after them an Archive.
	Sent map[string]string `json:",omitempty"`
	// ContextName is what people call a context that is sent: a directory's name.
	ContextName string `json:",omitempty"`

	Dockerfile string `json:",omitempty"` // path in the context; "" is "Dockerfile"
	Text       []byte `json:",omitempty"` // the Dockerfile itself, from outside of the context

	Tags        []string          `json:",omitempty"`
	Target      string            `json:",omitempty"`
	Args        map[string]string `json:",omitempty"`
	Labels      map[string]string `json:",omitempty"`
	Attests     []string          `json:",omitempty"` // type=provenance[,NAME=VALUE...]
	Annotations []string          `json:",omitempty"` // [LEVEL[PLATFORM],...:]KEY=VALUE
	Platforms   []string          `json:",omitempty"` // several give one index of images
	Contexts    map[string]string `json:",omitempty"` // name: directory, docker-image://, oci-layout://DIR@DIGEST (without DIR if it is Sent), git or http address
	Secrets     map[string][]byte `json:",omitempty"` // by id
	SSH         []string          `json:",omitempty"` // ids of ssh agents that the caller connects when it is asked to: see BuildAgent
	Allow       []string          `json:",omitempty"` // network.host, security.insecure
	Network     string            `json:",omitempty"`
	Hosts       []string          `json:",omitempty"` // name:address
	ShmSize     int64             `json:",omitempty"` // bytes

	Limits BuildLimits `json:",omitzero"` // of each step

	Pull         bool     `json:",omitempty"`
	NoCache      bool     `json:",omitempty"`
	NoCacheOnly  []string `json:",omitempty"` // stages
	Reproducible bool     `json:",omitempty"` // all times are SOURCE_DATE_EPOCH, 0 unless given as an argument
	Check        bool     `json:",omitempty"` // only look for mistakes
	DebugShell   bool     `json:",omitempty"` // keep the root of a step that fails for a shell
	InlineCache  bool     `json:",omitempty"` // put the cache's records into the image
	Files        bool     `json:",omitempty"` // make no image: send the result's files, one tar archive, as events
	SplitFiles   bool     `json:",omitempty"` // with Files: each platform's in a directory of their own

	CacheFrom []BuildCacheFrom `json:",omitempty"`
	CacheTo   []BuildCacheTo   `json:",omitempty"`

	Auths map[string]BuildAuth `json:",omitempty"` // by registry, as in docker's X-Registry-Config
}

// BuildContext is the beginning of the body of POST /berth/build/context: one JSON
// document that ends with a newline. The list of what is in a directory of the
// client follows, as package manifest encodes it, up to the end of the body. The
// answer is a BuildContextAnswer.
type BuildContext struct {
	// Key is a secret of the client, of at least 32 characters: who has it gets at
	// contents that were sent with it, and nobody else does.
	Key  string
	Slot string // the client's name for the directory, to itself
	Name string // what people call it
	Once bool   `json:",omitempty"` // the key is not used again: nothing need be kept
	// Base is the sum of the list of the directory that the client sent before:
	// then only the changes since follow. nil: the list is whole.
	Base []byte `json:",omitempty"`
	Sum  []byte // of the whole list, sha256
}

// BuildContextAnswer says what must come with the build.
type BuildContextAnswer struct {
	ID      string   `json:",omitempty"` // for BuildRequest.Sent; good for one build, which must begin within minutes
	Missing [][2]int `json:",omitempty"` // positions in the list, from and up to but not with
	Whole   bool     `json:",omitempty"` // the base is not known: the whole list is needed, and nothing was begun
}

// BuildLimits bounds what each step of a build may use; zero is no limit.
type BuildLimits struct {
	Memory       int64         `json:",omitempty"` // bytes
	MemorySwap   int64         `json:",omitempty"` // bytes, with the memory; -1 is no limit
	ShmSize      int64         `json:",omitempty"` // bytes
	CPUShares    int64         `json:",omitempty"`
	CPUPeriod    int64         `json:",omitempty"` // microseconds
	CPUQuota     int64         `json:",omitempty"` // microseconds
	CpusetCpus   string        `json:",omitempty"`
	CpusetMems   string        `json:",omitempty"`
	CgroupParent string        `json:",omitempty"`
	Ulimits      []BuildUlimit `json:",omitempty"`
}

// BuildUlimit is one resource limit of a step's processes.
type BuildUlimit struct {
	Name       string
	Soft, Hard int64
}

// BuildAuth is who asks a registry; its fields are those of docker's AuthConfig.
type BuildAuth struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Auth          string `json:"auth,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// BuildCacheType is what a build cache calls itself at a registry and in an OCI
// layout: the type of the artifact and of its config, which describes the steps.
// Its layers are images' layers, each annotated with its digest before packing.
const BuildCacheType = "application/vnd.berth.build.cache.v1+json"

// BuildMountType is the content of a cache mount in a build cache, with the
// mount's id and when it was last used as annotations.
const (
	BuildMountType = "application/vnd.berth.build.cachemount.v1.tar+gzip"
	BuildMountID   = "berth.build.cachemount.id"
	BuildMountUsed = "berth.build.cachemount.used" // RFC 3339
)

// BuildCacheFrom is a build cache that was made elsewhere: at a registry, in an
// image's config, or in a directory of the client's, from which the engine asks
// for blobs with BuildWanted.
type BuildCacheFrom struct {
	Ref      string `json:",omitempty"`
	Here     bool   `json:",omitempty"` // an image of that name that is here will do,
	Only     bool   `json:",omitempty"` // and no registry is asked
	Mounts   bool   `json:",omitempty"` // restore cache mounts that were used later there than here
	Dir      string `json:",omitempty"` // of a directory: how it is called in messages,
	Manifest []byte `json:",omitempty"` // the manifest,
	Document []byte `json:",omitempty"` // and its config
}

// BuildCacheTo is where a build's cache goes: to a registry, or as the events
// BuildCacheData to the client.
type BuildCacheTo struct {
	Ref         string   `json:",omitempty"` // "": to the client
	Max         bool     `json:",omitempty"` // the layers of all steps, not only the result's
	Mounts      bool     `json:",omitempty"` // the contents of cache mounts, too
	IgnoreError bool     `json:",omitempty"` // a cache that cannot be written fails no build
	Have        []string `json:",omitempty"` // digests of blobs that the client has
}

// FileID tells a file from all others that a machine sees.
func FileID(device, inode uint64) string {
	return strconv.FormatUint(device, 16) + ":" + strconv.FormatUint(inode, 16)
}

// Kinds of BuildEvents.
const (
	BuildPlanned   = "planned" // a step is known
	BuildStarted   = "started"
	BuildCached    = "cached"
	BuildDone      = "done"
	BuildErrored   = "errored"
	BuildOutput    = "output"   // Data of the step's program
	BuildProgress  = "progress" // Current of Total bytes; of step 0, the pull of Name, or with Send the sending, which ends with Message "done"
	BuildWarning   = "warning"
	BuildFiles     = "files"  // Data of the archive
	BuildCacheData = "cache"  // Data of an archive of an OCI layout, for CacheTo[Entry]; without the blobs that the client has
	BuildWanted    = "wanted" // the engine waits for the blob Name of CacheFrom[Entry]: POST /berth/build/blob?id= with Shell as the id
	BuildAgent     = "agent"  // a program wants the ssh agent Name: POST /berth/build/agent?id=, with Shell as the id, becomes a connection to it
	BuildResult    = "result" // the last event of a build that succeeded
	BuildFailed    = "failed" // the last event of one that did not
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
	Entry   int           `json:",omitempty"` // of cache and wanted
	Why     string        `json:",omitempty"` // of started: what differs from the closest earlier run; of cached: where it was found, unless here
	Current int64         `json:",omitempty"`
	Total   int64         `json:",omitempty"`
	Send    bool          `json:",omitempty"` // of progress
	Message string        `json:",omitempty"` // of warning, errored, failed
	Rule    string        `json:",omitempty"` // of warning
	URL     string        `json:",omitempty"` // of warning
	Detail  string        `json:",omitempty"` // of warning: what the rule is about
	Hint    string        `json:",omitempty"` // of failed: what to do next
	Excerpt string        `json:",omitempty"` // of warning, failed: lines of the Dockerfile
	Shell   string        `json:",omitempty"` // of failed: names the root for POST /berth/build/shell?id=, as long as this answer is read
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
	ID        string   // in the history
	ImageID   string   `json:",omitempty"` // of several platforms, the digest of their index
	Config    []byte   `json:",omitempty"` // the image's config document, the first platform's
	Platforms []string `json:",omitempty"` // what it is for
	// Top is the index, or the manifest with annotations, that the names stand
	// for; nil for an image about which there is no more to say.
	Top *BuildDocument `json:",omitempty"`
}

// BuildDocument describes an index or a manifest.
type BuildDocument struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"` // bytes
	Annotations map[string]string `json:"annotations,omitempty"`
}
