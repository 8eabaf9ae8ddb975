package worker

import (
	"encoding/json"
	"fmt"
	"os"

	"berth/internal/fault"
	"berth/internal/monitor/proto"
	"berth/internal/monitor/stdio"

	"golang.org/x/sys/unix"
)

// client is a connected engine.
type client struct {
	conn    *proto.Conn
	greeted bool // it gets events; guarded by Worker.mu
}

// serve accepts engines.
func (w *Worker) serve(listener int) error {
	if err := unix.SetNonblock(listener, true); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	raw, err := os.NewFile(uintptr(listener), "listener").SyscallConn()
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		fd := -1
		var failed error
		err := raw.Read(func(l uintptr) bool {
			fd, _, failed = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return failed != unix.EAGAIN
		})
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		if failed != nil {
			if failed == unix.EMFILE || failed == unix.ENFILE {
				return fmt.Errorf("accept: %w", failed)
			}
			continue // it went away again
		}
		conn, err := proto.NewConn(fd, "engine")
		if err != nil {
			warn("%v", err)
			continue
		}
		c := &client{conn: conn}
		w.mu.Lock()
		w.clients[c] = struct{}{}
		w.mu.Unlock()
		go w.talk(c)
	}
}

func (w *Worker) clientless() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.clients) == 0
}

// talk answers an engine until it goes away.
func (w *Worker) talk(c *client) {
	for {
		f, err := c.conn.Receive()
		if err != nil {
			break
		}
		if f.Kind == proto.KindHello {
			w.hello(c, f)
			continue
		}
		go w.answer(c, f)
	}
	_ = c.conn.Close()
	c.conn.Drop()
	w.mu.Lock()
	delete(w.clients, c)
	w.mu.Unlock()
	w.leaveWhenIdle(lastClient)
}

func (w *Worker) hello(c *client, f *proto.Frame) {
	f.CloseFDs()
	c.reply(f, proto.Hello{Version: proto.Version, PID: os.Getpid()}, nil)
	w.mu.Lock()
	c.greeted = true
	w.mu.Unlock()
}

// answer does what a request wants.
func (w *Worker) answer(c *client, f *proto.Frame) {
	result, err := w.do(f)
	f.CloseFDs()
	c.reply(f, result, err)
}

func (c *client) reply(to *proto.Frame, result any, err error) {
	f := proto.Frame{Kind: proto.KindReply, Seq: to.Seq}
	if err == nil && result != nil {
		f.Head, err = json.Marshal(result)
	}
	if err != nil {
		f.Kind, f.Head = proto.KindError, proto.EncodeError(err)
	}
	if c.conn.Send(&f) != nil {
		_ = c.conn.Close() // it will ask again over another connection
	}
}

func (c *client) tell(e proto.Event) {
	head, err := json.Marshal(e)
	if err == nil && c.conn.Send(&proto.Frame{Kind: proto.KindEvent, Head: head}) != nil {
		_ = c.conn.Close()
	}
}

// do carries out one request.
func (w *Worker) do(f *proto.Frame) (any, error) {
	switch f.Kind {
	case proto.KindStart:
		return decoded(f, func(r *proto.StartRequest) (any, error) { return w.start(r, f.Blob) })
	case proto.KindExec:
		return decoded(f, func(r *proto.ExecRequest) (any, error) { return w.exec(r) })
	case proto.KindAttach:
		return decoded(f, func(r *proto.AttachRequest) (any, error) { return nil, w.attach(r, f) })
	case proto.KindSignal:
		return decoded(f, func(r *proto.SignalRequest) (any, error) { return nil, w.signal(r) })
	case proto.KindResize:
		return decoded(f, func(r *proto.ResizeRequest) (any, error) { return nil, w.resize(r) })
	case proto.KindUpdate:
		return decoded(f, func(r *proto.UpdateRequest) (any, error) {
			return nil, w.with("update container", r.ID, func(c *container) error { return c.runner.update(c.id, r.Resources) })
		})
	case proto.KindList:
		return w.list(), nil
	}
	return decoded(f, func(r *proto.Target) (any, error) { return w.doSimple(f.Kind, r.ID) })
}

func decoded[T any](f *proto.Frame, do func(*T) (any, error)) (any, error) {
	request := new(T)
	if err := f.Decode(request); err != nil {
		return nil, err
	}
	return do(request)
}

// doSimple carries out a request that names a container and nothing else.
func (w *Worker) doSimple(kind proto.Kind, id string) (result any, err error) {
	switch kind {
	case proto.KindKillAll:
		err = w.with("kill container", id, func(c *container) error { return c.runner.killAll(id) })
	case proto.KindPause:
		err = w.freeze("pause container", id, true)
	case proto.KindResume:
		err = w.freeze("resume container", id, false)
	case proto.KindPids:
		err = w.with("list processes of", id, func(c *container) error {
			result, err = c.runner.pids(id)
			return err
		})
	case proto.KindStats:
		err = w.with("measure container", id, func(c *container) error {
			result, err = c.runner.stats(id)
			return err
		})
	case proto.KindForget:
		err = w.forget(id)
	default:
		err = fault.New(fault.Unsupported, "answer request", "", "kind %d is not known", kind)
	}
	return result, err
}

