// Package solve runs graphs of build steps and remembers what they gave. It
// exists so that a step is never done twice: its identity is the content of
// everything it depends on, its result is a layer that is kept, builds at the
// same time share what they do, and an engine that is killed goes on from the
// last step that was finished.
//
// On disk, below the directory given to Open:
//
//	fresh/<key>.json   steps finished since the last commit to the database
//	mounts/<id>/       cache mounts: data, and what is known about them
//	tmp/               of running steps; removed at Open
//	lists/<digest>     what was in the sources of steps, to explain misses
//
// The upper directories of running steps are writable layers of the layer store
// whose ids begin with UpperPrefix.
package solve

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"berth/internal/build/graph"
	"berth/internal/build/source"
	"berth/internal/fault"
	"berth/internal/layer"
	"berth/internal/metadata"
)

// UpperPrefix begins the names of the layer store's writable layers that are
// steps in the making. At start all of them are left-overs.
const UpperPrefix = "build-"

// Options wires a Solver.
type Options struct {
	Dir      string // ours alone; best on the layer store's file system
	DB       *metadata.DB
	Layers   *layer.Store
	Executor Executor
	// Parallel is how many steps run at the same time, over all builds; 0 is
	// twice the number of processors.
	Parallel int
	// Platforms are what this machine runs besides its own, as "linux/arm64".
	// nil: it is looked up when needed.
	Platforms func(platform string) bool
	Logger    *slog.Logger
}

// Solver runs graphs. It is safe for concurrent use.
type Solver struct {
	o       Options
	sources *source.Store
	slots   chan struct{}
	log     *slog.Logger
	boot    string
	mounts  *mounts
	seq     sequence

	mu      sync.Mutex // guards what follows
	records map[string]*Record
	bySlot  map[string][]*Record
	uses    map[digest.Digest]int // layers -> records that made them
	digests map[string]digest.Digest
	newer   map[string]bool // records that the database does not have as they are
	fresh   []string        // keys of digests that the database does not have
	flights map[string]*flight
	// committed is when the database last had everything.
	committed time.Time
}

