package layer

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"berth/internal/quota"

	"golang.org/x/sys/unix"
)

// trash removes directories one after another in the background. Its goroutine
// lives only while there is something to remove.
type trash struct {
	dir   string
	hurry chan struct{} // has an element when nobody wants to wait for calm

	mu      sync.Mutex // guards the fields below
	idle    *sync.Cond // signalled when running becomes false
	queue   []string
	first   time.Time // when the goroutine got its work
	last    time.Time // when the latest directory came
	running bool
	stopped bool

	remover remover // of the goroutine
}

func newTrash(dir string) *trash {
	t := &trash{dir: dir, hurry: make(chan struct{}, 1)}
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
	t.last = time.Now()
	if !t.running && !t.stopped {
		t.running, t.first = true, t.last
		go t.run()
	}
}

// Where one directory comes others follow, and removing files slows down whoever
// makes or moves some in the same file system. So the goroutine waits until none
// has come for calm, but begins patience after the first: the space is wanted.
const (
	calm     = 50 * time.Millisecond
	patience = time.Second
)

// awaitCalm waits, without the lock.
func (t *trash) awaitCalm() {
	timer := time.NewTimer(calm)
	defer timer.Stop()
	for !t.stopped {
		now := time.Now()
		wait := min(t.last.Add(calm).Sub(now), t.first.Add(patience).Sub(now))
		if wait <= 0 {
			return
		}
		timer.Reset(wait)
		t.mu.Unlock()
		hurry := false
		select {
		case <-timer.C:
		case <-t.hurry:
			hurry = true
		}
		t.mu.Lock()
		if hurry {
			return
		}
	}
}

func (t *trash) run() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.awaitCalm()
	for len(t.queue) > 0 && !t.stopped {
		path := t.queue[0]
		t.queue = t.queue[1:]
		t.mu.Unlock()
		// What cannot be removed (a mount left inside it) stays in the trash,
		// out of everybody's sight, until the next start tries again.
		_ = t.remover.layer(path)
		t.mu.Lock()
	}
	t.running = false
	t.idle.Broadcast()
}

// stop ends in the middle of whatever is being removed now; the next start goes
// on with it.
func (t *trash) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	t.remover.stop.Store(true)
	t.await()
}

func (t *trash) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.await()
}

// await waits until nothing is left to do, and nobody for calm.
func (t *trash) await() {
	if t.running {
		select {
		case t.hurry <- struct{}{}:
		default:
		}
	}
	for t.running {
		t.idle.Wait()
	}
	select {
	case <-t.hurry:
	default:
	}
}

// removeTree removes a directory and everything in it; see remover.
func removeTree(path string) error { return new(remover).tree(path) }

// layer removes a directory that may hold a writable layer, whose limit goes first.
func (r *remover) layer(path string) error {
	if err := quota.Release(path + "/work"); err != nil {
		return err
	}
	return r.tree(path)
}

// remover removes trees without following a symlink and without crossing into
// another mount: a bind mount that a crash left inside must never lead to the
// deletion of what it shows.
type remover struct {
	stop atomic.Bool // give up soon
}

var errStopped = errors.New("the removal was stopped")

func (r *remover) tree(path string) error {
	err := r.at(unix.AT_FDCWD, path)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// at removes the entry name of the directory dirfd, of whatever type.
func (r *remover) at(dirfd int, name string) error {
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
	if err := r.empty(fd); err != nil {
		return err
	}
	return unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
}

// empty removes what is in a directory and closes fd. It goes on after a failure,
// so that as much space as possible comes back, and returns the first.
func (r *remover) empty(fd int) error {
	dir := os.NewFile(uintptr(fd), "directory being removed")
	defer dir.Close()
	var first error
	for {
		entries, err := dir.ReadDir(512)
		for _, e := range entries {
			if r.stop.Load() {
				return errStopped
			}
			var err error
			if e.IsDir() {
				err = r.dirAt(fd, e.Name())
			} else {
				err = r.at(fd, e.Name())
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

// dirAt is at for what is known to be a directory.
func (r *remover) dirAt(dirfd int, name string) error {
	fd, err := openat2(dirfd, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return err
	}
	if err := r.empty(fd); err != nil {
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
