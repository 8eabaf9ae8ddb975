package runtime

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"berth/internal/fault"
	"berth/internal/runtime/cgroup"
	"berth/internal/runtime/config"
	"berth/internal/runtime/smallfile"
	"berth/internal/runtime/systemd"

	"golang.org/x/sys/unix"
)

// Discard removes what a creation that was killed halfway has left behind: an
// init that waits for nobody, a cgroup, a directory without state. A container
// that is complete, or on its way, is a conflict; nothing there is no error.
func Discard(root, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	dir := filepath.Join(root, id)
	lock, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fault.New(fault.Internal, "discard", id, "%w", err)
	}
	defer unix.Close(lock)
	if !takeLock(lock) {
		return fault.New(fault.Conflict, "discard", id, "it is being created")
	}
	if unix.Access(filepath.Join(dir, stateName), unix.F_OK) == nil {
		return fault.New(fault.Conflict, "discard", id, "it is a container")
	}
	if err := discardCgroup(dir, id); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fault.New(fault.Internal, "discard", id, "%w", err)
	}
	return nil
}

// takeLock takes the lock of a state directory. The init of a creation that was
// killed just now may hold it until its exec.
func takeLock(fd int) bool {
	for range 200 {
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return false
}

// discardCgroup ends and removes what the creation put into its cgroup. Without
// a readable specification it had not come that far.
func discardCgroup(dir, id string) error {
	text, err := smallfile.Read(filepath.Join(dir, configName), maxState)
	if err != nil {
		return nil
	}
	spec, err := config.Parse(text)
	if err != nil {
		return nil
	}
	path := cgroupPath(&CreateOptions{ID: id, Spec: spec})
	if unit, err := systemd.ParseUnit(path, id); err == nil && systemd.Running() {
		path = unit.Path()
	}
	cg, err := cgroup.New(path)
	if err != nil {
		return nil
	}
	if err := cg.Kill(); err != nil {
		return err
	}
	return cg.Delete()
}
