package logs

import (
	"encoding/binary"
	"os"
	"sync"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// watchers is the one inotify instance of the process. One, because the kernel
// allows a user only 128 of them by default, and a log may be followed by more.
var watchers hub

// hub hands the events of directories to those who wait for them.
type hub struct {
	mu   sync.Mutex // guards all below
	file *os.File   // nil while nobody watches
	dirs map[int32]*watchedDir
}

type watchedDir struct {
	name    string
	waiting map[*watch]struct{}
}

// watch is one follower's interest in a directory.
type watch struct {
	changed chan struct{} // holds one token after something has changed
	wd      int32
}

const watchMask = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_DELETE_SELF

// add begins to watch a directory.
func (h *hub) add(dir string) (*watch, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, fault.New(fault.Exhausted, "follow log", dir, "inotify: %w", err).
				WithHint("raise fs.inotify.max_user_instances")
		}
		h.file = os.NewFile(uintptr(fd), "inotify")
		h.dirs = map[int32]*watchedDir{}
		go h.run(h.file)
	}
	wd, err := h.register(dir)
	if err != nil {
		h.stopIfUnused()
		if err == unix.ENOENT {
			return nil, fault.New(fault.NotFound, "follow log", dir, "%w", err)
		}
		return nil, fault.New(fault.Exhausted, "follow log", dir, "inotify: %w", err).
			WithHint("raise fs.inotify.max_user_watches")
	}
	d := h.dirs[wd]
	if d == nil {
		d = &watchedDir{name: dir, waiting: map[*watch]struct{}{}}
		h.dirs[wd] = d
	}
	w := &watch{changed: make(chan struct{}, 1), wd: wd}
	d.waiting[w] = struct{}{}
	return w, nil
}

func (h *hub) register(dir string) (wd int32, err error) {
	raw, err := h.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		var n int
		n, err = unix.InotifyAddWatch(int(fd), dir, watchMask)
		wd = int32(n)
	})
	if err == nil {
		err = controlErr
	}
	return wd, err
}

// remove ends a watch.
func (h *hub) remove(w *watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := h.dirs[w.wd]
	if d == nil {
		return
	}
	delete(d.waiting, w)
	if len(d.waiting) > 0 {
		return
	}
	delete(h.dirs, w.wd)
	if raw, err := h.file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(w.wd)) })
	}
	h.stopIfUnused()
}

func (h *hub) stopIfUnused() {
	if len(h.dirs) == 0 && h.file != nil {
		_ = h.file.Close()
		h.file = nil
	}
}

// run reads events until the file is closed.
func (h *hub) run(file *os.File) {
	var buf [4096]byte
	for {
		n, err := file.Read(buf[:])
		if err != nil {
			return
		}
		h.mu.Lock()
		if h.file == file {
			h.wake(buf[:n])
		}
		h.mu.Unlock()
	}
}

// wake passes on a buffer of struct inotify_event: wd, mask, cookie, length of
// the name that follows, four bytes each.
func (h *hub) wake(events []byte) {
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for _, d := range h.dirs {
				d.wake()
			}
		} else if d := h.dirs[wd]; d != nil {
			d.wake()
		}
		events = events[min(size, len(events)):]
	}
}

func (d *watchedDir) wake() {
	for w := range d.waiting {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}
