package worker

import (
	"path/filepath"
	"strings"
	"time"

	"berth/internal/fault"
	"berth/internal/monitor/keeper"
	"berth/internal/monitor/proto"
	"berth/internal/monitor/stdio"

	"golang.org/x/sys/unix"
)

// phase is where a process is in its life.
type phase byte

const (
	pending  phase = iota // clients wait for it to be started
	starting              //
	running               // until all its output is logged
	exited                //
)

// container is one container. Its fields are guarded by Worker.mu but for those
// that are set once, before it is started.
type container struct {
	id     string
	dir    string
	record record
	state  *stdio.State
	runner runner
	paused bool
	init   process
	execs  map[string]*process
	past   []string      // ids of execs that ended, oldest first
	clean  chan struct{} // closed once nothing but the directory is left of an ended container
	oom    *oomWatch
	// leaving is set while the container is being forgotten, and closed after.
	leaving chan struct{}
}

// process is a container's own process or an exec.
type process struct {
	c      *container
	execID string // "" is the container's own
	token  string // of the request that started it
	phase  phase
	tty    bool
	height uint16 // of the terminal, when it was set before the start
	width  uint16
	io     *stdio.Proc

	begun  chan struct{} // closed when it left the phase starting
	failed error         // why it did not start
	over   chan struct{} // closed when it ended

	pid       int
	startTime uint64
	startedAt time.Time
	pidfd     int // -1 when it ended
	end       *keeper.Message
	exit      *proto.Exit
}

// key names the process in talk with the keeper.
func (p *process) key() string {
	if p.execID == "" {
		return p.c.id
	}
	return p.c.id + "/" + p.execID
}

// path returns the path of a file of the process in its container's directory.
func (p *process) path(name string) string {
	if p.execID != "" {
		name = "exec-" + p.execID + "-" + name
	}
	return filepath.Join(p.c.dir, name)
}

func (p *process) spools() [2]string { return [2]string{p.path("spool1"), p.path("spool2")} }

func (p *process) started() proto.Started { return proto.Started{PID: p.pid, At: p.startedAt} }

// newContainer makes a container that is not started. The caller holds mu.
func (w *Worker) newContainer(id string) *container {
	c := &container{id: id, dir: filepath.Join(w.dir, "containers", id), clean: make(chan struct{})}
	w.newProcess(&c.init, c, "")
	w.containers[id] = c
	return c
}

func (w *Worker) newProcess(p *process, c *container, execID string) {
	*p = process{c: c, execID: execID, pidfd: -1, begun: make(chan struct{}), over: make(chan struct{})}
	p.io = w.pump.NewProc(stdio.Config{Name: p.key()})
}

// newExec makes an exec that is not started. The caller holds mu.
func (w *Worker) newExec(c *container, execID string) *process {
	p := new(process)
	w.newProcess(p, c, execID)
	if c.execs == nil {
		c.execs = map[string]*process{}
	}
	c.execs[execID] = p
	return p
}

// find returns a process that runs.
func (w *Worker) find(op, id, execID string) (*process, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.containers[id]
	if c == nil || c.init.phase == pending {
		return nil, fault.New(fault.NotFound, op, id, "the monitor does not know this container")
	}
	p := &c.init
	if execID != "" {
		if p = c.execs[execID]; p == nil {
			return nil, fault.New(fault.NotFound, op, execID, "the monitor does not know this exec")
		}
	}
	if p.phase != running || p.end != nil {
		return nil, fault.New(fault.Conflict, op, p.key(), "it is not running")
	}
	return p, nil
}

// checkID refuses what could not be the name of a file.
func checkID(op, id string) error {
	ok := id != "" && len(id) <= 128 && id[0] != '.' && id[0] != '-'
	for _, r := range id {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r))
	}
	if !ok {
		return fault.New(fault.Invalid, op, id, "not an id: letters, digits, '_', '.' and '-' make one")
	}
	return nil
}

// list describes all containers that were started.
func (w *Worker) list() []proto.ContainerState {
	w.mu.Lock()
	var starts []chan struct{}
	for _, c := range w.containers {
		if c.init.phase == starting {
			starts = append(starts, c.init.begun)
		}
	}
	w.mu.Unlock()
	for _, begun := range starts {
		<-begun
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]proto.ContainerState, 0, len(w.containers))
	for _, c := range w.containers {
		p := &c.init
		if p.phase != running && p.phase != exited {
			continue
		}
		s := proto.ContainerState{
			ID: c.id, PID: p.pid, StartTime: p.startTime, StartedAt: p.startedAt,
			Exited: p.phase == exited, Exit: p.exit, Paused: c.paused,
		}
		for _, x := range c.execs {
			if x.phase == running || x.phase == exited {
				s.Execs = append(s.Execs, proto.ExecState{ID: x.execID, PID: x.pid, StartedAt: x.startedAt, Exited: x.phase == exited, Exit: x.exit})
			}
		}
		all = append(all, s)
	}
	return all
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}
