package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"berth/internal/container"
	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// shmPath is where the shared memory of a shareable container is mounted.
func (e *Engine) shmPath(id string) string { return filepath.Join(e.cfg.RunDir, "shm", id) }

// mountShm mounts the shared memory of a container whose ipc namespace others
// may join: they need a place of the host's to find it.
func (e *Engine) mountShm(rec *container.Record) (string, error) {
	dir := e.shmPath(rec.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", wrapFS("create", dir, err)
	}
	if err := e.unmountShmAt(dir); err != nil {
		return "", err
	}
	opts := "mode=1777,size=" + strconv.FormatInt(rec.HostConfig.ShmSize, 10)
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, opts); err != nil {
		return "", fault.New(fault.Internal, "mount shared memory", dir, "%w", err)
	}
	return dir, nil
}

func (e *Engine) unmountShm(id string) error {
	dir := e.shmPath(id)
	if err := e.unmountShmAt(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return wrapFS("remove", dir, err)
	}
	return nil
}

func (e *Engine) unmountShmAt(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch err {
		case nil: // there may be another one below
		case unix.EINVAL, unix.ENOENT:
			return nil
		default:
			return fault.New(fault.Internal, "unmount", dir, "%w", err)
		}
	}
}
