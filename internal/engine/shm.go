package engine

import (
	"path/filepath"
	"strconv"

	"berth/internal/container"
	"berth/internal/engine/tmpfs"
)

// shmPath is where the shared memory of a shareable container is mounted.
func (e *Engine) shmPath(id string) string { return filepath.Join(e.cfg.RunDir, "shm", id) }

// mountShm mounts the shared memory of a container whose ipc namespace others
// may join: they need a place of the host's to find it.
func (e *Engine) mountShm(rec *container.Record) (string, error) {
	dir := e.shmPath(rec.ID)
	return dir, tmpfs.Mount(dir, "shm", "mode=1777,size="+strconv.FormatInt(rec.HostConfig.ShmSize, 10))
}

func (e *Engine) unmountShm(id string) error { return tmpfs.Remove(e.shmPath(id)) }
