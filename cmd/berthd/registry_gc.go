package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"berth/internal/fault"
	"berth/internal/registry"
	"berth/internal/registry/store"
	"berth/internal/registry/store/local"

	"github.com/docker/go-units"
)

// controlHandler carries out commands of the same machine's root.
func controlHandler(r *registry.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /gc", func(w http.ResponseWriter, req *http.Request) {
		swept, err := r.GC(req.Context(), req.URL.Query().Get("dry-run") == "true")
		answer := collected{Swept: swept}
		if err != nil {
			answer.Error = err.Error()
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
	return mux
}

// collected is a server's answer to the command.
type collected struct {
	store.Swept
	Error string
}

// collectGarbage lets the running server collect, or does it where none runs.
func (o *registryOptions) collectGarbage(log *slog.Logger, out io.Writer) error {
	ctx := context.Background()
	swept, err := o.askServer(ctx)
	if fault.Is(err, fault.Unavailable) {
		swept, err = o.collectAlone(ctx, log)
	}
	if err != nil {
		return err
	}
	verb := "deleted"
	if o.dryRun {
		verb = "would delete"
	}
	_, err = fmt.Fprintf(out, "%s %d manifests and %d blobs of %d repositories, %s\n", verb, swept.Manifests, swept.Blobs, swept.Repositories, units.HumanSize(float64(swept.Freed)))
	return err
}

// askServer is fault.Unavailable if no server runs.
func (o *registryOptions) askServer(ctx context.Context) (store.Swept, error) {
	const op = "collect garbage"
	conn, err := dialControl(ctx, o.file.Root)
	if err != nil {
		return store.Swept{}, fault.New(fault.Unavailable, op, o.file.Root, "%w", err)
	}
	conn.Close()
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialControl(ctx, o.file.Root) },
	}}
	defer client.CloseIdleConnections()
	resp, err := client.Post(fmt.Sprintf("http://registry/gc?dry-run=%v", o.dryRun), "", nil)
	if err != nil {
		return store.Swept{}, fault.New(fault.Internal, op, o.file.Root, "%w", err)
	}
	defer resp.Body.Close()
	var answer collected
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return store.Swept{}, fault.New(fault.Internal, op, o.file.Root, "the server's answer cannot be read: %w", err)
	}
	if answer.Error != "" {
		return answer.Swept, fault.New(fault.Internal, op, o.file.Root, "%s", answer.Error)
	}
	return answer.Swept, nil
}

// collectAlone collects where no server runs; nobody can be in the middle of a
// push then, but one may go on after the server's next start.
func (o *registryOptions) collectAlone(ctx context.Context, log *slog.Logger) (store.Swept, error) {
	cfg, err := o.file.Config()
	if err != nil {
		return store.Swept{}, err
	}
	s, err := local.OpenDir(o.file.Root, log)
	if err != nil {
		return store.Swept{}, err
	}
	defer s.Close()
	if cfg.GC.Grace <= 0 {
		cfg.GC.Grace = time.Hour
	}
	if cfg.UploadAge <= 0 {
		cfg.UploadAge = 24 * time.Hour
	}
	return s.Sweep(ctx, store.SweepOptions{Grace: cfg.GC.Grace, Untagged: cfg.GC.Untagged, Uploads: cfg.UploadAge, DryRun: o.dryRun})
}
