package solve

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/internal/build/graph"
	"berth/internal/build/tree"
	"berth/internal/container/identity"
	"berth/internal/fault"
	"berth/internal/layer"
	"berth/internal/overlay"
)

// work is a step that is being run.
type work struct {
	node   *graph.Node
	id     *stepIdentity
	inputs []Result
	job    *Job
	run    *run
	emit   func(Event)
	epoch  *time.Time
}

func (w *work) log(stream int, format string, args ...any) {
	w.emit(Event{Kind: Output, Time: time.Now(), Stream: stream, Data: fmt.Appendf(nil, format, args...)})
}

// doStep runs a step and records what it gave.
func (s *Solver) doStep(ctx context.Context, w *work) (*Record, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	w.emit(Event{Kind: Started})
	hold := s.o.Layers.Hold()
	defer func() { s.collect(hold.Release()) }()
	for _, in := range w.inputs {
		hold.Add(in.Layers...)
	}
	if rec := s.already(w, hold); rec != nil {
		return rec, nil
	}
	rec := &Record{Key: w.id.key, Kind: w.id.kind, Name: w.id.name, Text: w.id.text, Slot: w.id.slot, Parts: w.id.parts, Base: w.id.base}
	begun := time.Now()
	var err error
	switch op := w.node.Op.(type) {
	case *graph.Exec:
		err = s.exec(ctx, w, op, hold, rec)
	case *graph.File:
		err = s.file(ctx, w, op, hold, rec)
	case *graph.HTTP:
		err = s.http(ctx, w, op, hold, rec)
	case *graph.Git:
		err = s.git(ctx, w, op, hold, rec)
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if fault.Is(err, fault.Exhausted) {
			s.o.Layers.Flush() // what the step took is free when its failure is known
		}
		return nil, err
	}
	rec.Took = time.Since(begun)
	if err := s.finish(rec); err != nil {
		return nil, fault.Wrap("record step", w.node.Name, err)
	}
	c := *rec
	return &c, nil
}

// already returns the record of a step that another build finished just now.
func (s *Solver) already(w *work, hold *layer.Hold) *Record {
	if w.node.NoCache || w.id.kind == "http" {
		return nil
	}
	rec := s.find(w.id.key)
	if rec == nil {
		return nil
	}
	rec.restack(w.node, w.inputs)
	hold.Add(rec.Layers...)
	if !s.has(rec.Layers) {
		return nil
	}
	return rec
}

// collect deletes layers that nobody needs any more.
func (s *Solver) collect(layers []digest.Digest) {
	if _, err := s.o.Layers.Collect(layers...); err != nil {
		s.log.Warn("layers of a build cannot be deleted", "error", err)
	}
}

// scratchpad is where a step's changes go.
type scratchpad struct {
	s           *Solver
	id          string
	base        []digest.Digest
	lower       []string
	upper, work string
	keep        bool
}

func (s *Solver) scratchpad(base []digest.Digest) (*scratchpad, error) {
	p := &scratchpad{s: s, id: UpperPrefix + s.seq.next(), base: base}
	var err error
	if p.lower, err = s.stackOf(base); err != nil {
		return nil, err
	}
	if p.upper, p.work, err = s.o.Layers.Writable(p.id, base); err != nil {
		p.remove() // it may be there in part
		return nil, err
	}
	return p, nil
}

func (p *scratchpad) remove() {
	if p.keep {
		return
	}
	if err := p.s.o.Layers.RemoveWritable(p.id); err != nil {
		p.s.log.Warn("root of a build step cannot be removed", "step", p.id, "error", err)
	}
}

// mount makes the root with the changes on top, attached nowhere.
func (p *scratchpad) mount(epoch *time.Time) (*tree.Root, error) {
	fd, err := overlay.Mount(overlay.Stack{Lower: p.lower, Upper: p.upper, Work: p.work}, unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return nil, err
	}
	return tree.NewRoot(fd, epoch), nil
}

// adopt makes the changes a layer, and puts what came out into rec. below is
// what the new layer goes on.
func (p *scratchpad) adopt(ctx context.Context, w *work, hold *layer.Hold, below []digest.Digest, rec *Record) error {
	l, err := hold.Adopt(ctx, p.upper, layer.DiffOptions{
		Epoch: w.epoch, Parents: append([]digest.Digest{}, p.base...),
		Skipped: func(path, why string) { w.log(2, "%s is left out: %s\n", path, why) },
	})
	if err != nil {
		return err
	}
	rec.Layers = append([]digest.Digest{}, below...)
	if l.Entries == 0 {
		return nil // nothing changed
	}
	rec.Made, rec.Size = l.DiffID, l.Disk
	rec.Layers = append(rec.Layers, l.DiffID)
	return nil
}

