package solve

import (
	"context"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/internal/build/graph"
	"berth/internal/build/tree"
	"berth/internal/fault"
	"berth/internal/layer"
)

// exec runs a program and makes what it changed a layer.
func (s *Solver) exec(ctx context.Context, w *work, op *graph.Exec, hold *layer.Hold, rec *Record) error {
	if s.o.Executor == nil {
		return fault.New(fault.Unsupported, "run step", w.node.Name, "this builder runs no programs")
	}
	if err := s.checkPlatform(w.node.Platform); err != nil {
		return err
	}
	base := w.inputs[0].Layers
	p, err := s.scratchpad(base)
	if err != nil {
		return err
	}
	defer func() { p.remove() }()
	step := Step{
		ID: p.id, Lower: p.lower, Upper: p.upper, Work: p.work, Args: op.Args, Dir: op.Dir, User: op.User,
		Env:      append(append([]string{}, op.Env...), op.Proxy...),
		Hostname: op.Hostname, Network: op.Network, Hosts: op.Hosts, Insecure: op.Insecure, Platform: w.node.Platform, Limits: op.Limits,
	}
	var m mountSet
	m.closers = append(m.closers, func() {})
	defer func() { m.close() }()
	if err := s.prepare(ctx, w, op, &step, &m); err != nil {
		return err
	}
	stubs, err := s.plant(p, op, step.Mounts)
	if err != nil {
		return err
	}
	tail := &tailBuffer{}
	step.Stdout = &outputWriter{w: w, stream: 1, tail: tail}
	step.Stderr = &outputWriter{w: w, stream: 2, tail: tail}
	exit, err := s.o.Executor.Run(ctx, step)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fault.Wrap("run step", w.node.Name, err)
	}
	if exit.Code != 0 {
		return s.failed(w, op, step, exit, tail, p, &m)
	}
	if err := stubs.remove(); err != nil {
		return fault.Wrap("clean up after step", w.node.Name, err)
	}
	return p.adopt(ctx, w, hold, base, rec)
}

// failed describes a program that did not succeed, and keeps its root if that is
// wanted.
func (s *Solver) failed(w *work, op *graph.Exec, step Step, exit Exit, tail *tailBuffer, p *scratchpad, m *mountSet) error {
	e := &StepError{
		Name: w.node.Name, Text: w.node.Text, Args: op.Args, Env: op.Env, Dir: op.Dir, User: op.User,
		Lines: w.node.Lines, Exit: exit, Tail: tail.String(),
	}
	if w.job.KeepFailed {
		p.keep = true
		closers := m.closers
		m.closers = nil
		step.Stdout, step.Stderr = nil, nil
		var once sync.Once
		e.Failed = &Failed{Step: step, Release: func() {
			once.Do(func() {
				(&mountSet{closers: closers}).close()
				p.keep = false
				p.remove()
			})
		}}
	}
	return &fault.Error{Kind: fault.Invalid, Op: "run step", Subject: w.node.Name, Err: e}
}

// mountSet is what the mounts of a step need until it is over.
type mountSet struct{ closers []func() }

func (m *mountSet) close() {
	for i := len(m.closers) - 1; i >= 0; i-- {
		m.closers[i]()
	}
	m.closers = nil
}

// prepare makes the mounts of a step.
func (s *Solver) prepare(ctx context.Context, w *work, op *graph.Exec, step *Step, set *mountSet) error {
	for i := range op.Mounts {
		m := &op.Mounts[i]
		var mount *Mount
		var err error
		switch m.Kind {
		case graph.Bind:
			mount, err = s.bindMount(w, m, set)
		case graph.Cache:
			mount, err = s.cacheMount(ctx, w, m, set)
		case graph.Tmpfs:
			mount = &Mount{Kind: TmpfsMount, Size: m.Size}
		case graph.Secret:
			mount, err = s.secretMount(ctx, w, m, step)
		case graph.SSH:
			mount, err = s.agentMount(ctx, w, m, step, set)
		default:
			err = fault.New(fault.Invalid, "mount", m.Target, "kind %q is unknown", m.Kind)
		}
		if err != nil {
			return fault.Wrap("mount", m.Target, err)
		}
		if mount != nil {
			mount.Target, mount.ReadOnly = m.Target, m.ReadOnly
			if !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" {
				return fault.New(fault.Invalid, "mount", m.Target, "it is not a clean absolute path")
			}
			step.Mounts = append(step.Mounts, *mount)
		}
	}
	return nil
}

