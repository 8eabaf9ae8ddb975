package container

import (
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
)

// Exec is one command run, or to be run, inside a container. Execs live in
// memory and in the monitor; they end with their container.
type Exec struct {
	ID          string
	ContainerID string
	Request     container.ExecCreateRequest
	Quiet       bool // the engine's own: no events

	mu       sync.Mutex // guards everything below
	started  bool
	running  bool
	pid      int
	exit     int
	ended    time.Time // as this process learned of it: its clock can't be set
	finished bool
	begun    chan struct{} // closed by Began or Ended, whichever comes first
	done     chan struct{}
}

// NewExec returns an exec that was not started.
func NewExec(id, containerID string, req container.ExecCreateRequest) *Exec {
	return &Exec{ID: id, ContainerID: containerID, Request: req, begun: make(chan struct{}), done: make(chan struct{})}
}

// Claim marks the exec as started; only the first caller gets true.
func (x *Exec) Claim() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.started {
		return false
	}
	x.started = true
	return true
}

// Began records the process of a started exec, unless its end came first.
func (x *Exec) Began(pid int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.started = true
	x.pid = pid
	x.running = !x.finished
	x.begin()
}

// begin tells that the outcome of the start is known. The caller holds the lock.
func (x *Exec) begin() {
	select {
	case <-x.begun:
	default:
		close(x.begun)
	}
}

// Begun is closed when it is known whether the exec runs, for one that somebody
// has started; it is nil for one that nobody has.
func (x *Exec) Begun() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.started {
		return nil
	}
	return x.begun
}

// Ended records the exit code. Later calls change nothing.
func (x *Exec) Ended(code int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.finished {
		return
	}
	x.started, x.running, x.finished, x.exit, x.ended = true, false, true, code, time.Now()
	x.begin()
	close(x.done)
}

// Done is closed when the exec has ended.
func (x *Exec) Done() <-chan struct{} { return x.done }

// Status returns the process id, whether it runs, and the exit code, which is
// nil until the exec has ended.
func (x *Exec) Status() (pid int, running bool, code *int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.finished {
		c := x.exit
		code = &c
	}
	return x.pid, x.running, code
}

// EndedBefore reports whether the exec ended before t.
func (x *Exec) EndedBefore(t time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.finished && x.ended.Before(t)
}

// execKept is how long a finished exec can still be inspected.
const execKept = 5 * time.Minute

// Execs finds execs by id and by container.
type Execs struct {
	mu   sync.Mutex // guards byID; taken before no other lock but an Exec's own
	byID map[string]*Exec
}

// Add makes an exec findable and forgets those which ended long ago.
func (x *Execs) Add(e *Exec) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.byID == nil {
		x.byID = make(map[string]*Exec)
	}
	old := time.Now().Add(-execKept)
	for id, e := range x.byID {
		if e.EndedBefore(old) {
			delete(x.byID, id)
		}
	}
	x.byID[e.ID] = e
}

// Get returns the exec with this id, or nil.
func (x *Execs) Get(id string) *Exec {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.byID[id]
}

// Of returns the ids of a container's execs which have not ended.
func (x *Execs) Of(containerID string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ids []string
	for id, e := range x.byID {
		if e.ContainerID != containerID {
			continue
		}
		if _, _, code := e.Status(); code == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// EndAll records the end of every exec of a container which has ended.
func (x *Execs) EndAll(containerID string, code int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.byID {
		if e.ContainerID == containerID {
			e.Ended(code)
		}
	}
}

// Drop forgets every exec of a container.
func (x *Execs) Drop(containerID string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, e := range x.byID {
		if e.ContainerID == containerID {
			delete(x.byID, id)
		}
	}
}

// Remove forgets one exec.
func (x *Execs) Remove(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, id)
}
