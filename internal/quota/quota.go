// Package quota bounds what directories take on disk, by the project quotas of
// the file system below them (quotactl(2), xfs_quota(8)). It exists so that
// whoever has directories of its own to bound, writable layers and volumes, need
// not know of project ids, and so that these have one owner.
//
// Nothing is written down about them but what the file system knows itself. A
// directory's project id is an attribute of it, and an id is free when the file
// system knows neither a file nor a limit of it. A directory gets its id first and
// then the limit, and loses the limit before it is removed: whatever a crash or a
// power cut leaves in between, a limit always has a directory that names it, and
// whoever removes the directory removes the limit.
package quota

import (
	"errors"
	"os"
	"path/filepath"
	"sync"

	"berth/internal/fault"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// The project ids that directories get here, and whose limits are changed. Ids are
// numbered by hand from 1 on, by Docker from that of its data directory, by the
// kubelet from 1048577 on.
const (
	firstID = 0x42000000
	lastID  = firstID + 1<<24 - 1
)

// minimum is the smallest limit that is worth having, in bytes: overlayfs and the
// mount points of a container take some blocks themselves.
const minimum = 1 << 20

// Size reads a limit as users write it, 10G, in bytes; 0 is none.
func Size(text string) (int64, error) {
	size, err := units.RAMInBytes(text)
	switch {
	case err != nil:
		return 0, fault.New(fault.Invalid, "", "", "invalid size: %w", err)
	case size != 0 && size < minimum:
		return 0, fault.New(fault.Invalid, "", "", "invalid size: %q is less than 1m, the smallest", text)
	}
	return size, nil
}

// claiming keeps two claims of this process from giving way to each other.
var claiming sync.Mutex

// Set bounds what is in the directories, together, to size bytes. They are on one
// file system and nobody else changes them meanwhile. The first one bears the
// limit: it is the one to give to Release. Doing it again is cheap and changes the
// size. A file system that cannot is fault.Unsupported, with the reason.
//
// room is how many bytes must be free now: where there are not as many below the
// limit, it lies that much higher until Set is called again.
func Set(size, room int64, dirs ...string) error {
	const op = "bound directory"
	bearer, err := openDir(dirs[0])
	if err != nil {
		return fault.Wrap(op, dirs[0], err)
	}
	defer unix.Close(bearer)
	if !enforced(bearer) {
		return whyNot(dirs[0])
	}
	id, err := projectOf(bearer)
	if err == nil && !ours(id) {
		id, err = claim(bearer)
	}
	for _, dir := range dirs[1:] {
		if err == nil {
			err = join(dir, id)
		}
	}
	if err != nil {
		return fault.Wrap(op, dirs[0], err)
	}
	have, err := read(bearer, id)
	if err != nil {
		return fault.Wrap(op, dirs[0], err)
	}
	if have.bytes+uint64(room) > uint64(size) {
		size += room
	}
	// Whole blocks of quota; the file system rounds up to its own.
	if want := (uint64(size) + blockSize - 1) / blockSize; have.hardBlocks != want {
		err = limit(bearer, id, want)
	}
	return fault.Wrap(op, dirs[0], err)
}

// Release takes the limit off a directory that is about to be removed. One without
// a limit, or that is not there, is no error.
func Release(dir string) error {
	fd, err := openDir(dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fault.Wrap("release directory", dir, err)
	}
	defer unix.Close(fd)
	id, err := projectOf(fd)
	if err != nil || !ours(id) {
		return nil // also where a file system knows no projects
	}
	err = limit(fd, id, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOSYS) {
		err = nil // quotas are switched off
	}
	return fault.Wrap("release directory", dir, err)
}

// Possible returns nil when directories below dir can be bounded, and otherwise
// why not: an error of kind fault.Unsupported whose hint says what would help.
func Possible(dir string) error {
	fd, err := openDir(dir)
	if err != nil {
		return fault.Wrap("look for quotas", dir, err)
	}
	defer unix.Close(fd)
	if enforced(fd) {
		return nil
	}
	return whyNot(dir)
}

func ours(id uint32) bool { return id >= firstID && id <= lastID }

// claim gives the directory a project id that nobody has, the lowest: XFS keeps
// the room that an id has taken in its quota file for ever. Engines on one file
// system may be at it side by side; whoever finds that another's directory has the
// id, too, gives it back.
func claim(fd int) (uint32, error) {
	claiming.Lock()
	defer claiming.Unlock()
	before, err := projectOf(fd)
	if err != nil {
		return 0, err
	}
	for id := uint32(firstID); id <= lastID; id++ {
		if u, err := read(fd, id); err != nil {
			return 0, err
		} else if u.inUse() {
			continue
		}
		if err := setProject(fd, id); err != nil {
			return 0, err
		}
		u, err := read(fd, id)
		if err == nil && u.inodes == 1 {
			return id, nil
		}
		if undo := setProject(fd, before); err != nil || undo != nil {
			return 0, errors.Join(err, undo)
		}
	}
	return 0, fault.New(fault.Exhausted, "", "", "all project ids from %d to %d are in use", uint32(firstID), uint32(lastID))
}

// join puts a directory and what is in it under a project. The directory itself
// comes last: its id says that the rest is done. What was made in it since inherits
// the id, so there is something to do only below one that was empty or that comes
// out of a copy of the data directory.
func join(dir string, id uint32) error {
	fd, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if have, err := projectOf(fd); err != nil || have == id {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.IsDir():
			err = join(path, id)
		case e.Type().IsRegular():
			err = joinFile(path, id)
		}
		if err != nil {
			return err
		}
	}
	return setProject(fd, id)
}

func joinFile(path string, id uint32) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return setProject(fd, id)
}

func openDir(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}