// bindMount shows a part of a stack of layers. Links that lead there are
// followed inside the stack, once, here: what is mounted are the layers' own
// directories, which nothing can exchange.
func (s *Solver) bindMount(w *work, m *graph.Mount, set *mountSet) (*Mount, error) {
	if m.Input < 0 {
		return nil, fault.New(fault.Invalid, "mount", m.Target, "it says nothing to mount")
	}
	layers := w.inputs[m.Input].Layers
	d, err := s.openStack(layers)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	real, err := d.Real(m.Source)
	if err != nil {
		return nil, err
	}
	lower, err := s.stackOf(layers)
	if err != nil {
		return nil, err
	}
	dirs, file, err := tree.Contributing(lower, real)
	if err != nil {
		return nil, err
	}
	if file != "" {
		if m.ReadOnly {
			return &Mount{Kind: BindMount, Path: file}, nil
		}
		return s.fileCopy(d, real, set)
	}
	out := &Mount{Kind: OverlayMount, Lower: dirs}
	if m.ReadOnly {
		if len(dirs) == 1 {
			empty, err := s.stackOf(nil)
			if err != nil {
				return nil, err
			}
			out.Lower = append(dirs, empty[0])
		}
		return out, nil
	}
	tmp, err := s.scratchpad(nil) // what is written there is thrown away
	if err != nil {
		return nil, err
	}
	set.closers = append(set.closers, tmp.remove)
	if err := tree.CopyAttributes(d, real, tmp.upper); err != nil {
		return nil, err
	}
	out.Upper, out.Work = tmp.upper, tmp.work
	return out, nil
}

// fileCopy is a copy of a file to write to.
func (s *Solver) fileCopy(d *tree.Dir, real string, set *mountSet) (*Mount, error) {
	dir, err := s.temp()
	if err != nil {
		return nil, err
	}
	set.closers = append(set.closers, func() { _ = removeAll(dir) })
	name := filepath.Join(dir, "file")
	return &Mount{Kind: BindMount, Path: name}, tree.CopyFile(d, real, name)
}

func (s *Solver) cacheMount(ctx context.Context, w *work, m *graph.Mount, set *mountSet) (*Mount, error) {
	var base []digest.Digest
	if m.Input >= 0 {
		base = w.inputs[m.Input].Layers
	}
	seed, done := s.restored(ctx, w, m, func(dir string) error {
		if m.Input < 0 {
			return nil
		}
		d, err := s.openStack(base)
		if err != nil {
			return err
		}
		defer d.Close()
		return tree.Fill(ctx, d, m.Source, dir)
	})
	defer done()
	c, err := s.mounts.acquire(ctx, m, seed)
	if err != nil {
		return nil, err
	}
	set.closers = append(set.closers, c.release)
	return &Mount{Kind: BindMount, Path: c.path()}, nil
}

func (s *Solver) secretMount(ctx context.Context, w *work, m *graph.Mount, step *Step) (*Mount, error) {
	var data []byte
	err := error(fault.New(fault.NotFound, "find secret", m.ID, "it was not given"))
	if w.job.Secrets != nil {
		data, err = w.job.Secrets.Secret(ctx, m.ID)
	}
	if fault.Is(err, fault.NotFound) {
		if m.Required {
			return nil, fault.New(fault.Invalid, "find secret", m.ID, "the step requires it").WithHint("give it with --secret id=%s,src=FILE", m.ID)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if m.Env != "" {
		if strings.ContainsRune(string(data), 0) {
			return nil, fault.New(fault.Invalid, "set variable", m.Env, "the secret %s has a zero byte", m.ID)
		}
		step.Env = append(step.Env, m.Env+"="+string(data))
	}
	if m.NoFile {
		return nil, nil
	}
	return &Mount{Kind: DataMount, Data: data, UID: m.UID, GID: m.GID, Mode: m.Mode}, nil
}

func (s *Solver) agentMount(ctx context.Context, w *work, m *graph.Mount, step *Step, set *mountSet) (*Mount, error) {
	var dial Dial
	err := error(fault.New(fault.NotFound, "find agent", m.ID, "it was not given"))
	if w.job.Secrets != nil {
		dial, err = w.job.Secrets.Agent(m.ID)
	}
	if fault.Is(err, fault.NotFound) {
		if m.Required {
			return nil, fault.New(fault.Invalid, "find agent", m.ID, "the step requires it").WithHint("give it with --ssh %s", m.ID)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	socket, release, err := s.AgentSocket(ctx, dial, m.UID, m.GID, m.Mode)
	if err != nil {
		return nil, err
	}
	set.closers = append(set.closers, release)
	step.Env = append(step.Env, "SSH_AUTH_SOCK="+m.Target)
	return &Mount{Kind: BindMount, Path: socket}, nil
}

// outputWriter passes on what a program writes.
type outputWriter struct {
	w      *work
	stream int
	tail   *tailBuffer
}

func (o *outputWriter) Write(p []byte) (int, error) {
	o.tail.write(p)
	o.w.emit(Event{Kind: Output, Time: time.Now(), Stream: o.stream, Data: append([]byte(nil), p...)})
	return len(p), nil
}

// tailBuffer keeps the end of an output.
type tailBuffer struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

const (
	tailBytes = 32 << 10
	tailLines = 50
)

func (t *tailBuffer) write(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*tailBytes {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailBytes:]...)
	}
}

// String returns the last lines.
func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := string(t.buf[max(0, len(t.buf)-tailBytes):])
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines-1):], "")
}
