package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"berth/internal/fault"

	"github.com/moby/moby/api/types/container"
)

// resourceEngine is what the endpoints call that look at what a container uses,
// and change what it may use.
type resourceEngine interface {
	ContainerStats(ctx context.Context, ref string, stream, oneShot bool) (<-chan container.StatsResponse, error)
	ContainerTop(ctx context.Context, ref, psArgs string) (container.TopResponse, error)
	ContainerUpdate(ctx context.Context, ref string, want container.UpdateConfig) (container.UpdateResponse, error)
	ContainerExport(ctx context.Context, ref string) (write func(io.Writer) error, closeRoot func(), err error)
	ContainerChanges(ctx context.Context, ref string) ([]container.FilesystemChange, error)
}

func containerChanges(x *exchange) error {
	list, err := x.api.engine.ContainerChanges(x.ctx(), x.path("id"))
	if err != nil {
		return err
	}
	if len(list) == 0 {
		list = nil // docker's clients get null, and take a list for changes
	}
	return x.reply(http.StatusOK, list)
}

func containerStats(x *exchange) error {
	stream := x.flagOr("stream", true)
	oneShot := !x.version.before(41) && x.flag("one-shot")
	if stream && oneShot {
		return fault.New(fault.Invalid, "", "", "cannot have stream=true and one-shot=true")
	}
	ctx, cancel := x.stream()
	defer cancel()
	samples, err := x.api.engine.ContainerStats(ctx, x.path("id"), stream, oneShot)
	if err != nil {
		return err
	}
	if !stream {
		s, ok := <-samples
		if !ok {
			return errClosing
		}
		return x.reply(http.StatusOK, s)
	}
	x.Header()["Content-Type"] = jsonType
	x.WriteHeader(http.StatusOK)
	x.Flush()
	enc := json.NewEncoder(x)
	for s := range samples {
		if err := enc.Encode(s); err != nil {
			return nil // the client is gone
		}
		x.Flush()
	}
	return nil
}

func topContainer(x *exchange) error {
	top, err := x.api.engine.ContainerTop(x.ctx(), x.path("id"), x.query("ps_args"))
	if err != nil {
		return err
	}
	return x.reply(http.StatusOK, top)
}

func updateContainer(x *exchange) error {
	var want container.UpdateConfig
	if err := x.decode(&want); err != nil {
		return err
	}
	if x.version.before(40) {
		want.PidsLimit = nil
	}
	if want.PidsLimit != nil && *want.PidsLimit < 0 {
		*want.PidsLimit = 0 // one word for no limit
	}
	answer, err := x.api.engine.ContainerUpdate(x.ctx(), x.path("id"), want)
	if err != nil {
		return err
	}
	answer.Warnings = append(answer.Warnings, x.ignored()...)
	return x.reply(http.StatusOK, answer)
}

func exportContainer(x *exchange) error {
	ctx, cancel := x.stream()
	defer cancel()
	write, closeRoot, err := x.api.engine.ContainerExport(ctx, x.path("id"))
	if err != nil {
		return err
	}
	defer closeRoot()
	x.Header().Set("Content-Type", "application/octet-stream")
	return write(x)
}
