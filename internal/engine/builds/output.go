package builds

import (
	"context"
	"io"
	"os"
	"sync"

	"berth/internal/build/solve"
	"berth/internal/engine/session"
	"berth/internal/fault"
	"berth/internal/monitor"

	"github.com/moby/moby/api/pkg/stdcopy"
)

// output is the way of a step's output to its writers.
type output struct {
	conn    *os.File
	copying sync.WaitGroup
}

func (s *Steps) output(ctx context.Context, step solve.Step) (*output, error) {
	near, far, err := session.Pair()
	if err != nil {
		return nil, err
	}
	defer far.Close()
	if err := s.m.Monitor.Attach(ctx, monitor.AttachRequest{ContainerID: step.ID, Stdout: true, Stderr: true}, far); err != nil {
		near.Close()
		return nil, err
	}
	o := &output{conn: near}
	stdout, stderr := orDiscard(step.Stdout), orDiscard(step.Stderr)
	o.copying.Go(func() { _, _ = stdcopy.StdCopy(stdout, stderr, near) })
	return o, nil
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// wait returns when everything was passed on that the step wrote. The monitor
// closes the connection then.
func (o *output) wait() {
	o.copying.Wait()
	o.conn.Close()
}

// end cuts the connection.
func (o *output) end() {
	o.conn.Close()
	o.copying.Wait()
}

// end waits for the end of a step, and ends it when ctx does.
func (s *Steps) end(ctx context.Context, id string, happenings <-chan monitor.Event) (monitor.Exit, error) {
	canceled := ctx.Done()
	for {
		select {
		case <-canceled:
			canceled = nil
			if err := s.m.Monitor.KillAll(context.WithoutCancel(ctx), id); err != nil && !fault.Is(err, fault.NotFound) {
				return monitor.Exit{}, err
			}
		case ev, open := <-happenings:
			switch {
			case !open:
				return monitor.Exit{}, fault.New(fault.Canceled, "run build step", id, "the engine is stopping")
			case ev.Type == monitor.EventExit && ev.ID == id && ev.Exit != nil:
				return *ev.Exit, nil
			case ev.Type == monitor.EventLost:
				if exit, over := s.over(id); over {
					return exit, nil
				}
			}
		}
	}
}

// over asks the monitor whether a step ended while it could not be heard.
func (s *Steps) over(id string) (monitor.Exit, bool) {
	state, known, err := s.m.Monitor.State(s.m.Life, id)
	switch {
	case err != nil || !known:
		return monitor.Exit{Code: monitor.UnknownCode, Unknown: true}, true
	case state.Exited && state.Exit != nil:
		return *state.Exit, true
	}
	return monitor.Exit{}, state.Exited
}
