package worker

import (
	"encoding/json"
	"os"
	"time"

	"berth/internal/fault"
	"berth/internal/logs"
	"berth/internal/logs/jsonfile"
	"berth/internal/logs/local"
	"berth/internal/monitor/keeper"
	"berth/internal/monitor/proto"
	"berth/internal/monitor/stdio"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// start starts a container. Asked again with the same token it answers the same
// without starting it twice.
func (w *Worker) start(req *proto.StartRequest, specJSON []byte) (proto.Started, error) {
	const op = "start container"
	if err := checkID(op, req.ID); err != nil {
		return proto.Started{}, err
	}
	c, mine, err := w.claim(req)
	if err != nil {
		return proto.Started{}, err
	}
	if !mine {
		<-c.init.begun
		return c.init.started(), c.init.failed
	}
	err = w.launch(c, req, specJSON)
	if err != nil {
		w.abandon(c, err)
	}
	w.begun(&c.init, err)
	return c.init.started(), err
}

// claim makes a container that this request starts, or finds the one that it
// started before.
func (w *Worker) claim(req *proto.StartRequest) (c *container, mine bool, err error) {
	for {
		w.mu.Lock()
		if w.leaving {
			w.mu.Unlock()
			select {} // the connection ends, and the client asks the successor
		}
		c := w.containers[req.ID]
		if c == nil {
			c = w.newContainer(req.ID)
		}
		p := &c.init
		if p.phase == pending {
			p.phase, p.token = starting, req.Token
			w.busy++
			w.mu.Unlock()
			return c, true, nil
		}
		same, ended := p.token == req.Token && req.Token != "", p.phase == exited
		w.mu.Unlock()
		switch {
		case same:
			return c, false, nil
		case !ended:
			return nil, false, fault.New(fault.Conflict, "start container", req.ID, "it is running already")
		}
		if err := w.forget(req.ID); err != nil {
			return nil, false, err
		}
	}
}

// begun says to all who wait that a start is over, and deals with an end that
// came meanwhile.
func (w *Worker) begun(p *process, err error) {
	w.mu.Lock()
	w.busy--
	p.failed = err
	if err == nil {
		p.phase = running
	}
	end := p.end
	w.mu.Unlock()
	close(p.begun)
	if err == nil && end != nil {
		w.windUp(p)
	}
}

// abandon removes every trace of a start that failed.
func (w *Worker) abandon(c *container, why error) {
	if c.init.pid != 0 { // it runs, but could not be recorded
		removeFromRuntime(c)
	}
	c.init.io.Close()
	for _, x := range c.execs {
		x.io.Close()
	}
	w.tellKeeper(keeper.Message{Op: keeper.OpDrop, Key: c.id})
	closeFD(c.init.pidfd)
	if c.state != nil {
		c.state.Close()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		warn("remove %s after %v: %v", c.dir, why, err)
	}
	w.mu.Lock()
	delete(w.containers, c.id) // last: from here on the id may be used again
	w.mu.Unlock()
}

// launch does the work of a start. Whatever it has recorded or given to the
// keeper when this process is killed is enough for the next one to go on with
// it or to undo it.
func (w *Worker) launch(c *container, req *proto.StartRequest, specJSON []byte) error {
	spec := new(specs.Spec)
	if err := json.Unmarshal(specJSON, spec); err != nil {
		return fault.New(fault.Invalid, "start container", c.id, "decode its specification: %w", err)
	}
	p := &c.init
	w.applySize(p, spec.Process)
	c.record = newRecord(req, spec)
	c.runner = w.runnerFor(&c.record)
	if err := makeDir(c.dir); err != nil {
		return err
	}
	streams, err := makeFifos(p, req.OpenStdin, c.record.TTY)
	if err != nil {
		return err
	}
	opened := false
	defer func() {
		streams.closeTheirs()
		if !opened {
			streams.close()
		}
	}()
	if c.state, err = c.record.write(p.path("state")); err != nil {
		return err
	}
	hold := keeper.Message{Op: keeper.OpHold, Key: p.key()}
	streams.hold(&hold)
	w.tellKeeper(hold)

	got, err := c.runner.start(launch{id: c.id, dir: c.dir, spec: spec, specJSON: specJSON, overlay: req.Overlay, stdio: streams.theirs})
	if err != nil {
		return err
	}
	w.adoptLaunched(p, got)
	if err := w.recordStart(c); err != nil {
		return err
	}
	streams.ours.TTY = got.console
	opened = true
	p.io.Configure(w.streamConfig(c))
	return w.openStreams(c, streams.ours)
}

// adoptLaunched has the keeper watch a new process.
func (w *Worker) adoptLaunched(p *process, got launched) {
	watch := keeper.Message{Op: keeper.OpWatch, Key: p.key(), PID: got.pid, Path: p.path("exit.json")}
	watch.Add(keeper.LabelPidfd, got.pidfd)
	watch.Add(keeper.LabelTTY, got.console)
	w.tellKeeper(watch)
	w.mu.Lock()
	p.pid, p.startTime, p.startedAt, p.pidfd = got.pid, got.startTime, time.Now(), got.pidfd
	w.mu.Unlock()
}

// recordStart writes down that a container runs.
func (w *Worker) recordStart(c *container) error {
	p := &c.init
	return c.state.Update(func(s *stdio.Progress) {
		s.Started, s.PID, s.StartTime, s.StartedAt = true, p.pid, p.startTime, p.startedAt.UnixNano()
	})
}

// openStreams begins to move the output of a container and its input.
func (w *Worker) openStreams(c *container, files stdio.Files) error {
	p := &c.init
	p.tty = c.record.TTY
	if c.record.SharedPID {
		w.tellKeeper(keeper.Message{Op: keeper.OpOrphans})
	}
	if c.record.MemoryLimit || c.record.Runtime != "" {
		w.ooms.watch(c)
	}
	return p.io.Open(files, p.tty)
}

func (w *Worker) streamConfig(c *container) stdio.Config {
	p, r := &c.init, &c.record
	cfg := stdio.Config{
		Name: p.key(), Spools: p.spools(), CloseStdin: r.StdinOnce,
		OnDrained:     func() { w.drained(p) },
		OnStdinClosed: func() { w.stdinClosed(p) },
		OnDetach:      func() { w.publish(proto.Event{Type: proto.EventDetach, ID: c.id}) },
	}
	if r.Log.Driver != proto.NoLog && r.Log.Path != "" {
		cfg.Log = stdio.NewLog(logConfig(&r.Log), c.state)
	}
	return cfg
}

func logConfig(l *proto.LogConfig) stdio.LogConfig {
	cfg := stdio.LogConfig{
		Path: l.Path, Format: jsonfile.Format{}, Attrs: l.Attrs, Buffer: l.Buffer,
		Limits: logs.Limits{MaxSize: l.MaxSize, MaxFiles: l.MaxFiles, Compress: l.Compress},
	}
	if l.Driver == proto.Local {
		cfg.Format = local.Format{}
	}
	return cfg
}

func (w *Worker) stdinClosed(p *process) {
	w.tellKeeper(keeper.Message{Op: keeper.OpDrop, Key: p.key(), Labels: string(rune(keeper.LabelStdin))})
}

// applySize uses a terminal size that was set before the start.
func (w *Worker) applySize(p *process, spec *specs.Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if spec != nil && spec.Terminal && p.height|p.width != 0 {
		spec.ConsoleSize = &specs.Box{Height: uint(p.height), Width: uint(p.width)}
	}
}

// makeDir makes the container's directory, in place of what may be left of an
// earlier one.
func makeDir(dir string) error {
	err := unix.Mkdir(dir, 0o700)
	if err == unix.EEXIST {
		if err := os.RemoveAll(dir); err != nil {
			return fault.New(fault.Internal, "remove what is left of a container", dir, "%w", err)
		}
		err = unix.Mkdir(dir, 0o700)
	}
	if err != nil {
		return fault.New(fault.Internal, "make directory", dir, "%w", err)
	}
	return nil
}
