// Package keeper is the monitor's process that must not fail, and therefore
// does almost nothing. It is the parent of all containers, so that their exit
// statuses come to it on every kernel, and holds the descriptors that end with
// their last holder: terminals and pipes. It records each exit status before it
// tells anyone, and starts the worker anew whenever that ends.
package keeper

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"berth/internal/monitor/proto"

	"golang.org/x/sys/unix"
)

// Config says where the keeper works and with what it begins.
type Config struct {
	Dir      string // the monitor's directory
	Lock     int    // descriptor of the locked lock file
	Listener int    // the socket on which the worker answers the engine
	Worker   int    // socket to a worker that goes on from before; -1 starts one
	// Spawn starts a worker with its end of a new socket.
	Spawn func(c Config, socket int) (pid, pidfd int, err error)
}

// keeper is the state of the process. Everything is guarded by mu: the loop
// holds it while it works, and a goroutine that reaps orphans takes it too.
type keeper struct {
	Config
	mu      sync.Mutex
	poll    int // epoll instance
	keys    map[string]*kept
	byPidfd map[int]*kept
	byPid   map[int]*kept
	strays  map[int]ended // orphans that were reaped before anybody asked for them
	quit    bool
	reaping bool // orphans are reaped as they end
	// launching counts the keys of which the worker is starting a process just
	// now. Until it is announced, it must not vanish as an orphan.
	launching int

	worker    int // socket; -1 while there is no worker
	workerPid int // 0 when it is not our child
	workerFD  int // pidfd
	started   time.Time
	failures  int
	queue     []queued // what the worker's socket did not take yet
	done      bool
}

// kept is what belongs to one container or exec.
type kept struct {
	key   string
	held  map[byte]int // descriptors by label
	path  string       // exit record
	pid   int
	pidfd int // -1: not watched, or ended
	end   *ended

	launching bool
}

type queued struct {
	packet []byte
	fds    []int
}

// Run works until the worker says that no monitor is needed any more.
func Run(c Config) error {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	k := &keeper{
		Config: c, poll: poll,
		keys: map[string]*kept{}, byPidfd: map[int]*kept{}, byPid: map[int]*kept{}, strays: map[int]ended{},
		worker: -1, workerFD: -1,
	}
	if c.Worker >= 0 {
		k.reapOrphans() // what the old worker starts until it ends is announced by nobody
		k.setWorker(c.Worker)
	} else {
		k.startWorker()
	}
	// Waiting for one epoll instance inside the runtime's own costs neither a
	// thread nor a goroutine for each descriptor.
	if err := unix.SetNonblock(poll, true); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	raw, err := os.NewFile(uintptr(poll), "epoll").SyscallConn()
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return k.loop(raw)
}

func (k *keeper) loop(raw syscall.RawConn) error {
	var events [32]unix.EpollEvent
	for !k.finished() {
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			for {
				n, failed = unix.EpollWait(int(fd), events[:], 0)
				if failed != unix.EINTR {
					return n > 0 || failed != nil
				}
			}
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return fmt.Errorf("epoll: %w", err)
		}
		k.mu.Lock()
		for _, event := range events[:n] {
			k.handle(int(event.Fd), event.Events)
		}
		k.mu.Unlock()
	}
	return nil
}

func (k *keeper) finished() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.done
}

func (k *keeper) handle(fd int, events uint32) {
	switch {
	case fd == k.workerFD:
		k.workerEnded()
	case fd == k.worker:
		if events&unix.EPOLLOUT != 0 {
			k.flush()
		}
		k.listenToWorker()
	default:
		if e := k.byPidfd[fd]; e != nil {
			k.processEnded(e)
		}
	}
}

// listenToWorker does what the worker says, until there is nothing more. That it
// ended is told by its pidfd, unless it is not our child.
func (k *keeper) listenToWorker() {
	for {
		m, err := receiveMessage(k.worker)
		switch {
		case err == nil:
			k.obey(m)
		case err == errMessage:
		case err == unix.EPIPE && k.workerPid == 0:
			k.workerEnded()
			return
		case err == unix.EPIPE:
			k.unwatchFD(k.worker)
			return
		default:
			return
		}
	}
}

// obey does what a worker says.
func (k *keeper) obey(m Message) {
	switch m.Op {
	case OpHold:
		e := k.entry(m.Key)
		e.hold(&m)
		if !e.launching && e.pid == 0 {
			e.launching = true
			k.launching++
		}
	case OpDrop:
		if e := k.keys[m.Key]; e != nil {
			if m.Labels == "" {
				k.forget(e)
			}
			for _, label := range []byte(m.Labels) {
				e.drop(label)
			}
		}
	case OpWatch:
		k.watch(&m)
	case OpOrphans:
		k.reapOrphans()
	case OpQuit:
		k.quit = true
	}
	m.closeFDs()
}

func (k *keeper) entry(key string) *kept {
	e := k.keys[key]
	if e == nil {
		e = &kept{key: key, held: map[byte]int{}, pidfd: -1}
		k.keys[key] = e
	}
	return e
}

