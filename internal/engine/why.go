package engine

import (
	"bytes"
	"context"
	"path/filepath"
	"strconv"

	"berth/internal/container"
	"berth/internal/engine/why"
	"berth/internal/wire"
)

// ContainerWhy collects what is known of how a container ended, why it does not
// start or how it fares, and what explains it, the most likely first.
func (e *Engine) ContainerWhy(ctx context.Context, ref string) (*wire.Why, error) {
	c, err := e.containers.Find(ref)
	if err != nil {
		return nil, err
	}
	rec := c.Record()
	var log bytes.Buffer
	noLog := e.ContainerLogs(ctx, rec.ID, LogsOptions{Stdout: true, Stderr: true, Tail: strconv.Itoa(why.LogLines)}, &log, &log)
	known := why.Evidence{
		Record: rec, Boot: e.boot, Others: e.containers,
		Check: healthTest(rec.Config), Unhealthy: unhealthyAction(rec.Config, rec.HostConfig), Settled: restartReset,
		Log: log.String(), NoLog: noLog, Root: e.rootDirs(rec),
	}
	return known.Explain(), ctx.Err()
}

// rootDirs lists the directories that a container's root is stacked of, the
// uppermost first; none when its layers are gone.
func (e *Engine) rootDirs(rec *container.Record) []string {
	dirs, err := e.layers.Lower(rec.Layers)
	if err != nil {
		return nil
	}
	if upper := filepath.Join(e.dir(rec.ID), "upper"); exists(upper) {
		dirs = append([]string{upper}, dirs...)
	}
	return dirs
}
