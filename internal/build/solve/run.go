package solve

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"berth/internal/build/graph"
	"berth/internal/build/tree"
	"berth/internal/fault"
	"berth/internal/layer"
)

// run is one call of Solve.
type run struct {
	s     *Solver
	j     Job
	hold  *layer.Hold
	nodes []*graph.Node // of all graphs
	tasks map[*graph.Node]*task
	ids   map[*graph.Node]int

	mu    sync.Mutex // guards Job.Progress and what follows; nothing is locked under it
	trees map[digest.Digest]*tree.Dir
	spent bool
}

// task is a node on its way to a result. Locks are taken from a node to its
// inputs, never back.
type task struct {
	node *graph.Node
	id   int

	mu       sync.Mutex // guards what follows; held while the node is worked on
	done     bool
	result   Result
	err      error
	made     digest.Digest
	finished time.Time
	info     StepInfo
	shown    bool
}

func newRun(s *Solver, j Job) *run {
	r := &run{s: s, j: j, nodes: graph.Union(j.Graphs), hold: s.o.Layers.Hold(), tasks: map[*graph.Node]*task{}, ids: map[*graph.Node]int{}, trees: map[digest.Digest]*tree.Dir{}}
	for i, n := range r.nodes {
		r.ids[n] = i + 1
		r.tasks[n] = &task{node: n, id: i + 1, info: StepInfo{ID: i + 1, Name: n.Name, Stage: n.Stage, Lines: n.Lines, Skipped: true}}
	}
	for _, n := range r.nodes {
		e := Event{Kind: Planned, Time: time.Now(), Vertex: r.ids[n], Name: n.Name, Stage: n.Stage, Lines: n.Lines}
		for _, in := range n.Inputs {
			if in != nil {
				e.Inputs = append(e.Inputs, r.ids[in])
			}
		}
		r.emit(e)
	}
	return r
}

// emit tells the build's caller.
func (r *run) emit(e Event) {
	if r.j.Progress == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.j.Progress(e)
}

func (t *task) emit(r *run, kind EventKind, change func(*Event)) {
	e := Event{Kind: kind, Time: time.Now(), Vertex: t.id, Name: t.node.Name, Stage: t.node.Stage, Lines: t.node.Lines}
	if change != nil {
		change(&e)
	}
	r.emit(e)
}

// leave closes what the run has open. Nothing of it runs any more.
func (r *run) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spent = true
	for _, t := range r.trees {
		t.Close()
	}
	r.trees = nil
}

func (r *run) steps() []StepInfo {
	out := make([]StepInfo, 0, len(r.tasks))
	for _, n := range r.nodes {
		t := r.tasks[n]
		t.mu.Lock()
		out = append(out, t.info)
		t.mu.Unlock()
	}
	return out
}

// result returns what a node gives, from the cache if that knows it; the layers
// need not be there any more. A nil node is an empty root.
func (r *run) result(ctx context.Context, n *graph.Node) (Result, error) {
	if n == nil {
		return Result{}, nil
	}
	t := r.tasks[n]
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.done {
		t.result, t.err = r.solve(ctx, t, false)
		t.done = true
	}
	return t.result, t.err
}

// present is result with the layers in place.
func (r *run) present(ctx context.Context, n *graph.Node) (Result, error) {
	if _, err := r.result(ctx, n); err != nil || n == nil {
		return Result{}, err
	}
	t := r.tasks[n]
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		r.hold.Add(t.result.Layers...)
		if !r.s.has(t.result.Layers) && !r.fetched(ctx, t.result.Layers) {
			t.result, t.err = r.solve(ctx, t, true)
		}
	}
	return t.result, t.err
}

// fetched reports whether missing layers could be brought from elsewhere.
func (r *run) fetched(ctx context.Context, layers []digest.Digest) bool {
	if r.j.Fetch == nil {
		return false
	}
	if err := r.j.Fetch(ctx, layers); err != nil {
		r.s.log.Info("layers of an imported build cache are made anew", "error", err)
		return false
	}
	if !r.s.has(layers) {
		return false
	}
	r.s.arrived(layers)
	return true
}

// all calls fn for each input at once.
func (r *run) all(ctx context.Context, n *graph.Node, fn func(context.Context, *graph.Node) (Result, error)) ([]Result, error) {
	out := make([]Result, len(n.Inputs))
	if len(n.Inputs) == 1 {
		var err error
		out[0], err = fn(ctx, n.Inputs[0])
		return out, err
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, in := range n.Inputs {
		if in == nil {
			continue
		}
		if _, local := in.Op.(*graph.Local); local {
			continue
		}
		g.Go(func() (err error) {
			out[i], err = fn(ctx, in)
			return err
		})
	}
	return out, g.Wait()
}

// solve finds or makes a node's result. With again its layers are gone and it is
// made anew. The caller holds t.mu.
func (r *run) solve(ctx context.Context, t *task, again bool) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, context.Cause(ctx)
	}
	n := t.node
	switch op := n.Op.(type) {
	case *graph.Source:
		t.begin(r, "")
		r.hold.Add(op.DiffIDs...)
		if !r.s.has(op.DiffIDs) {
			err := fault.New(fault.NotFound, "find base image", op.Ref, "its layers are not there").WithHint("pull the image again")
			return Result{}, t.end(r, err)
		}
		t.cached(r, nil)
		return Result{op.DiffIDs}, nil
	case *graph.Local:
		return Result{}, nil
	case *graph.HTTP, *graph.Git:
		return r.fetch(ctx, t, again)
	}
	inputs, err := r.all(ctx, n, r.result)
	if err != nil {
		return Result{}, err
	}
	if !n.NoCache && !again {
		id, err := r.identify(ctx, n, inputs, r.j.Imports)
		if err != nil {
			return Result{}, t.end(r, err)
		}
		if rec := r.lookup(n, id, inputs); rec != nil {
			t.took(rec)
			t.cached(r, rec)
			return Result{rec.Layers}, nil
		}
	}
	return r.perform(ctx, t, again)
}