// hold takes the descriptors of a message, but for a pidfd.
func (e *kept) hold(m *Message) {
	rest := m.FDs[:0]
	for i, fd := range m.FDs {
		if m.Labels[i] == LabelPidfd {
			rest = append(rest, fd)
			continue
		}
		e.drop(m.Labels[i])
		e.held[m.Labels[i]] = fd
	}
	m.FDs = rest
}

func (e *kept) drop(label byte) {
	if fd, ok := e.held[label]; ok {
		_ = unix.Close(fd)
		delete(e.held, label)
	}
}

func (k *keeper) forget(e *kept) {
	for label := range e.held {
		e.drop(label)
	}
	k.unwatch(e)
	delete(k.keys, e.key)
	k.launched(e)
}

// launched notes that nothing is being started under a key any more.
func (k *keeper) launched(e *kept) {
	if !e.launching {
		return
	}
	e.launching = false
	if k.launching--; k.launching == 0 {
		k.sweep()
	}
}

// watch begins to wait for the end of a process. A message without a pidfd is
// of a process that is gone already: it may have been reaped as an orphan.
func (k *keeper) watch(m *Message) {
	e := k.entry(m.Key)
	defer k.launched(e)
	e.hold(m)
	if e.pidfd >= 0 || e.end != nil {
		return
	}
	e.path, e.pid = m.Path, m.PID
	if len(m.FDs) > 0 {
		e.pidfd = m.FDs[0]
		m.FDs = m.FDs[1:]
	}
	stray, reaped := k.strays[e.pid]
	delete(k.strays, e.pid)
	if e.pidfd < 0 {
		if !reaped {
			stray = ended{unknown: true, at: time.Now()}
		}
		k.conclude(e, stray)
		return
	}
	k.byPidfd[e.pidfd], k.byPid[e.pid] = e, e
	if reaped && readable(e.pidfd) { // else the pid was used again
		k.conclude(e, stray)
		return
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(e.pidfd)}
	if err := unix.EpollCtl(k.poll, unix.EPOLL_CTL_ADD, e.pidfd, &event); err != nil {
		warn("watch process %d: %v", e.pid, err)
	}
}

// readable reports whether the process of a pidfd has ended.
func readable(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

func (k *keeper) unwatch(e *kept) {
	if e.pidfd < 0 {
		return
	}
	delete(k.byPidfd, e.pidfd)
	if k.byPid[e.pid] == e {
		delete(k.byPid, e.pid)
	}
	k.unwatchFD(e.pidfd)
	_ = unix.Close(e.pidfd)
	e.pidfd = -1
}

// unwatchFD is explicit because the worker has a copy of most descriptors, so
// that closing ours does not end the watching.
func (k *keeper) unwatchFD(fd int) {
	_ = unix.EpollCtl(k.poll, unix.EPOLL_CTL_DEL, fd, nil)
}

// processEnded finds out how a watched process ended. A child is reaped only
// after its end was written down: if this process dies in between, its next
// parent or the next keeper can still see it.
func (k *keeper) processEnded(e *kept) {
	end := ended{at: time.Now()}
	child, status := peek(e.pid)
	if child != 0 {
		end.status = status
	} else if status, known := statusOfStranger(e.pidfd, e.pid); known {
		end.status = status
	} else {
		end.unknown = true
	}
	k.conclude(e, end)
	if child != 0 {
		reap(child)
	}
	k.sweep()
}

// conclude writes down and tells how a process ended.
func (k *keeper) conclude(e *kept, end ended) {
	e.end = &end
	k.unwatch(e)
	if err := writeAtomically(e.path, end.record(proto.UnknownCode)); err != nil {
		warn("write %s: %v", e.path, err)
	}
	k.tell(Message{Op: OpExited, Key: e.key, PID: e.pid, Status: end.status, Unknown: end.unknown, At: end.at.UnixNano()})
}

// maxStrays bounds the memory of ends nobody may ever ask for.
const maxStrays = 4096

// reapOrphans begins to reap children that nobody announced as they end: what
// daemons leave behind, and what a killed worker had just started. A container
// cannot end while one of them is left in its namespace. In the ordinary course
// of things there are none but helpers of starts, which are reaped with the next
// message; a handler of SIGCHLD would wake two more threads for each end.
func (k *keeper) reapOrphans() {
	if k.reaping {
		return
	}
	k.reaping = true
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGCHLD)
	changed <- unix.SIGCHLD // for those that have ended already
	go func() {
		for range changed {
			k.mu.Lock()
			k.sweep()
			k.mu.Unlock()
		}
	}()
}

// sweep reaps orphans. The ends of processes that are watched are told by their
// pidfds.
func (k *keeper) sweep() {
	for k.launching == 0 {
		pid, status := peek(0)
		if pid == 0 || pid == k.workerPid {
			return
		}
		if e := k.byPid[pid]; e != nil {
			k.processEnded(e)
			continue
		}
		reap(pid)
		if len(k.strays) < maxStrays {
			k.strays[pid] = ended{status: status, at: time.Now()}
		}
	}
}

func warn(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().UTC().Format(time.RFC3339)+" keeper: "+format+"\n", args...)
}

// WritePid records the pid of a process of the monitor, for people and tests.
func WritePid(dir, name string) error {
	return writeAtomically(filepath.Join(dir, name), fmt.Appendf(nil, "%d\n", os.Getpid()))
}
