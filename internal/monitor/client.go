package monitor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"slices"
	"sync"

	"berth/internal/fault"
	"berth/internal/monitor/proto"
	"berth/internal/runtime"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Client talks to the monitor of one run directory. Its methods may be called
// by any number of goroutines. When the monitor goes away the client connects
// anew, starting a monitor if none runs; calls that were under way are asked
// again, because every request may be.
type Client struct {
	link *link
}

// Start starts a container and returns once its program runs. A program that
// cannot be executed is a *runtime.ExecError. A container of this id that ended
// is forgotten first; one that runs is a conflict.
func (c *Client) Start(ctx context.Context, req StartRequest) (Started, error) {
	var started Started
	req.Token = rand.Text()
	blob := req.SpecJSON
	if blob == nil {
		var err error
		if blob, err = json.Marshal(req.Spec); err != nil {
			return started, fault.New(fault.Invalid, "start container", req.ID, "encode its specification: %w", err)
		}
	}
	err := c.link.call(ctx, proto.KindStart, &req, blob, &started)
	return started, err
}

// Exec runs a further process in a running container and returns once its
// program runs.
func (c *Client) Exec(ctx context.Context, req ExecRequest) (Started, error) {
	var started Started
	req.Token = rand.Text()
	err := c.link.call(ctx, proto.KindExec, &req, nil, &started)
	return started, err
}

// Attach hands a connected socket to the monitor, which gets its own descriptor
// of it; the caller closes conn afterwards. Output is framed as docker does (8
// bytes of header) unless the process has a terminal; input is raw. The process
// may not have been started yet. When it ends, the connection is closed after
// all its output was delivered.
func (c *Client) Attach(ctx context.Context, req AttachRequest, conn *os.File) error {
	return c.link.call(ctx, proto.KindAttach, &req, nil, nil, conn)
}

// Signal sends a signal to a container's process or, with execID, to an exec.
func (c *Client) Signal(ctx context.Context, id, execID string, signal int) error {
	req := proto.SignalRequest{Target: proto.Target{ID: id, ExecID: execID}, Signal: signal}
	return c.link.call(ctx, proto.KindSignal, req, nil, nil)
}

// SignalGroup sends a signal to an exec's process and to what it has started in its
// process group.
func (c *Client) SignalGroup(ctx context.Context, id, execID string, signal int) error {
	req := proto.SignalRequest{Target: proto.Target{ID: id, ExecID: execID}, Signal: signal, Group: true}
	return c.link.call(ctx, proto.KindSignal, req, nil, nil)
}

// KillAll kills every process of a container and returns when none is left.
func (c *Client) KillAll(ctx context.Context, id string) error {
	return c.link.call(ctx, proto.KindKillAll, proto.Target{ID: id}, nil, nil)
}

// Resize sets the size of a terminal, in characters. A process that was not
// started yet gets the size when it is.
func (c *Client) Resize(ctx context.Context, id, execID string, height, width uint16) error {
	req := proto.ResizeRequest{Target: proto.Target{ID: id, ExecID: execID}, Height: height, Width: width}
	return c.link.call(ctx, proto.KindResize, req, nil, nil)
}

// Pause freezes a container.
func (c *Client) Pause(ctx context.Context, id string) error {
	return c.link.call(ctx, proto.KindPause, proto.Target{ID: id}, nil, nil)
}

// Resume thaws a container.
func (c *Client) Resume(ctx context.Context, id string) error {
	return c.link.call(ctx, proto.KindResume, proto.Target{ID: id}, nil, nil)
}

// Update changes a container's limits; unset fields stay.
func (c *Client) Update(ctx context.Context, id string, r *specs.LinuxResources) error {
	return c.link.call(ctx, proto.KindUpdate, proto.UpdateRequest{ID: id, Resources: r}, nil, nil)
}

// Pids returns the host pids of a container's processes.
func (c *Client) Pids(ctx context.Context, id string) ([]int, error) {
	var pids []int
	err := c.link.call(ctx, proto.KindPids, proto.Target{ID: id}, nil, &pids)
	return pids, err
}

// Stats reads a container's counters.
func (c *Client) Stats(ctx context.Context, id string) (*runtime.Stats, error) {
	stats := new(runtime.Stats)
	if err := c.link.call(ctx, proto.KindStats, proto.Target{ID: id}, nil, stats); err != nil {
		return nil, err
	}
	return stats, nil
}

// List returns every container that runs or that ended and was not forgotten.
func (c *Client) List(ctx context.Context) ([]ContainerState, error) {
	var all []ContainerState
	err := c.link.call(ctx, proto.KindList, struct{}{}, nil, &all)
	return all, err
}

// State returns what List has of one container, and whether it has it.
func (c *Client) State(ctx context.Context, id string) (ContainerState, bool, error) {
	all, err := c.List(ctx)
	if at := slices.IndexFunc(all, func(s ContainerState) bool { return s.ID == id }); at >= 0 {
		return all[at], true, err
	}
	return ContainerState{}, false, err
}

// Forget frees everything of a container that ended or never started: its run
// directory, its cgroup, the keeper's descriptors, connections that wait for
// it. It refuses while the container runs and does nothing when it is unknown.
func (c *Client) Forget(ctx context.Context, id string) error {
	return c.link.call(ctx, proto.KindForget, proto.Target{ID: id}, nil, nil)
}

// Events returns what happens from now on, until ctx ends; the channel is
// closed then. Nothing is dropped however slowly it is read.
func (c *Client) Events(ctx context.Context) <-chan Event {
	return c.link.subscribe(ctx)
}

// Close ends the connection. The monitor goes on for as long as a container
// runs.
func (c *Client) Close() error { return c.link.close() }

// queue is an unbounded queue of events between the connection's reader, which
// must never wait, and one subscriber.
type queue struct {
	mu     sync.Mutex // guards events
	events []Event
	wake   chan struct{} // holds one token while events may be queued
}

func (q *queue) push(e Event) {
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) take() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	events := q.events
	q.events = nil
	return events
}

// run moves events to out until ctx ends.
func (q *queue) run(ctx context.Context, out chan<- Event) {
	defer close(out)
	for {
		for _, e := range q.take() {
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
			return
		}
	}
}
