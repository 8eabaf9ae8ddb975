package solve

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/build/gitref"
	"berth/internal/build/graph"
	"berth/internal/build/source"
	"berth/internal/build/tree"
	"berth/internal/layer"
)

// fetch solves a node whose content is elsewhere and may have changed there.
func (r *run) fetch(ctx context.Context, t *task, again bool) (Result, error) {
	n := t.node
	id, err := r.identify(ctx, n, nil, nil)
	if err != nil {
		return Result{}, t.end(r, err)
	}
	current := false
	switch op := n.Op.(type) {
	case *graph.Git:
		commit, err := r.commitOf(ctx, op)
		if err != nil {
			return Result{}, t.end(r, err)
		}
		id.part("commit", "%s", commit)
		id.seal()
		id.commit = commit
		current = true
	case *graph.HTTP:
		current = op.Checksum != ""
	}
	if rec := r.lookup(n, id, nil); rec != nil && !n.NoCache && (!again || r.s.has(rec.Layers)) {
		if current || r.s.unchanged(ctx, n, rec) {
			t.took(rec)
			t.cached(r, rec)
			return Result{rec.Layers}, nil
		}
	}
	rec, err := r.launch(ctx, t, id, nil)
	if err != nil {
		return Result{}, t.end(r, err)
	}
	r.hold.Add(rec.Layers...)
	t.took(rec)
	t.end(r, nil)
	return Result{rec.Layers}, nil
}

// unchanged asks a server whether what was fetched from it is still current.
func (s *Solver) unchanged(ctx context.Context, n *graph.Node, rec *Record) bool {
	op, ok := n.Op.(*graph.HTTP)
	if !ok || rec.Note == "" {
		return false
	}
	f, err := s.sources.Fetch(ctx, op.URL, rec.Note, "")
	if err != nil {
		return false // the step itself will say why
	}
	defer f.Remove()
	return f.Path == ""
}

// commitOf finds out what commit a reference is now.
func (r *run) commitOf(ctx context.Context, op *graph.Git) (string, error) {
	g, release, err := r.gitFor(ctx, op)
	if err != nil {
		return "", err
	}
	defer release()
	commit, err := g.Resolve(ctx, op.Ref)
	if err != nil {
		return "", err
	}
	return commit, source.CheckCommit(op.Remote, commit, op.Checksum)
}

// commitIn returns the commit that a record of a checkout is of.
func (s *Solver) commitIn(key string) string {
	if rec := s.find(key); rec != nil {
		for _, p := range rec.Parts {
			if p.Name == "commit" {
				return p.Value
			}
		}
	}
	return ""
}

// gitFor prepares access to a repository, with the caller's agent if it needs
// one and there is one.
func (r *run) gitFor(ctx context.Context, op *graph.Git) (*source.Git, func(), error) {
	g := &source.Git{Remote: op.Remote}
	if r.j.Secrets == nil || !gitref.OverSSH(op.Remote) {
		return g, func() {}, nil
	}
	dial, err := r.j.Secrets.Agent("default")
	if err != nil {
		return g, func() {}, nil // git will say that it may not read it
	}
	socket, release, err := r.s.AgentSocket(ctx, dial, 0, 0, 0o600)
	g.AgentSocket = socket
	return g, release, err
}

// http fetches a file and makes it a layer.
func (s *Solver) http(ctx context.Context, w *work, op *graph.HTTP, hold *layer.Hold, rec *Record) error {
	f, err := s.sources.Fetch(ctx, op.URL, "", op.Checksum)
	if err != nil {
		return err
	}
	defer f.Remove()
	p, err := s.scratchpad(nil)
	if err != nil {
		return err
	}
	defer p.remove()
	to := filepath.Join(p.upper, filepath.Base(filepath.Clean("/"+op.Filename)))
	if err := os.Rename(f.Path, to); err != nil {
		return err
	}
	mode := op.Mode
	if mode == 0 {
		mode = 0o600
	}
	at := f.Modified
	if at.IsZero() {
		at = time.Unix(0, 0) // the same file is the same layer whenever it is fetched
	}
	if err := os.Lchown(to, int(op.UID), int(op.GID)); err != nil {
		return err
	}
	if err := unix.Chmod(to, mode&0o7777); err != nil {
		return err
	}
	if err := os.Chtimes(to, at, at); err != nil {
		return err
	}
	rec.Note = f.ETag
	return p.adopt(ctx, w, hold, nil, rec)
}

// git checks a commit out and makes it a layer.
func (s *Solver) git(ctx context.Context, w *work, op *graph.Git, hold *layer.Hold, rec *Record) error {
	g, release, err := w.run.gitFor(ctx, op)
	if err != nil {
		return err
	}
	defer release()
	p, err := s.scratchpad(nil)
	if err != nil {
		return err
	}
	defer p.remove()
	if op.Subdir == "" {
		if err := g.Checkout(ctx, p.upper, op.Ref, w.id.commit, op.KeepDir, op.Submodules); err != nil {
			return err
		}
		return p.adopt(ctx, w, hold, nil, rec)
	}
	dir, err := s.temp()
	if err != nil {
		return err
	}
	defer removeAll(dir)
	if err := g.Checkout(ctx, dir, op.Ref, w.id.commit, op.KeepDir, op.Submodules); err != nil {
		return err
	}
	d, err := tree.Open(dir, tree.Options{})
	if err != nil {
		return err
	}
	defer d.Close()
	m, err := d.Select(ctx, tree.Selection{Src: op.Subdir, Literal: true})
	if err != nil {
		return err
	}
	fd, err := unix.Open(p.upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	root := tree.NewRoot(fd, w.epoch)
	err = root.Copy(ctx, d, m, "/", tree.CopyOptions{})
	root.Close()
	if err != nil {
		return err
	}
	return p.adopt(ctx, w, hold, nil, rec)
}
