package engine

import (
	"context"

	"berth/internal/container"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
)

// ContainerWait registers for a container's end or removal. The registration
// holds when it returns; the channel gets one result, or is closed without one
// when ctx ends first.
func (e *Engine) ContainerWait(ctx context.Context, ref string, cond api.WaitCondition) (<-chan WaitResult, error) {
	switch cond {
	case "", api.WaitConditionNotRunning, api.WaitConditionNextExit, api.WaitConditionRemoved:
	default:
		return nil, fault.New(fault.Invalid, "", "", "invalid condition: %q", cond)
	}
	c, err := e.containers.Find(ref)
	if err != nil {
		return nil, err
	}
	ended, forget := c.Wait(cond)
	out := make(chan WaitResult, 1)
	go func() {
		defer close(out)
		select {
		case r := <-ended:
			out <- waitResult(r)
		case <-ctx.Done():
			forget()
		case <-e.life.Done():
			forget()
			out <- WaitResult{Err: fault.New(fault.Unavailable, "", "", "the engine is going down; wait again")}
		}
	}()
	return out, nil
}

func waitResult(r container.Result) WaitResult {
	return WaitResult{StatusCode: int64(r.ExitCode), Err: r.Err}
}
