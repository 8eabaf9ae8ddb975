// Package graph is what a build is before it runs: steps, and which of them
// need which. It exists so that whoever reads a language (the Dockerfile front
// end here, another protocol's front end later) and whoever runs the steps know
// nothing of each other: a front end makes a Graph, the solver runs it, and both
// can be tested without the other.
//
// A Node yields a file tree. Most nodes yield a stack of layers; a node whose Op
// is Local yields the caller's own directory, which is never copied as a whole.
package graph

import (
	"slices"
	"strconv"
	"time"

	"github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Graph is the part of a build that its target needs. It has no cycles.
type Graph struct {
	// Nodes are in an order in which each comes after its inputs.
	Nodes []*Node
	// Target is the node whose tree is the result; nil is an empty root.
	Target *Node
	Image  Image
}

// Image describes the image around the target's tree.
type Image struct {
	// Config is everything but RootFS.DiffIDs, History and Created.
	Config v1.DockerOCIImage
	// History has the base image's entries first. An entry of a step that turns
	// out to change nothing becomes an empty layer.
	History []History
	// Base is the id of the image that the last stage begins from, "" if none.
	Base digest.Digest
	// Epoch is SOURCE_DATE_EPOCH: the time that everything gets; nil is now.
	Epoch *time.Time
}

// History is one entry of an image's history.
type History struct {
	ocispec.History
	// Node made the layer of this entry; nil for entries without one and for
	// those of the base image.
	Node *Node
}

// Lines is a range of lines in the source text, counted from 1, both included.
// The zero value is no place at all.
type Lines struct{ Start, End int }

// String is "first-last".
func (l Lines) String() string { return strconv.Itoa(l.Start) + "-" + strconv.Itoa(l.End) }

// Node is one step. It is read-only once its graph is made.
type Node struct {
	Op Op
	// Inputs are what Op's fields refer to by index. For Exec and File the
	// first is the root that is changed; nil there is an empty root.
	Inputs []*Node

	Name     string // for people: "[builder 2/5] COPY . ."
	Stage    string // name or number of the stage
	Index    int    // which step of its stage, from 0
	Text     string // the instruction as it stands in the source, variables expanded
	Lines    Lines
	Platform ocispec.Platform
	// NoCache makes the solver run the step although it did it before.
	NoCache bool
	// Args are the build arguments that were in effect, for explaining a miss
	// and a failure. They are part of Op's environment already.
	Args []string
}

// Op is what a node does: one of the types below.
type Op interface{ op() }

// Source is an image: FROM, COPY --from and mounts of images.
type Source struct {
	Ref     string          // as written
	ID      digest.Digest   // the image's id
	DiffIDs []digest.Digest // base first
}

// Local is a directory of the caller: the build context, or a named one.
type Local struct {
	Name string // "context" is the main one
}

// HTTP is a file at a URL, named Filename.
type HTTP struct {
	URL      string
	Filename string
	Checksum digest.Digest // "" accepts what comes
	UID, GID uint32
	Mode     uint32 // 0 is 0600
}

// Git is a checkout of a repository.
type Git struct {
	Remote     string
	Ref        string // branch, tag, commit or full reference; "" is the default branch
	Subdir     string
	Checksum   string // prefix of the commit that it must be
	KeepDir    bool   // leave .git in place
	Submodules bool
}

// Exec runs a program in the root that is Inputs[0].
type Exec struct {
	Args     []string
	Env      []string
	Dir      string
	User     string // as USER has it; "" is root
	Network  string // "", "none", "host"
	Insecure bool   // all capabilities and devices
	Mounts   []Mount
	Hosts    []string // "name:address"
	Hostname string
	// Proxy is added to the environment without being part of the step's
	// identity: http_proxy and its like.
	Proxy  []string
	Limits Limits
}

// Limits bounds what a step may use. Zero fields are unlimited.
type Limits struct {
	Memory, MemorySwap   int64 // bytes
	ShmSize              int64 // bytes
	CPUShares            int64
	CPUPeriod, CPUQuota  int64 // microseconds
	CPUSetCPUs, CPUSetMs string
	Ulimits              []Ulimit
	CgroupParent         string
}

// Ulimit is one resource limit of a process.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// MountKind says what is mounted.
type MountKind string

// The kinds of mounts.
const (
	Bind   MountKind = "bind"
	Cache  MountKind = "cache"
	Tmpfs  MountKind = "tmpfs"
	Secret MountKind = "secret"
	SSH    MountKind = "ssh"
)

// Sharing says who may use a cache mount at the same time.
type Sharing string

// The ways of sharing: everybody; one at a time, others get a directory of
// their own; one at a time, others wait.
const (
	Shared  Sharing = "shared"
	Private Sharing = "private"
	Locked  Sharing = "locked"
)

// Mount is one mount of an Exec.
type Mount struct {
	Kind     MountKind
	Target   string // absolute path in the root
	Input    int    // index into Node.Inputs of what is mounted or seeds a cache; -1 is nothing
	Source   string // path below the input
	ReadOnly bool
	Size     int64   // of a tmpfs, bytes
	ID       string  // of a cache, a secret or an agent
	Sharing  Sharing // of a cache
	Required bool    // fail when the secret or agent is not given
	Env      string  // variable that receives the secret
	NoFile   bool    // the secret is in Env only
	UID, GID uint32
	Mode     uint32
}

// File changes files of Inputs[0], action by action, without running anything.
type File struct {
	Actions []Action
	// Link makes the change on its own, on top of nothing, and then puts it on
	// Inputs[0]: it stays valid whatever that is.
	Link bool
}

// Action is one change: one of Copy, MakeFile, MakeDir.
type Action interface{ action() }

// Owner is the owner of what is made. Names are looked up in the root that is
// changed.
type Owner struct{ Spec string } // "user:group", "" keeps what there is

// Copy copies files.
type Copy struct {
	Input int    // index into Node.Inputs of where they are
	Src   string // path, may have wildcards
	Dest  string // absolute path; a trailing slash makes it a directory
	Owner Owner
	Mode  string // octal or symbolic, "" keeps
	// Parents copies what matches Pattern below Src with the directories that
	// lead there.
	Parents  bool
	Pattern  string
	Exclude  []string
	Unpack   bool // unpack archives
	Literal  bool // neither Src nor Pattern has wildcards
	Required bool // it is an error when nothing matches a pattern without wildcards
}

// MakeFile writes a file.
type MakeFile struct {
	Path  string
	Data  []byte
	Mode  uint32
	Owner Owner
}

// MakeDir makes a directory and those above it.
type MakeDir struct {
	Path  string
	Mode  uint32
	Owner Owner
}

func (*Source) op() {}
func (*Local) op()  {}
func (*HTTP) op()   {}
func (*Git) op()    {}
func (*Exec) op()   {}
func (*File) op()   {}

func (*Copy) action()     {}
func (*MakeFile) action() {}
func (*MakeDir) action()  {}

// Sort returns the nodes that target needs, each after its inputs.
func Sort(target *Node) []*Node {
	var order []*Node
	seen := map[*Node]bool{}
	var visit func(*Node)
	visit = func(n *Node) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		for _, in := range n.Inputs {
			visit(in)
		}
		order = append(order, n)
	}
	visit(target)
	return order
}

// CacheMounts lists the ids of the cache mounts that steps have, each once.
func (g *Graph) CacheMounts() []string {
	var out []string
	for _, n := range g.Nodes {
		op, ok := n.Op.(*Exec)
		if !ok {
			continue
		}
		for _, m := range op.Mounts {
			if m.Kind == Cache && !slices.Contains(out, m.ID) {
				out = append(out, m.ID)
			}
		}
	}
	return out
}
