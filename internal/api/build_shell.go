package api

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"sync"

	"berth/internal/build"
	"berth/internal/build/solve"
	"berth/internal/engine/builds"
	"berth/internal/fault"
)

// shells are the failed steps whose roots wait for somebody to look at them, by
// names that nobody guesses.
type shells struct {
	mu sync.Mutex // guards by
	by map[string]*shell
}

// shell is one of them. Its root is there as long as the build's client is.
type shell struct {
	ctx  context.Context // the build's
	step solve.Step
	done chan struct{} // closed when the session is over

	mu    sync.Mutex // guards taken
	taken bool
}

// failedStep returns what a failed build kept, nil for nothing.
func failedStep(err error) *solve.Failed {
	if f := (*build.Failure)(nil); errors.As(err, &f) {
		return f.Failed
	}
	return nil
}

// offer makes a failed step's root available until its session or ctx is over,
// and tells its name.
func (s *shells) offer(ctx context.Context, failed *solve.Failed, tell func(id string)) {
	defer failed.Release()
	one := &shell{ctx: ctx, step: failed.Step, done: make(chan struct{})}
	id := rand.Text()
	s.mu.Lock()
	if s.by == nil {
		s.by = map[string]*shell{}
	}
	s.by[id] = one
	s.mu.Unlock()
	tell(id)
	select {
	case <-one.done:
	case <-ctx.Done():
		one.mu.Lock()
		taken := one.taken
		one.taken = true // nobody begins now
		one.mu.Unlock()
		if taken {
			<-one.done
		}
	}
	s.mu.Lock()
	delete(s.by, id)
	s.mu.Unlock()
}

func (x *exchange) shell() (*shell, error) {
	s := &x.api.shells
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.by[x.query("id")]; one != nil {
		return one, nil
	}
	return nil, fault.New(fault.NotFound, "find failed step", "", "its build is over")
}

// buildShell is POST /berth/build/shell: a terminal in a failed step's root.
func buildShell(x *exchange) error {
	one, err := x.shell()
	if err != nil {
		return err
	}
	height, width, err := x.terminalSize()
	if err != nil {
		return err
	}
	one.mu.Lock()
	busy := one.taken
	one.taken = true
	one.mu.Unlock()
	if busy {
		return fault.New(fault.Conflict, "open shell", "", "somebody has it already")
	}
	defer close(one.done)
	o := builds.ShellOptions{Header: x.upgradeHeader(true), Height: uint(height), Width: uint(width)}
	conn, err := x.takeOver()
	if err != nil {
		return err
	}
	defer conn.Close()
	o.Prefix = conn.prefix
	if err := x.api.engine.BuildShell(one.ctx, one.step, o, conn.file); err != nil && one.ctx.Err() == nil {
		conn.fail(x, err)
	}
	return nil
}

func resizeBuildShell(x *exchange) error {
	one, err := x.shell()
	if err != nil {
		return err
	}
	height, width, err := x.consoleSize()
	if err != nil {
		return err
	}
	if err := x.api.engine.BuildShellResize(x.ctx(), one.step, height, width); err != nil {
		return err
	}
	return x.done(http.StatusOK)
}

// terminalSize is consoleSize for clients that may not know it: 0 then.
func (x *exchange) terminalSize() (h, w uint16, err error) {
	if x.query("h") == "" && x.query("w") == "" {
		return 0, 0, nil
	}
	return x.consoleSize()
}