// Open loads what is known about steps and removes what a killed engine left.
// The caller opens the layer store before and collects its layers after.
func Open(o Options) (*Solver, error) {
	const op = "open build cache"
	if o.Parallel <= 0 {
		o.Parallel = 2 * runtime.NumCPU()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	s := &Solver{
		o: o, log: o.Logger, slots: make(chan struct{}, o.Parallel), boot: bootID(),
		records: map[string]*Record{}, bySlot: map[string][]*Record{}, uses: map[digest.Digest]int{},
		digests: map[string]digest.Digest{}, newer: map[string]bool{}, flights: map[string]*flight{}, committed: time.Now(),
	}
	if err := removeAll(filepath.Join(o.Dir, "tmp")); err != nil && !errors.Is(err, syscall.EROFS) {
		return nil, fault.Wrap(op, o.Dir, err)
	}
	for _, d := range []string{"fresh", "mounts", "tmp", "lists"} {
		if err := os.MkdirAll(filepath.Join(o.Dir, d), 0o700); err != nil {
			return nil, fault.Wrap(op, o.Dir, err)
		}
	}
	var err error
	if s.sources, err = source.Open(filepath.Join(o.Dir, "sources")); err != nil {
		return nil, err
	}
	left, err := o.Layers.Writables()
	if err != nil {
		return nil, fault.Wrap(op, o.Dir, err)
	}
	for _, id := range left {
		if strings.HasPrefix(id, UpperPrefix) {
			if err := o.Layers.RemoveWritable(id); err != nil {
				return nil, fault.Wrap(op, id, err)
			}
		}
	}
	if err := s.load(); err != nil {
		return nil, fault.Wrap(op, o.Dir, err)
	}
	if s.mounts, err = openMounts(filepath.Join(o.Dir, "mounts")); err != nil {
		return nil, fault.Wrap(op, o.Dir, err)
	}
	o.Layers.AddOwner(s.KeepsLayer)
	return s, nil
}

// Close commits what the database does not have yet.
func (s *Solver) Close() error { return s.commit() }

// Sources is where contexts come from.
func (s *Solver) Sources() *source.Store { return s.sources }

// KeepsLayer reports whether a record names the layer.
func (s *Solver) KeepsLayer(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uses[d] > 0
}

// bootID tells boots of this machine apart.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// Result is what a node gives: a stack of layers, base first.
type Result struct{ Layers []digest.Digest }

// Job is one build to run.
type Job struct {
	ID string // of the build, for records and messages
	// Graphs are what is to be made: one, or one for each platform, which may
	// have nodes in common.
	Graphs []*graph.Graph
	// Contexts are the caller's directories by name.
	Contexts map[string]*source.Context
	Secrets  Secrets // nil: there are none
	// Project tells builds of one thing from others when a miss is explained:
	// the context's and Dockerfile's path, say.
	Project string
	// Progress may be nil. It is not called concurrently, and must not block for
	// long: a build that shares a running step would wait for it.
	Progress func(Event)
	// Imports are caches that were made elsewhere, which this build believes.
	Imports []*Import
	// Fetch brings layers from where they came from; nil: there is no such
	// place. Layers that it does not bring are made anew.
	Fetch func(ctx context.Context, layers []digest.Digest) error
	// Restore returns the content of a cache mount, a tar, and is closed after
	// reading, if it came from elsewhere and is newer than what was used here at
	// the given time; nil when it is not. Restore itself may be nil.
	Restore func(ctx context.Context, id string, used time.Time) (io.ReadCloser, error)
	// KeepFailed leaves the root of a failed step in place: StepError.Failed.
	KeepFailed bool
}

// epoch is SOURCE_DATE_EPOCH, which is one for all platforms.
func (j *Job) epoch() *time.Time {
	if len(j.Graphs) == 0 {
		return nil
	}
	return j.Graphs[0].Image.Epoch
}

// Secrets hands out what steps may see and nobody may keep.
type Secrets interface {
	// Secret returns a secret's value; fault.NotFound when it was not given.
	Secret(ctx context.Context, id string) ([]byte, error)
	// Agent returns what connects to an ssh agent of the caller; fault.NotFound when
	// it was not given.
	Agent(id string) (Dial, error)
}

// Solved is what a job gave.
type Solved struct {
	Results []Result    // of the graphs' targets
	Hold    *layer.Hold // holds the layers; the caller releases it
	Steps   []StepInfo  // in the graphs' order, each once
	// Made tells which nodes changed something.
	Made map[*graph.Node]bool
	// Layers are what each node gave, which need not be here, and Commits those that
	// Git nodes checked out.
	Layers  map[*graph.Node][]digest.Digest
	Commits map[*graph.Node]string
	// Finished is when a node's step was done, now or when it was first run.
	Finished map[*graph.Node]time.Time
}

// StepInfo says how a step went.
type StepInfo struct {
	ID       int // of its vertex
	Name     string
	Stage    string
	Lines    graph.Lines
	Key      string `json:",omitempty"`
	Cached   bool
	Shared   bool   `json:",omitempty"` // another build ran it at the same time
	Why      string `json:",omitempty"` // for a miss: what differs from the closest earlier run; for a hit: where it was found, unless here
	Started  time.Time
	Finished time.Time
	Size     int64  `json:",omitempty"` // bytes of its layer
	Error    string `json:",omitempty"`
	Skipped  bool   `json:",omitempty"` // not needed, because what it is for was cached
}

// Keys returns the keys of the records of all steps, for Share.
func (s *Solved) Keys() []string {
	var out []string
	for _, i := range s.Steps {
		if i.Key != "" {
			out = append(out, i.Key)
		}
	}
	return out
}

// Solve runs the job's graphs. Hold of the result is released by the caller also
// after an error, if it is not nil. Cancelling ctx ends all steps that no other
// build waits for.
func (s *Solver) Solve(ctx context.Context, j Job) (*Solved, error) {
	for _, g := range j.Graphs {
		if err := g.Validate(); err != nil {
			return nil, err
		}
	}
	r := newRun(s, j)
	defer r.leave()
	out := &Solved{Hold: r.hold, Results: make([]Result, len(j.Graphs)), Made: map[*graph.Node]bool{}, Finished: map[*graph.Node]time.Time{},
		Layers: map[*graph.Node][]digest.Digest{}, Commits: map[*graph.Node]string{}}
	targets, tctx := errgroup.WithContext(ctx)
	for i, g := range j.Graphs {
		targets.Go(func() (err error) {
			out.Results[i], err = r.present(tctx, g.Target)
			return err
		})
	}
	err := targets.Wait()
	out.Steps = r.steps()
	for n, t := range r.tasks {
		if t.made != "" {
			out.Made[n] = true
		}
		out.Finished[n], out.Layers[n] = t.finished, t.result.Layers
		if _, ok := n.Op.(*graph.Git); ok {
			out.Commits[n] = s.commitIn(t.info.Key)
		}
	}
	if cerr := s.settle(); err == nil {
		err = cerr
	}
	return out, err
}

// stackOf returns the layers' trees for an overlay, top first, always at least
// one.
func (s *Solver) stackOf(layers []digest.Digest) ([]string, error) { return s.o.Layers.Lower(layers) }

// has reports whether all layers are there.
func (s *Solver) has(layers []digest.Digest) bool {
	for _, d := range layers {
		if !s.o.Layers.Has(d) {
			return false
		}
	}
	return true
}

// chain names a stack by its content.
func chain(layers []digest.Digest) digest.Digest {
	var b strings.Builder
	for _, d := range layers {
		b.WriteString(string(d))
		b.WriteByte('\n')
	}
	return digest.FromString(b.String())
}

func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil {
		return nil
	}
	// Directories without rights for their owner, when we are not root.
	_ = filepath.WalkDir(dir, func(p string, e os.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
