package worker

import (
	"os"
	"strings"
	"time"

	"berth/internal/fault"
	"berth/internal/monitor/keeper"
	"berth/internal/monitor/proto"
	"berth/internal/monitor/stdio"

	"golang.org/x/sys/unix"
)

// processEnded takes the keeper's word that a process ended. Nothing is told to
// anyone before its output is logged.
func (w *Worker) processEnded(m keeper.Message) {
	id, execID, _ := strings.Cut(m.Key, "/")
	w.mu.Lock()
	p := w.lookup(id, execID)
	if p == nil || p.end != nil {
		w.mu.Unlock()
		return
	}
	p.end = &m
	ready := p.phase == running // else whoever starts it goes on
	w.mu.Unlock()
	if ready {
		w.windUp(p)
	}
}

// windUp finishes in a goroutine, because a slow disk must not hold up the ends
// of others.
func (w *Worker) windUp(p *process) { go w.finish(p) }

// finish has the rest of a process's output logged.
func (w *Worker) finish(p *process) {
	if p.execID == "" && p.c.record.SharedPID {
		// What it left running would go on unseen, and write into its pipes.
		if err := p.c.runner.killAll(p.c.id); err != nil && !fault.Is(err, fault.NotFound) {
			warn("kill what is left of %s: %v", p.c.id, err)
		}
	}
	p.io.Exit()
}

// drained tells of the end of a process, all output of which is in the log.
func (w *Worker) drained(p *process) {
	if p.execID != "" {
		w.execDrained(p)
		return
	}
	c := p.c
	exit := exitOf(p.end)
	exit.OOMKilled = c.state.Get().OOM || w.ranOutOfMemory(c, exit)
	exit.PeakMemory = peakMemory(c)
	if exit.OOMKilled {
		if err := c.state.Update(func(s *stdio.Progress) { s.OOM = true }); err != nil {
			warn("%s: %v", c.id, err)
		}
		w.ooms.tellLast(c)
	}
	w.mu.Lock()
	p.exit, p.phase = exit, exited
	c.paused = false
	w.mu.Unlock()
	close(p.over)
	w.publish(proto.Event{Type: proto.EventExit, ID: c.id, Exit: exit})
	go w.cleanUp(c)
}

func (w *Worker) execDrained(p *process) {
	exit := exitOf(p.end)
	w.mu.Lock()
	p.exit, p.phase = exit, exited
	pidfd := p.pidfd
	p.pidfd = -1
	p.c.rememberExec(p)
	w.mu.Unlock()
	close(p.over)
	w.publish(proto.Event{Type: proto.EventExecExit, ID: p.c.id, ExecID: p.execID, Exit: exit})
	closeFD(pidfd)
	_ = os.Remove(p.path("exit.json"))
	w.tellKeeper(keeper.Message{Op: keeper.OpDrop, Key: p.key()})
}

// cleanUp frees what the runtime has of an ended container: its cgroup above
// all. Nobody waits for it but forget.
func (w *Worker) cleanUp(c *container) {
	w.ooms.unwatch(c)
	removeFromRuntime(c)
	w.mu.Lock()
	pidfd := c.init.pidfd
	c.init.pidfd = -1
	w.mu.Unlock()
	closeFD(pidfd)
	c.state.Close()
	close(c.clean)
	if w.clientless() {
		w.leaveWhenIdle(lastClient)
	}
}

func exitOf(m *keeper.Message) *proto.Exit {
	exit := &proto.Exit{Unknown: m.Unknown, At: time.Unix(0, m.At).UTC(), Code: proto.UnknownCode}
	if !m.Unknown {
		exit.Code, exit.Signal = keeper.ExitCode(m.Status)
	}
	return exit
}

// ranOutOfMemory reports whether the kernel killed anything in a container for
// lack of memory. Its cgroup is still there. One without a limit is only asked
// when the end looks like such a kill, which then was the whole machine's.
func (w *Worker) ranOutOfMemory(c *container, exit *proto.Exit) bool {
	if c.oom != nil {
		n, _ := oomKills(c.oom.file)
		return n > 0
	}
	if !c.record.MemoryLimit && exit.Code != 128+int(unix.SIGKILL) {
		return false
	}
	n, err := c.runner.oomCount(c.id)
	return err == nil && n > 0
}

// forget frees everything of a container that ended or was never started.
func (w *Worker) forget(id string) error {
	w.mu.Lock()
	c := w.containers[id]
	if c == nil {
		w.mu.Unlock()
		return nil
	}
	if c.init.phase == starting || c.init.phase == running {
		ended := c.init.end != nil
		w.mu.Unlock()
		if ended { // in a moment it is over
			<-c.init.over
			return w.forget(id)
		}
		return fault.New(fault.Conflict, "forget container", id, "it is running")
	}
	if c.init.phase == pending {
		delete(w.containers, id)
		w.mu.Unlock()
		c.init.io.Close()
		return nil
	}
	if c.leaving != nil { // somebody else is at it
		w.mu.Unlock()
		<-c.leaving
		return nil
	}
	c.leaving = make(chan struct{})
	execs := make([]*process, 0, len(c.execs))
	for _, x := range c.execs {
		execs = append(execs, x)
	}
	w.mu.Unlock()

	<-c.clean
	for _, x := range execs {
		w.endExec(x)
	}
	// The record goes first: what is left of a directory without one is nothing that
	// a worker after this one could take for a container that runs.
	_ = os.Remove(c.init.path("state"))
	err := os.RemoveAll(c.dir)
	w.tellKeeper(keeper.Message{Op: keeper.OpDrop, Key: id})
	w.mu.Lock()
	delete(w.containers, id) // last: from here on the id may be used again
	w.mu.Unlock()
	close(c.leaving)
	if err != nil {
		return fault.New(fault.Internal, "forget container", id, "%w", err)
	}
	return nil
}

// endExec waits for an exec that dies with its container.
func (w *Worker) endExec(x *process) {
	w.mu.Lock()
	phase, pidfd := x.phase, x.pidfd
	w.mu.Unlock()
	switch phase {
	case pending:
		x.io.Close()
	case starting:
		<-x.begun
		w.endExec(x)
	case running:
		if pidfd >= 0 {
			_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		}
		<-x.over
	}
}
