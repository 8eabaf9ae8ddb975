package api

import (
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"os"

	"berth/internal/engine"
	"berth/internal/fault"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/container"
)

// containerStreams is what the endpoints with an open-ended answer call.
type containerStreams interface {
	ContainerWait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan engine.WaitResult, error)
	ContainerLogs(ctx context.Context, ref string, o engine.LogsOptions, stdout, stderr io.Writer) error
	ContainerTTY(ref string) (bool, error)
	ContainerAttach(ctx context.Context, ref string, o engine.AttachOptions, conn *os.File) error
}

// waitContainer sends its headers before the container ends: clients take them
// as the sign that the wait is registered and start the container then.
func waitContainer(x *exchange) error {
	cond := container.WaitConditionNotRunning
	if c := x.query("condition"); c != "" && !x.version.before(30) {
		cond = container.WaitCondition(c)
	}
	switch cond {
	case container.WaitConditionNotRunning, container.WaitConditionNextExit, container.WaitConditionRemoved:
	default:
		return fault.New(fault.Invalid, "", "", "invalid condition: %q", string(cond))
	}
	ctx, cancel := x.stream()
	defer cancel()
	result, err := x.api.engine.ContainerWait(ctx, x.path("id"), cond)
	if err != nil {
		return err
	}
	if !x.version.before(30) {
		x.Header()["Content-Type"] = jsonType
		x.WriteHeader(http.StatusOK)
		x.Flush()
	}
	select {
	case res, ok := <-result:
		if !ok {
			x.abort()
		}
		return x.waited(cond, res)
	case <-ctx.Done():
		if !x.started && x.ctx().Err() == nil {
			return errClosing
		}
		x.abort()
		return nil
	}
}

var errClosing = fault.New(fault.Unavailable, "", "", "the engine is shutting down")

// waited writes the second half of the answer.
func (x *exchange) waited(cond container.WaitCondition, res engine.WaitResult) error {
	body := container.WaitResponse{StatusCode: res.StatusCode}
	if res.Err != nil {
		if cond == container.WaitConditionRemoved && x.version.before(34) {
			// Such clients know no error here; an empty answer tells them.
			return nil
		}
		body.Error = &container.WaitExitError{Message: res.Err.Error()}
	}
	if !x.started {
		return x.reply(http.StatusOK, body)
	}
	return x.tail(body)
}

// logStart bounds how long the headers of followed logs wait for a first line,
// so that an error from opening the log can still be answered with its status.
const logStart = 25e6 // nanoseconds

func containerLogs(x *exchange) error {
	o := engine.LogsOptions{
		Stdout: x.flag("stdout"), Stderr: x.flag("stderr"), Follow: x.flag("follow"),
		Timestamps: x.flag("timestamps"), Details: x.flag("details"), Tail: x.query("tail"),
	}
	if !o.Stdout && !o.Stderr {
		return fault.New(fault.Invalid, "", "", "Bad parameters: you must choose at least one stream")
	}
	var err error
	if o.Since, err = x.time("since"); err != nil {
		return err
	}
	if o.Until, err = x.time("until"); err != nil {
		return err
	}
	if f := x.query("format"); f != "" {
		return notOffered("log format "+f, "")
	}
	tty, err := x.api.engine.ContainerTTY(x.path("id"))
	if err != nil {
		return err
	}
	ctx, cancel := x.stream()
	defer cancel()

	x.Header().Set("Content-Type", x.streamType(tty))
	s := newStream(x, o.Follow)
	stdout, stderr := io.Writer(s), io.Writer(s)
	if !tty {
		stdout, stderr = frames{s, 1}, frames{s, 2}
	}
	if o.Follow {
		s.startAfter(logStart)
	}
	err = x.api.engine.ContainerLogs(ctx, x.path("id"), o, stdout, stderr)
	s.finish()
	switch {
	case err == nil && ctx.Err() == nil:
		if !x.started {
			return x.done(http.StatusOK)
		}
		return nil
	case err == nil:
		err = errClosing
	}
	if !x.started {
		x.Header().Del("Content-Type")
	}
	return err
}

// streamType names the framing of a stream of a container's output.
func (x *exchange) streamType(tty bool) string {
	if tty || x.version.before(42) {
		return types.MediaTypeRawStream
	}
	return types.MediaTypeMultiplexedStream
}

// frames writes docker's multiplexed form: per write a header with the number
// of the stream and the length.
type frames struct {
	out    *stream
	number byte
}

// Write writes p as one frame.
func (f frames) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	head := [8]byte{0: f.number}
	binary.BigEndian.PutUint32(head[4:], uint32(len(p)))
	return f.out.write(head[:], p)
}

func attachContainer(x *exchange) error {
	o := engine.AttachOptions{
		Stream: x.flag("stream"), Stdin: x.flag("stdin"), Stdout: x.flag("stdout"), Stderr: x.flag("stderr"),
		Logs: x.flag("logs"), DetachKeys: x.query("detachKeys"),
	}
	id := x.path("id")
	tty, err := x.api.engine.ContainerTTY(id)
	if err != nil {
		return err
	}
	o.Header = x.upgradeHeader(tty)
	conn, err := x.takeOver()
	if err != nil {
		return err
	}
	defer conn.Close()
	o.Prefix = conn.prefix
	if err := x.api.engine.ContainerAttach(x.ctx(), id, o, conn.file); err != nil {
		conn.fail(x, err)
	}
	return nil
}
