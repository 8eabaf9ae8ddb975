package engine

import (
	"context"

	"berth/internal/container"
	"berth/internal/fault"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// onUnhealthy is the label, or the annotation in the host configuration, that says
// what happens to a container whose health check has failed: restart, stop, or
// none, which is the default.
const onUnhealthy = "berth.on-unhealthy"

// checkOnUnhealthy refuses other words.
func checkOnUnhealthy(c *api.Config, hc *api.HostConfig) error {
	switch action := unhealthyAction(c, hc); action {
	case "", "none":
	case "restart", "stop":
		if healthTest(c) == nil {
			return fault.New(fault.Invalid, "", "", "%s=%s needs a health check", onUnhealthy, action).WithHint("add one with --health-cmd")
		}
	default:
		return fault.New(fault.Invalid, "", "", "invalid value %q of %s: it is restart, stop or none", action, onUnhealthy)
	}
	return nil
}

// unhealthyAction is what a container asks for; an annotation wins over a label of
// its image.
func unhealthyAction(c *api.Config, hc *api.HostConfig) string {
	if hc != nil && hc.Annotations[onUnhealthy] != "" {
		return hc.Annotations[onUnhealthy]
	}
	return c.Labels[onUnhealthy]
}

// unhealthy acts on a container that is unhealthy. When the engine is killed
// meanwhile, the next one finds either a container that is still unhealthy or one
// whose record says that it is to be started again.
func (e *Engine) unhealthy(c *container.Container) {
	rec := c.Record()
	action := unhealthyAction(rec.Config, rec.HostConfig)
	if action != "restart" && action != "stop" {
		return
	}
	e.emit(rec, events.Action("on_unhealthy: "+action), nil)
	e.work.Go(func() {
		ctx, cancel := context.WithCancel(e.life)
		defer cancel()
		revive := action == "restart" && !rec.HostConfig.AutoRemove
		err := e.stop(ctx, c, StopOptions{revive: revive, by: container.ByPolicy})
		if err == nil && revive && c.State().Reviving { // nobody has stopped it by hand meanwhile
			err = e.ContainerStart(ctx, c.ID, "")
		}
		if err != nil && !fault.Is(err, fault.NotModified) && ctx.Err() == nil {
			e.log.Warn("act on an unhealthy container", "container", c.ID, "action", action, "error", err)
		}
	})
}
