package layer

import (
	"errors"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// trash removes directories one after another in the background. Its goroutine
// lives only while there is something to remove.
type trash struct {
	dir string

	mu      sync.Mutex // guards the fields below
	idle    *sync.Cond // signalled when running becomes false
	queue   []string
	running bool
	stopped bool
}

func newTrash(dir string) *trash {
	t := &trash{dir: dir}
	t.idle = sync.NewCond(&t.mu)
	return t
}

// sweep queues everything that is in the trash directory.
func (t *trash) sweep() {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return // Open has just made it; what stays is swept next time
	}
	queued := map[string]bool{}
	t.mu.Lock()
	for _, q := range t.queue {
		queued[q] = true
	}
	t.mu.Unlock()
	for _, e := range entries {
		if p := filepath.Join(t.dir, e.Name()); !queued[p] {
			t.add(p)
		}
	}
}

func (t *trash) add(path string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = append(t.queue, path)
	if !t.running && !t.stopped {
		t.running = true
		go t.run()
	}
}

func (t *trash) run() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.queue) > 0 && !t.stopped {
		path := t.queue[0]
		t.queue = t.queue[1:]
		t.mu.Unlock()
		// What cannot be removed (a mount left inside it) stays in the trash,
		// out of everybody's sight, until the next start tries again.
		_ = removeTree(path)
		t.mu.Lock()
	}
	t.running = false
	t.idle.Broadcast()
}

// stop ends after the directory that is being removed now.
func (t *trash) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	for t.running {
		t.idle.Wait()
	}
}

func (t *trash) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.running {
		t.idle.Wait()
	}
}

// removeTree removes a directory and everything in it without following a
// symlink and without crossing into another mount: a bind mount that a crash
// left inside must never lead to the deletion of what it shows.
func removeTree(path string) error {
	err := removeAt(unix.AT_FDCWD, path)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// removeAt removes the entry name of the directory dirfd, of whatever type.
func removeAt(dirfd int, name string) error {
	err := unix.Unlinkat(dirfd, name, 0)
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	}
	if dirfd != unix.AT_FDCWD {
		how.Resolve |= unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV
	}
	fd, err := openat2(dirfd, name, &how)
	if err != nil {
		return err
	}
	if err := emptyDir(fd); err != nil {
		return err
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}

// emptyDir removes what is in a directory and closes fd. It goes on after a
// failure, so that as much space as possible comes back, and returns the first.
func emptyDir(fd int) error {
	dir := os.NewFile(uintptr(fd), "directory being removed")
	defer dir.Close()
	var first error
	for {
		entries, err := dir.ReadDir(512)
		for _, e := range entries {
			var err error
			if e.IsDir() {
				err = removeDirAt(fd, e.Name())
			} else {
				err = removeAt(fd, e.Name())
			}
			if err != nil && err != unix.ENOENT && first == nil {
				first = err
			}
		}
		if err != nil || len(entries) == 0 {
			return first
		}
	}
}

// removeDirAt is removeAt for what is known to be a directory.
func removeDirAt(dirfd int, name string) error {
	fd, err := openat2(dirfd, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return err
	}
	if err := emptyDir(fd); err != nil {
		return err
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}

// openat2 retries what the kernel asks to retry.
func openat2(dirfd int, name string, how *unix.OpenHow) (int, error) {
	for {
		fd, err := unix.Openat2(dirfd, name, how)
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}
