package worker

import (
	"berth/internal/fault"
	"berth/internal/monitor/keeper"
	"berth/internal/monitor/proto"
	"berth/internal/monitor/stdio"

	"golang.org/x/sys/unix"
)

// exec runs a further process in a container.
func (w *Worker) exec(req *proto.ExecRequest) (proto.Started, error) {
	const op = "exec in container"
	if err := checkID(op, req.ExecID); err != nil {
		return proto.Started{}, err
	}
	if req.Process == nil {
		return proto.Started{}, fault.New(fault.Invalid, op, req.ContainerID, "process is missing")
	}
	p, mine, err := w.claimExec(op, req)
	if err != nil {
		return proto.Started{}, err
	}
	if !mine {
		<-p.begun
		return p.started(), p.failed
	}
	err = w.launchExec(p, req)
	if err != nil {
		w.abandonExec(p)
	}
	w.begun(p, err)
	return p.started(), err
}

func (w *Worker) claimExec(op string, req *proto.ExecRequest) (p *process, mine bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[req.ContainerID]
	if c == nil || c.init.phase == pending {
		return nil, false, fault.New(fault.NotFound, op, req.ContainerID, "the monitor does not know this container")
	}
	if c.init.phase != running || c.init.end != nil || w.leaving {
		return nil, false, fault.New(fault.Conflict, op, req.ContainerID, "container is not running")
	}
	if p = c.execs[req.ExecID]; p == nil {
		p = w.newExec(c, req.ExecID)
	}
	switch {
	case p.phase == pending:
		p.phase, p.token = starting, req.Token
		w.busy++
		return p, true, nil
	case p.token == req.Token && req.Token != "":
		return p, false, nil
	}
	return nil, false, fault.New(fault.Conflict, op, req.ExecID, "it was started already")
}

func (w *Worker) launchExec(p *process, req *proto.ExecRequest) error {
	spec := req.Process
	w.applySize(p, spec)
	p.tty = spec.Terminal
	streams, err := makePipes(req.OpenStdin, p.tty)
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
	// A foreign runtime wants the pipes before the process exists; so does a
	// successor, should this process be killed in between.
	hold := keeper.Message{Op: keeper.OpHold, Key: p.key()}
	streams.hold(&hold)
	w.tellKeeper(hold)
	got, err := p.c.runner.exec(p.c.id, spec, streams.theirs)
	if err != nil {
		return err
	}
	w.adoptLaunched(p, got)
	streams.ours.TTY = got.console
	opened = true
	return w.openExecStreams(p, streams.ours)
}

func (w *Worker) openExecStreams(p *process, files stdio.Files) error {
	p.io.Configure(stdio.Config{
		Name: p.key(), Spools: p.spools(), CloseStdin: true,
		OnDrained:     func() { w.drained(p) },
		OnStdinClosed: func() { w.stdinClosed(p) },
		OnDetach:      func() { w.publish(proto.Event{Type: proto.EventDetach, ID: p.c.id, ExecID: p.execID}) },
	})
	return p.io.Open(files, p.tty)
}

func (w *Worker) abandonExec(p *process) {
	if p.pidfd >= 0 { // it runs, but its output can't be moved
		_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
		closeFD(p.pidfd)
	}
	p.io.Close()
	w.tellKeeper(keeper.Message{Op: keeper.OpDrop, Key: p.key()})
	w.mu.Lock()
	delete(p.c.execs, p.execID)
	w.mu.Unlock()
}

// maxPastExecs is how many ended execs of a container are remembered, for an
// engine that was away when they ended.
const maxPastExecs = 64

// rememberExec files an exec that ended and forgets the oldest one. The caller
// holds mu.
func (c *container) rememberExec(p *process) {
	c.past = append(c.past, p.execID)
	if len(c.past) > maxPastExecs {
		delete(c.execs, c.past[0])
		c.past = c.past[1:]
	}
}
