package engine

import (
	"context"
	"io"

	"berth/internal/engine/measure"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// ContainerStats returns samples of a container's counters: one every second while
// stream is set, otherwise one that holds the difference to another one shortly
// before, or, with oneShot, one at once. The channel is closed at the end.
func (e *Engine) ContainerStats(ctx context.Context, ref string, stream, oneShot bool) (<-chan api.StatsResponse, error) {
	c, err := e.containers.Find(ref)
	if err != nil {
		return nil, err
	}
	return e.sampler.Samples(ctx, c, stream, oneShot), nil
}

// ContainerTop lists the processes of a container as the host's ps shows them.
func (e *Engine) ContainerTop(ctx context.Context, ref, psArgs string) (api.TopResponse, error) {
	none := api.TopResponse{}
	c, err := e.containers.Find(ref)
	if err != nil {
		return none, err
	}
	if s := c.State(); !s.Alive() {
		if s.Status == api.StateRestarting {
			return none, fault.New(fault.Conflict, "", "", "container %s is restarting, wait until the container is running", c.ID)
		}
		return none, fault.New(fault.Conflict, "", "", "container %s is not running", c.ID)
	}
	pids, err := e.monitor.Pids(ctx, c.ID)
	if err != nil {
		return none, err
	}
	top, err := measure.Processes(ctx, pids, psArgs)
	if err == nil {
		e.emit(c.Record(), events.ActionTop, nil)
	}
	return top, err
}

// Metrics writes what there is to know about the engine in the text format of
// Prometheus.
func (e *Engine) Metrics(ctx context.Context, out io.Writer) error {
	usage, err := e.images.Usage(ctx)
	if err != nil {
		return err
	}
	now := measure.Census{Version: e.cfg.Version, Commit: e.cfg.Commit, Opened: e.opened, Images: usage,
		Volumes: len(e.volumes.List()), Networks: e.nets.Count(), EventReaders: e.bus.Readers()}
	for _, c := range e.containers.All() {
		now.Containers = append(now.Containers, c.State())
	}
	return e.counters.Write(out, now)
}