// file runs the actions of a File.
func (s *Solver) file(ctx context.Context, w *work, op *graph.File, hold *layer.Hold, rec *Record) error {
	var below, base []digest.Digest
	if len(w.inputs) > 0 {
		below = w.inputs[0].Layers
	}
	if !op.Link {
		base = below
	}
	p, err := s.scratchpad(base)
	if err != nil {
		return err
	}
	defer p.remove()
	root, err := p.mount(w.epoch)
	if err != nil {
		return err
	}
	for i, a := range op.Actions {
		if err = s.action(ctx, w, root, i, a); err != nil {
			break
		}
	}
	root.Close()
	if err != nil {
		return err
	}
	return p.adopt(ctx, w, hold, below, rec)
}

func (s *Solver) action(ctx context.Context, w *work, root *tree.Root, i int, a graph.Action) error {
	switch a := a.(type) {
	case *graph.MakeFile:
		o, err := owner(root, a.Owner)
		if err != nil {
			return err
		}
		return root.MakeFile(a.Path, a.Data, tree.Attributes{UID: o.UID, GID: o.GID, Mode: a.Mode})
	case *graph.MakeDir:
		o, err := owner(root, a.Owner)
		if err != nil {
			o = tree.Owner{} // a user that only exists later, as docker's builder has it
		}
		err = root.MakeDirs(a.Path, tree.Attributes{UID: o.UID, GID: o.GID, Mode: a.Mode})
		return err
	case *graph.Copy:
		return s.copy(ctx, w, root, i, a)
	}
	return fault.New(fault.Internal, "run step", w.node.Name, "an action is of no known kind")
}

func (s *Solver) copy(ctx context.Context, w *work, root *tree.Root, i int, a *graph.Copy) error {
	o := tree.CopyOptions{Unpack: a.Unpack}
	if a.Owner.Spec != "" {
		who, err := owner(root, a.Owner)
		if err != nil {
			return err
		}
		o.Owner = &who
	}
	if a.Mode != "" {
		m, err := tree.ParseMode(a.Mode)
		if err != nil {
			return fault.New(fault.Invalid, "copy", a.Src, "%w", err)
		}
		o.Mode = &m
	}
	if m, ok := w.id.matches[i]; ok {
		local := w.node.Inputs[a.Input].Op.(*graph.Local)
		return root.Copy(ctx, w.job.Contexts[local.Name].Dir, m, a.Dest, o)
	}
	d, err := s.openStack(w.inputs[a.Input].Layers)
	if err != nil {
		return err
	}
	defer d.Close()
	m, err := d.Select(ctx, selection(a))
	if err != nil {
		return err
	}
	return root.Copy(ctx, d, m, a.Dest, o)
}

// owner finds the numbers of an owner. Names are those of the root's own files; a
// number is never looked up, and stands for the group, too, when that is not
// given.
func owner(root *tree.Root, o graph.Owner) (tree.Owner, error) {
	user, group, hasGroup := strings.Cut(o.Spec, ":")
	if o.Spec == "" {
		return tree.Owner{}, nil
	}
	files := identity.Files{
		Passwd: func() (io.ReadCloser, error) { return root.OpenFile("/etc/passwd") },
		Group:  func() (io.ReadCloser, error) { return root.OpenFile("/etc/group") },
	}
	var out tree.Owner
	if n, err := strconv.ParseUint(user, 10, 31); err == nil {
		out = tree.Owner{UID: uint32(n), GID: uint32(n)}
	} else {
		id, err := identity.Resolve(user, nil, files)
		if err != nil {
			return out, fault.Wrap("find owner", o.Spec, err)
		}
		out = tree.Owner{UID: id.UID, GID: id.GID}
	}
	if !hasGroup || group == "" {
		return out, nil
	}
	if n, err := strconv.ParseUint(group, 10, 31); err == nil {
		out.GID = uint32(n)
		return out, nil
	}
	id, err := identity.Resolve("0:"+group, nil, files)
	if err != nil {
		return out, fault.Wrap("find owner", o.Spec, err)
	}
	out.GID = id.GID
	return out, nil
}

// temp makes a directory that is removed with the step or at the next start.
func (s *Solver) temp() (string, error) { return os.MkdirTemp(s.o.Dir+"/tmp", "") }
