package engine

import (
	"slices"

	"berth/internal/container"
	"berth/internal/engine/vocabulary"
	"berth/internal/volume"
)

// tighten keeps a container's writable layer below its limit, if it has one.
func (e *Engine) tighten(rec *container.Record) error {
	size, err := vocabulary.StorageSize(rec.HostConfig.StorageOpt)
	if err != nil {
		return err
	}
	return e.layers.Bound(rec.ID, size)
}

// loosen gives a writable layer that is about to be mounted the room that this takes,
// until the function that it returns is called.
func (e *Engine) loosen(rec *container.Record) (mounted func(), err error) {
	size, err := vocabulary.StorageSize(rec.HostConfig.StorageOpt)
	if err != nil || size == 0 {
		return func() {}, err
	}
	mounted = func() { e.retighten(rec) }
	return mounted, e.layers.BoundForMount(rec.ID, size)
}

// retighten is tighten for a layer that is in use already.
func (e *Engine) retighten(rec *container.Record) {
	if err := e.tighten(rec); err != nil {
		e.log.Error("a container has more room than its limit", "container", rec.ID, "error", err)
	}
}

// bounded tells whether a container's writable layer or one of its volumes has a
// size.
func (e *Engine) bounded(rec *container.Record) (bool, error) {
	size, err := vocabulary.StorageSize(rec.HostConfig.StorageOpt)
	return size > 0 || slices.ContainsFunc(rec.Mounts, func(m volume.Mount) bool {
		v, _ := e.volumes.Get(m.Name)
		return v.Options["size"] != ""
	}), err
}
