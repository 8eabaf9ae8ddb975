package engine

import (
	"context"
	"io"
	"os"
	"strconv"

	"berth/internal/container"
	"berth/internal/engine/session"
	"berth/internal/engine/vocabulary"
	"berth/internal/fault"
	"berth/internal/monitor"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// ContainerAttach hands a connection to the monitor, which from then on moves
// bytes between it and the container, whatever becomes of this engine. An error
// means that nothing was written to the connection.
func (e *Engine) ContainerAttach(ctx context.Context, ref string, o AttachOptions, conn *os.File) error {
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	rec := c.Record()
	keys, err := typedKeys(o.DetachKeys, rec.Tty())
	if err != nil {
		return err
	}
	if err := attachable(c); err != nil {
		return err
	}
	head := o.Header
	if o.Logs && logReadable(rec) {
		e.writeHistory(ctx, rec, o, conn)
		head = nil
	}
	if !o.Stream {
		_, err := conn.Write(head)
		return err
	}
	req := monitor.AttachRequest{
		ContainerID: rec.ID, Stdin: o.Stdin && rec.Config.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr,
		DetachKeys: keys, Prefix: head,
	}
	// A connection must not be bound to a run that has just ended, nor miss one
	// that just begins.
	if err := c.Lock(ctx); err != nil {
		return err
	}
	defer c.Unlock()
	if err := attachable(c); err != nil {
		return err
	}
	c.Hold() // until the container runs, the monitor keeps the connection for it
	if err := session.HandOver(ctx, e.monitor, req, conn, o.Prefix); err != nil {
		return err
	}
	e.emit(rec, events.ActionAttach, nil)
	return nil
}

// attachable refuses to attach to what has no output now and none to come.
func attachable(c *container.Container) error {
	if c.Gone() {
		return fault.New(fault.NotFound, "", "", "No such container: %s", c.ID)
	}
	switch c.State().Status {
	case api.StatePaused:
		return fault.New(fault.Conflict, "", "", "container %s is paused, unpause the container before attach", c.ID)
	case api.StateRestarting:
		return fault.New(fault.Conflict, "", "", "container %s is restarting, wait until the container is running", c.ID)
	}
	return nil
}

// writeHistory writes the answer's header and the container's log so far. No
// lock is held meanwhile: the client may read it as slowly as it likes.
func (e *Engine) writeHistory(ctx context.Context, rec *container.Record, o AttachOptions, conn *os.File) {
	if _, err := conn.Write(o.Header); err != nil {
		return // the client went away
	}
	var stdout, stderr io.Writer = session.Frames{To: conn, Stream: 1}, session.Frames{To: conn, Stream: 2}
	if rec.Tty() {
		stdout, stderr = conn, conn
	}
	lo := LogsOptions{Stdout: o.Stdout, Stderr: o.Stderr}
	if !lo.Stdout && !lo.Stderr {
		return
	}
	if err := e.ContainerLogs(ctx, rec.ID, lo, stdout, stderr); err != nil {
		e.log.Debug("write a container's history", "container", rec.ID, "error", err)
	}
}

// typedKeys are the keys that detach a client. Only a terminal has any: what is
// piped into a container is data, and may hold those bytes.
func typedKeys(s string, tty bool) ([]byte, error) {
	keys, err := vocabulary.DetachKeys(s)
	if err != nil || !tty {
		return nil, err
	}
	return keys, nil
}

// ContainerResize sets the size of a container's terminal, in characters.
func (e *Engine) ContainerResize(ctx context.Context, ref string, height, width uint16) error {
	c, err := e.containers.Find(ref)
	if err != nil {
		return err
	}
	if !c.State().Alive() {
		return fault.New(fault.Conflict, "", "", "cannot resize a stopped container: container %s is not running", c.ID)
	}
	if err := e.monitor.Resize(ctx, c.ID, "", height, width); err != nil {
		return err
	}
	e.emit(c.Record(), events.ActionResize, map[string]string{"height": strconv.Itoa(int(height)), "width": strconv.Itoa(int(width))})
	return nil
}
