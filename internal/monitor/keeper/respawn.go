package keeper

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// startWorker starts a worker and tells it everything that is kept.
func (k *keeper) startWorker() {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		k.startLater("socket pair", err)
		return
	}
	pid, pidfd, err := k.Spawn(k.Config, pair[1])
	_ = unix.Close(pair[1])
	if err != nil {
		_ = unix.Close(pair[0])
		k.startLater("start the worker", err)
		return
	}
	k.workerPid, k.workerFD, k.started = pid, pidfd, time.Now()
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(pidfd)}
	if err := unix.EpollCtl(k.poll, unix.EPOLL_CTL_ADD, pidfd, &event); err != nil {
		warn("watch the worker: %v", err)
	}
	k.setWorker(pair[0])
	k.tellEverything()
}

func (k *keeper) setWorker(socket int) {
	k.worker = socket
	k.listen(unix.EPOLL_CTL_ADD, unix.EPOLLIN)
}

func (k *keeper) listen(op int, events uint32) {
	event := unix.EpollEvent{Events: events, Fd: int32(k.worker)}
	if err := unix.EpollCtl(k.poll, op, k.worker, &event); err != nil {
		warn("watch the worker's socket: %v", err)
	}
}

// tellEverything hands a new worker what is kept.
func (k *keeper) tellEverything() {
	for _, e := range k.keys {
		held := Message{Op: OpHeld, Key: e.key}
		for label, fd := range e.held {
			held.Add(label, fd)
		}
		if len(held.FDs) > 0 {
			k.tell(held)
		}
		if e.pid == 0 {
			continue
		}
		watched := Message{Op: OpWatched, Key: e.key, PID: e.pid, Path: e.path}
		watched.Add(LabelPidfd, e.pidfd)
		if e.end != nil {
			watched.Exited, watched.Status, watched.Unknown, watched.At = true, e.end.status, e.end.unknown, e.end.at.UnixNano()
		}
		k.tell(watched)
	}
	k.tell(Message{Op: OpReady})
}

// tell sends a message to the worker, later if its socket is full.
func (k *keeper) tell(m Message) {
	if k.worker < 0 {
		return // the next worker is told everything
	}
	packet := m.encode()
	if len(k.queue) == 0 {
		err := sendMessage(k.worker, packet, m.FDs)
		if err != unix.EAGAIN {
			return // done, or the worker is dying, which is noticed elsewhere
		}
		k.listen(unix.EPOLL_CTL_MOD, unix.EPOLLIN|unix.EPOLLOUT)
	}
	k.queue = append(k.queue, queued{packet, m.FDs})
}

// flush sends what had to wait.
func (k *keeper) flush() {
	for len(k.queue) > 0 {
		if sendMessage(k.worker, k.queue[0].packet, k.queue[0].fds) == unix.EAGAIN {
			return
		}
		k.queue = k.queue[1:]
	}
	k.queue = nil
	k.listen(unix.EPOLL_CTL_MOD, unix.EPOLLIN)
}

// shortLife is how long a worker lives at most that fails at its start again and
// again. One that lived longer, or that was killed, is replaced at once.
const shortLife = time.Second

// workerEnded starts another worker, or ends the monitor if the worker wanted
// that and nothing runs.
func (k *keeper) workerEnded() {
	if k.worker < 0 {
		return
	}
	k.drainWorker()
	k.unwatchFD(k.worker)
	_ = unix.Close(k.worker)
	k.worker, k.queue = -1, nil
	if k.workerFD >= 0 {
		k.unwatchFD(k.workerFD)
		_ = unix.Close(k.workerFD)
		k.workerFD = -1
	}
	killed := true
	if k.workerPid != 0 {
		_, status := peek(k.workerPid)
		killed = status == int(unix.SIGKILL)
		reap(k.workerPid)
		k.workerPid = 0
	}
	k.reapOrphans() // it may have left processes that nobody announced
	for _, e := range k.keys {
		e.launching = false
	}
	k.launching = 0
	k.sweep()
	if k.quit && len(k.byPidfd) == 0 {
		k.done = true
		return
	}
	k.quit = false
	if killed || time.Since(k.started) > shortLife {
		k.failures = 0
	} else {
		k.failures++
	}
	if k.failures > 3 {
		k.startLater("keep a worker", errShortLived)
		return
	}
	k.startWorker()
}

// drainWorker does what a worker said before it died.
func (k *keeper) drainWorker() {
	for {
		m, err := receiveMessage(k.worker)
		if err != nil && err != errMessage {
			return
		}
		if err == nil {
			k.obey(m)
		}
	}
}

// startLater tries to start a worker again after a while. The containers do
// not mind: their output waits.
func (k *keeper) startLater(what string, err error) {
	if _, gone := os.Stat(k.Dir); os.IsNotExist(gone) && len(k.byPidfd) == 0 {
		os.Exit(1) // somebody has removed everything that there was to keep
	}
	k.failures++
	pause := min(time.Duration(k.failures)*50*time.Millisecond, 5*time.Second)
	warn("%s: %v; trying again in %s", what, err, pause)
	time.AfterFunc(pause, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.worker < 0 {
			k.startWorker()
		}
	})
}

type shortLived struct{}

func (shortLived) Error() string { return "it ends again and again at its start" }

var errShortLived error = shortLived{}
