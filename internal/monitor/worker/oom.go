package worker

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"

	"berth/internal/monitor/proto"
	"berth/internal/runtime/cgroup"

	"golang.org/x/sys/unix"
)

// oomWatcher tells of processes that the kernel kills for lack of memory while
// their container goes on. Only containers with a limit are watched; whether a
// container's own end was such a kill is read from its counters.
type oomWatcher struct {
	w *Worker

	mu      sync.Mutex // guards the rest
	inotify int        // one instance for all of cgroup v2, 0: not made yet
	watches map[int32]*oomWatch
}

// oomWatch is the interest in one container.
type oomWatch struct {
	id   string
	file string // with a line "oom_kill N"
	seen uint64
	told bool // of any kill
	wd   int32
	stop func() // of cgroup v1
}

// watch begins to watch a container. Failing to is no reason not to run it.
func (o *oomWatcher) watch(c *container) {
	watch := &oomWatch{id: c.id}
	v1, v2 := memoryCgroups(c.init.pid)
	var err error
	switch {
	case v1 != "":
		watch.file = v1 + "/memory.oom_control"
		err = o.watchV1(watch, v1)
	case v2 != "":
		watch.file = v2 + "/memory.events"
		err = o.watchV2(watch)
	default:
		return
	}
	if err != nil {
		warn("%s: watch its memory: %v", c.id, err)
		return
	}
	watch.seen, _ = oomKills(watch.file)
	c.oom = watch
}

// memoryCgroups returns the directories of a process's memory cgroup, of the
// version that is in use.
func memoryCgroups(pid int) (v1, v2 string) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", ""
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[1] == "" {
			for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
				if _, err := os.Stat(top + parts[2] + "/memory.events"); err == nil {
					v2 = top + parts[2]
				}
			}
		}
		for name := range strings.SplitSeq(parts[1], ",") {
			if name == "memory" {
				v1 = "/sys/fs/cgroup/memory" + parts[2]
			}
		}
	}
	return v1, v2
}

// oomKills returns how many processes were killed, and whether one is about to
// be.
func oomKills(file string) (n uint64, now bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, _ = strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 64)
		}
		now = now || bytes.HasPrefix(line, []byte("under_oom 1"))
	}
	return n, now
}

func (o *oomWatcher) watchV1(watch *oomWatch, dir string) error {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	control, err := unix.Open(watch.file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = os.WriteFile(dir+"/cgroup.event_control", fmt.Appendf(nil, "%d %d", event, control), 0)
		_ = unix.Close(control)
	}
	var stop func()
	if err == nil {
		stop, err = o.w.pump.Watch(event, func() {
			var count [8]byte
			_, _ = unix.Read(event, count[:])
			o.check(watch)
		})
	}
	if err != nil {
		_ = unix.Close(event)
		return err
	}
	watch.stop = func() {
		stop()
		_ = unix.Close(event)
	}
	return nil
}

func (o *oomWatcher) watchV2(watch *oomWatch) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.inotify == 0 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return err
		}
		if _, err := o.w.pump.Watch(fd, o.readEvents); err != nil {
			_ = unix.Close(fd)
			return err
		}
		o.inotify, o.watches = fd, map[int32]*oomWatch{}
	}
	wd, err := unix.InotifyAddWatch(o.inotify, watch.file, unix.IN_MODIFY)
	if err != nil {
		return err
	}
	watch.wd = int32(wd)
	o.watches[watch.wd] = watch
	return nil
}

func (o *oomWatcher) readEvents() {
	var buf [4096]byte
	for {
		n, err := unix.Read(o.inotify, buf[:])
		if err != nil || n <= 0 {
			return
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; at += unix.SizeofInotifyEvent {
			// A watch on a file has events without names.
			wd := int32(le32(buf[at:]))
			o.mu.Lock()
			watch := o.watches[wd]
			o.mu.Unlock()
			if watch != nil {
				o.check(watch)
			}
		}
	}
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// check tells of a kill. The event of cgroup v1 comes before the counter moves,
// and once more when the cgroup is removed.
func (o *oomWatcher) check(watch *oomWatch) {
	o.mu.Lock()
	n, now := oomKills(watch.file)
	tell := n > watch.seen || now
	watch.seen = max(n, watch.seen)
	if now {
		watch.seen = n + 1 // the one that is told of here
	}
	watch.told = watch.told || tell
	o.mu.Unlock()
	if tell {
		go o.w.publish(proto.Event{Type: proto.EventOOM, ID: watch.id})
	}
}

// tellLast tells of a kill that ended a container, unless that was done.
func (o *oomWatcher) tellLast(c *container) {
	o.mu.Lock()
	told := c.oom != nil && c.oom.told
	if c.oom != nil {
		c.oom.told = true
	}
	o.mu.Unlock()
	if !told {
		o.w.publish(proto.Event{Type: proto.EventOOM, ID: c.id})
	}
}

// unwatch ends the watching of a container.
func (o *oomWatcher) unwatch(c *container) {
	watch := c.oom
	if watch == nil {
		return
	}
	c.oom = nil
	if watch.stop != nil {
		watch.stop()
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.watches, watch.wd)
	_, _ = unix.InotifyRmWatch(o.inotify, uint32(watch.wd))
}

// peakMemory returns the most memory that a container used, in bytes, as long as
// its cgroup is there; 0 when that is not known.
func peakMemory(c *container) int64 {
	if c.record.Cgroup == "" {
		return 0
	}
	m, err := cgroup.New(c.record.Cgroup)
	if err != nil {
		return 0
	}
	return int64(min(m.PeakMemory(), math.MaxInt64))
}