// with calls use with a container that runs.
func (w *Worker) with(op, id string, use func(*container) error) error {
	p, err := w.find(op, id, "")
	if err != nil {
		return err
	}
	return fault.Wrap(op, id, use(p.c))
}

func (w *Worker) freeze(op, id string, freeze bool) error {
	return w.with(op, id, func(c *container) error {
		change := c.runner.resume
		if freeze {
			change = c.runner.pause
		}
		if err := change(id); err != nil {
			return err
		}
		w.mu.Lock()
		c.paused = freeze
		w.mu.Unlock()
		return c.state.Update(func(p *stdio.Progress) { p.Paused = freeze })
	})
}

// signal sends a signal to one process. By its pidfd it cannot reach another
// one that has got the pid meanwhile.
func (w *Worker) signal(r *proto.SignalRequest) error {
	const op = "signal container"
	if r.Signal < 0 || r.Signal > 64 {
		return fault.New(fault.Invalid, op, r.ID, "%d is not a signal", r.Signal)
	}
	p, err := w.find(op, r.ID, r.ExecID)
	if err != nil {
		return err
	}
	if p.c.record.Runtime != "" && r.ExecID == "" {
		return fault.Wrap(op, r.ID, p.c.runner.signal(r.ID, unix.Signal(r.Signal)))
	}
	w.mu.Lock()
	defer w.mu.Unlock() // so that the descriptor stays this process's
	err = unix.ESRCH
	if p.pidfd >= 0 {
		err = p.signal(unix.Signal(r.Signal), r.Group)
	}
	if err == unix.ESRCH {
		return fault.New(fault.Conflict, op, p.key(), "it is not running")
	}
	if err != nil {
		return fault.New(fault.Internal, op, p.key(), "%w", err)
	}
	return nil
}

// signal sends a signal to a process, or to the group that it leads.
func (p *process) signal(sig unix.Signal, group bool) error {
	// While the process is there the group of its number is its own.
	if group && unix.PidfdSendSignal(p.pidfd, 0, nil, 0) == nil && unix.Kill(-p.pid, sig) == nil {
		return nil
	}
	return unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
}

// resize sets the size of a terminal, or notes it for a process that was not
// started yet.
func (w *Worker) resize(r *proto.ResizeRequest) error {
	const op = "resize terminal of"
	w.mu.Lock()
	p := w.lookup(r.ID, r.ExecID)
	if p == nil || p.end != nil {
		w.mu.Unlock()
		return fault.New(fault.Conflict, op, r.ID, "it is not running")
	}
	p.height, p.width = r.Height, r.Width
	waiting := p.phase == pending
	w.mu.Unlock()
	if waiting {
		return nil
	}
	<-p.begun
	if err := p.io.Resize(r.Height, r.Width); err != nil {
		return fault.New(fault.Conflict, op, p.key(), "%w", err)
	}
	return nil
}

// lookup returns a process, nil if it is unknown. The caller holds mu.
func (w *Worker) lookup(id, execID string) *process {
	c := w.containers[id]
	if c == nil {
		return nil
	}
	if execID == "" {
		return &c.init
	}
	return c.execs[execID]
}

// findOrAwait returns a process that has not ended, one that is still to be
// started if there is none.
func (w *Worker) findOrAwait(op, id, execID string) (*process, error) {
	for {
		if err := checkID(op, id); err != nil {
			return nil, err
		}
		w.mu.Lock()
		c := w.containers[id]
		if c == nil && execID == "" {
			c = w.newContainer(id)
		}
		if c != nil && (execID == "" && c.init.phase != exited || execID != "" && c.init.phase != pending) {
			p := &c.init
			if execID != "" {
				if p = c.execs[execID]; p == nil {
					p = w.newExec(c, execID)
				}
			}
			w.mu.Unlock()
			return p, nil
		}
		w.mu.Unlock()
		if c == nil || execID != "" {
			return nil, fault.New(fault.NotFound, op, id, "the monitor does not know this container")
		}
		if err := w.forget(id); err != nil {
			return nil, err
		}
	}
}

// attach connects a client.
func (w *Worker) attach(r *proto.AttachRequest, f *proto.Frame) error {
	const op = "attach to container"
	if len(f.FDs) != 1 {
		return fault.New(fault.Invalid, op, r.ContainerID, "%d connections were passed, want one", len(f.FDs))
	}
	if r.ExecID != "" {
		if err := checkID(op, r.ExecID); err != nil {
			return err
		}
	}
	p, err := w.findOrAwait(op, r.ContainerID, r.ExecID)
	if err != nil {
		return err
	}
	fd := f.FDs[0]
	f.FDs = nil
	options := stdio.AttachOptions{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, DetachKeys: r.DetachKeys, Prefix: r.Prefix}
	if err := p.io.Attach(fd, options); err != nil {
		return fault.New(fault.Conflict, op, p.key(), "%w", err)
	}
	return nil
}
