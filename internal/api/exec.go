package api

import (
	"context"
	"net/http"
	"os"
	"strings"

	"berth/internal/engine"
	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
)

// execEngine is what the exec endpoints call.
type execEngine interface {
	ExecCreate(ctx context.Context, ref string, req container.ExecCreateRequest) (string, error)
	ExecStart(ctx context.Context, id string, o engine.ExecStartOptions, conn *os.File) error
	ExecInspect(ctx context.Context, id string) (container.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, h, w uint16) error
}

// execBody is an exec as clients of every served version send it.
type execBody struct {
	container.ExecCreateRequest
	Cmd       words
	Detach    bool   // repeated by docker's command line up to 25; start decides
	Container string // repeated by docker-py; the path decides
}

func createExec(x *exchange) error {
	var body execBody
	if err := x.decode(&body); err != nil {
		return err
	}
	req := body.ExecCreateRequest
	if req.Cmd = body.Cmd; len(req.Cmd) == 0 {
		return fault.New(fault.Invalid, "", "", "No exec command specified")
	}
	if x.version.before(42) {
		req.ConsoleSize = nil
	}
	id, err := x.api.engine.ExecCreate(x.ctx(), x.path("id"), req)
	if err != nil {
		return err
	}
	return x.reply(http.StatusCreated, container.ExecCreateResponse{ID: id})
}

func startExec(x *exchange) error {
	var body container.ExecStartRequest
	if err := x.decode(&body); err != nil {
		return err
	}
	id := x.path("id")
	o := engine.ExecStartOptions{Detach: body.Detach, Tty: body.Tty}
	if body.Tty && !x.version.before(42) {
		o.ConsoleSize = body.ConsoleSize
	}
	if body.Detach {
		if err := x.api.engine.ExecStart(x.ctx(), id, o, nil); err != nil {
			return err
		}
		return x.done(http.StatusOK)
	}
	// Whether it exists is asked first, while a plain answer is still possible.
	if _, err := x.api.engine.ExecInspect(x.ctx(), id); err != nil {
		return err
	}
	o.Header = x.upgradeHeader(body.Tty)
	conn, err := x.takeOver()
	if err != nil {
		return err
	}
	defer conn.Close()
	o.Prefix = conn.prefix
	if strings.HasPrefix(x.r.UserAgent(), "docker-sdk-python/") {
		o.Settle = conn.awaitReader
	}
	if err := x.api.engine.ExecStart(x.ctx(), id, o, conn.file); err != nil {
		conn.fail(x, err)
	}
	return nil
}

func resizeExec(x *exchange) error {
	h, w, err := x.consoleSize()
	if err != nil {
		return err
	}
	if err := x.api.engine.ExecResize(x.ctx(), x.path("id"), h, w); err != nil {
		return err
	}
	return x.done(http.StatusOK)
}

func inspectExec(x *exchange) error {
	e, err := x.api.engine.ExecInspect(x.ctx(), x.path("id"))
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, e)
}