// lookup returns the record of a step. Its layers are held before anybody looks
// whether they are there.
func (r *run) lookup(n *graph.Node, id *stepIdentity, inputs []Result) *Record {
	rec := r.s.find(id.key)
	if rec != nil {
		rec.restack(n, inputs)
		r.hold.Add(rec.Layers...)
	}
	if rec == nil || !r.s.has(rec.Layers) {
		if other := r.imported(id); other != nil {
			rec = other
			rec.restack(n, inputs)
			r.hold.Add(rec.Layers...)
		}
	}
	return rec
}

// restack puts the layer of a step that does not depend on what is below it on
// what is below it now.
func (r *Record) restack(n *graph.Node, inputs []Result) {
	if op, ok := n.Op.(*graph.File); !ok || !op.Link || len(inputs) == 0 {
		return
	}
	r.Layers = slices.Clone(inputs[0].Layers)
	if r.Made != "" {
		r.Layers = append(r.Layers, r.Made)
	}
}

// perform runs a step. Its inputs are brought into place first, which may change
// what they are, and with that what the step is. That is then found out from the
// inputs themselves: what an import says about them would end up in the record.
func (r *run) perform(ctx context.Context, t *task, again bool) (Result, error) {
	n := t.node
	inputs, err := r.all(ctx, n, r.present)
	if err != nil {
		return Result{}, err
	}
	for try := 1; ; try++ {
		id, err := r.identify(ctx, n, inputs, nil)
		if err != nil {
			return Result{}, t.end(r, err)
		}
		if !n.NoCache {
			if rec := r.lookup(n, id, inputs); rec != nil && (!again || r.s.has(rec.Layers)) {
				t.took(rec)
				t.cached(r, rec)
				return Result{rec.Layers}, nil
			}
		}
		rec, err := r.launch(ctx, t, id, inputs)
		if err == nil {
			rec.restack(n, inputs)
			r.hold.Add(rec.Layers...)
			t.took(rec)
			t.end(r, nil)
			return Result{rec.Layers}, nil
		}
		if errors.Is(err, tree.ErrChanged) && try < 3 && ctx.Err() == nil {
			continue // a file of the context changed since it was looked at
		}
		return Result{}, t.end(r, err)
	}
}

// launch runs a step, or waits for another build that runs it. It is begun when it
// does run: waiting for its turn is none of its time.
func (r *run) launch(ctx context.Context, t *task, id *stepIdentity, inputs []Result) (*Record, error) {
	why := r.s.why(id)
	key := id.key
	if t.node.NoCache {
		key += " " + r.j.ID + r.s.seq.next()
	}
	rec, shared, err := r.s.fly(ctx, key, id.own, func(e Event) {
		e.Vertex, e.Name, e.Stage, e.Lines = t.id, t.node.Name, t.node.Stage, t.node.Lines
		if e.Kind == Started {
			t.begin(r, why)
			return
		}
		r.emit(e)
	}, func(ctx context.Context, emit func(Event)) (*Record, error) {
		return r.s.doStep(ctx, &work{node: t.node, id: id, inputs: inputs, job: &r.j, run: r, emit: emit, epoch: r.j.epoch()})
	})
	t.info.Shared = shared
	if rec != nil { // others who waited for it have it, too
		c := *rec
		rec = &c
	}
	return rec, err
}

func (t *task) took(rec *Record) {
	t.made, t.finished = rec.Made, rec.Created
	t.info.Key, t.info.Size = rec.id(), rec.Size
}

func (t *task) begin(r *run, why string) {
	t.info.Started, t.info.Skipped, t.info.Why = time.Now(), false, why
	t.shown = true
	t.emit(r, Started, func(e *Event) { e.Why = why })
}

func (t *task) cached(r *run, rec *Record) {
	if !t.shown {
		t.info.Started = time.Now()
	}
	t.info.Cached, t.info.Skipped, t.info.Finished = true, false, time.Now()
	if t.finished.IsZero() {
		t.finished = t.info.Finished
	}
	if rec != nil && rec.From != "" {
		t.info.Why = "found in " + rec.From
	}
	t.emit(r, Cached, func(e *Event) { e.Why = t.info.Why })
}

// end ends a task, which may have failed before it was begun.
func (t *task) end(r *run, err error) error {
	if !t.shown {
		t.begin(r, "")
	}
	t.info.Finished, t.info.Cached = time.Now(), false
	if err == nil {
		t.emit(r, Done, nil)
		return nil
	}
	t.info.Error = err.Error()
	t.emit(r, Errored, func(e *Event) { e.Err = err })
	return err
}

func isCanceled(err error) bool {
	return fault.Is(err, fault.Canceled) || errors.Is(err, context.Canceled)
}
