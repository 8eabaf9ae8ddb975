package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"sync"
	"time"

	"berth/internal/build/solve"
	"berth/internal/fault"
	"berth/internal/wire"
)

// agents are connections to ssh agents of clients that builds wait for, by names
// that nobody guesses.
type agents struct {
	mu      sync.Mutex // guards waiting
	waiting map[string]chan io.ReadWriteCloser
}

// agentPatience bounds how long a client may take to connect its agent.
const agentPatience = 30 * time.Second

// dial asks a build's client for a connection to one of its agents.
func (a *agents) dial(ctx context.Context, tell func(wire.BuildEvent) error, agent string) (io.ReadWriteCloser, error) {
	id, ready := rand.Text(), make(chan io.ReadWriteCloser, 1)
	a.mu.Lock()
	if a.waiting == nil {
		a.waiting = map[string]chan io.ReadWriteCloser{}
	}
	a.waiting[id] = ready
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	err := tell(wire.BuildEvent{Kind: wire.BuildAgent, Name: agent, Shell: id})
	if err == nil {
		select {
		case c := <-ready:
			return c, nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if a.take(id) == nil { // it came at the last moment
		(<-ready).Close()
	}
	return nil, fault.New(fault.Unavailable, "connect to ssh agent", agent, "%w", err)
}

func (a *agents) take(id string) chan io.ReadWriteCloser {
	a.mu.Lock()
	defer a.mu.Unlock()
	ready := a.waiting[id]
	delete(a.waiting, id)
	return ready
}

// buildAgent is POST /berth/build/agent: a connection to an agent that a build
// asked for; see wire.BuildAgent.
func buildAgent(x *exchange) error {
	ready := x.api.agents.take(x.query("id"))
	if ready == nil {
		return fault.New(fault.NotFound, "connect ssh agent", "", "nobody waits for it")
	}
	var c io.ReadWriteCloser = closed{}
	defer func() { ready <- c }() // whatever happens, somebody waits for it
	conn, err := x.agentConn()
	if err == nil {
		c = conn
	}
	return err
}

// agentConn turns the request's connection into one to the client's agent.
func (x *exchange) agentConn() (*prefixed, error) {
	header := x.upgradeHeader(true)
	taken, err := x.takeOver()
	if err != nil {
		return nil, err
	}
	defer taken.Close()
	if _, err := taken.file.Write(header); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(taken.file)
	if err != nil {
		return nil, err
	}
	return &prefixed{conn, io.MultiReader(bytes.NewReader(taken.prefix), conn)}, nil
}

// prefixed is a connection of which something was read already.
type prefixed struct {
	net.Conn
	r io.Reader
}

func (p *prefixed) Read(b []byte) (int, error) { return p.r.Read(b) }

// closed is a connection that failed.
type closed struct{}

func (closed) Read([]byte) (int, error)  { return 0, io.EOF }
func (closed) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (closed) Close() error              { return nil }

// secrets are what came with a request, for as long as it lasts.
type secrets struct {
	values map[string][]byte
	ssh    []string // agents that the client serves
	agents *agents
	tell   func(wire.BuildEvent) error
}

// Secret implements solve.Secrets.
func (s *secrets) Secret(_ context.Context, id string) ([]byte, error) {
	if v, ok := s.values[id]; ok {
		return v, nil
	}
	return nil, fault.New(fault.NotFound, "find secret", id, "it was not given")
}

// Agent implements solve.Secrets.
func (s *secrets) Agent(id string) (solve.Dial, error) {
	for _, name := range s.ssh {
		if name == id {
			return func(ctx context.Context) (io.ReadWriteCloser, error) { return s.agents.dial(ctx, s.tell, id) }, nil
		}
	}
	return nil, fault.New(fault.NotFound, "find agent", id, "it was not given")
}
