package engine

import (
	"context"
	"sync"
	"time"

	"berth/internal/container"
	"berth/internal/fault"
)

// StopAll stops every container that runs, each with its own time-out and all
// within the given time, because the engine itself is about to end. Those that
// their policy wants up are started by the next engine.
func (e *Engine) StopAll(ctx context.Context, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var work sync.WaitGroup
	for _, c := range e.containers.All() {
		if !c.State().Up() {
			continue
		}
		work.Go(func() {
			p := c.Record().HostConfig.RestartPolicy
			o := StopOptions{revive: p.IsAlways() || p.IsUnlessStopped(), by: container.ByShutdown}
			err := e.stop(ctx, c, o)
			if ctx.Err() != nil && err != nil && c.State().Alive() {
				ended, forget := c.Wait("not-running")
				defer forget()
				err = e.finishOff(context.WithoutCancel(ctx), c, ended)
			}
			if err != nil && !fault.Is(err, fault.NotModified) {
				e.log.Warn("stop a container before the engine ends", "container", c.ID, "error", err)
			}
		})
	}
	work.Wait()
}
