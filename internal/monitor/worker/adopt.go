package worker

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"berth/internal/monitor/keeper"
	"berth/internal/monitor/stdio"

	"golang.org/x/sys/unix"
)

// kept is what the keeper has.
type kept struct {
	held    map[string]map[byte]int
	watched map[string]keeper.Message
}

// receiveKept takes over what the keeper has.
func receiveKept(conn *keeper.Conn) (*kept, error) {
	k := &kept{held: map[string]map[byte]int{}, watched: map[string]keeper.Message{}}
	for {
		m, err := conn.Receive()
		if err != nil {
			return nil, err
		}
		switch m.Op {
		case keeper.OpHeld:
			files := map[byte]int{}
			for i, fd := range m.FDs {
				files[m.Labels[i]] = fd
			}
			k.held[m.Key] = files
		case keeper.OpWatched:
			k.watched[m.Key] = m
		case keeper.OpExited:
			if was, ok := k.watched[m.Key]; ok {
				was.Exited, was.Status, was.Unknown, was.At = true, m.Status, m.Unknown, m.At
				k.watched[m.Key] = was
			}
		case keeper.OpReady:
			return k, nil
		}
	}
}

// files takes the descriptors of a process, whose key is gone from held then.
func (k *kept) files(key string) stdio.Files {
	files := stdio.NoFiles
	for label, fd := range k.held[key] {
		switch label {
		case keeper.LabelStdin:
			files.Stdin = fd
		case keeper.LabelStdout:
			files.Out[0] = fd
		case keeper.LabelStderr:
			files.Out[1] = fd
		case keeper.LabelTTY:
			files.TTY = fd
		case keeper.LabelTTYIn:
			files.TTYIn = fd
		default:
			closeFD(fd)
		}
	}
	delete(k.held, key)
	return files
}

// pidfd takes the pidfd of a watched process, -1 if there is none.
func (k *kept) pidfd(key string) int {
	if fds := k.watched[key].FDs; len(fds) > 0 {
		return fds[0]
	}
	return -1
}

// adopt goes on with all containers of the run directory. Those that have ended
// are dealt with before anybody can ask: an end that was told already must not
// be undone.
func (w *Worker) adopt(k *kept) {
	entries, err := os.ReadDir(filepath.Join(w.dir, "containers"))
	if err != nil {
		warn("read containers: %v", err)
	}
	for _, entry := range entries {
		w.adoptContainer(entry.Name(), k)
	}
	// What is left belongs to nothing.
	for key := range k.held {
		files := k.files(key)
		(&pipes{ours: files}).close()
		w.tellKeeper(keeper.Message{Op: keeper.OpDrop, Key: key})
	}
	for _, c := range w.containers {
		for _, x := range c.execs {
			if x.end != nil {
				w.finish(x)
			}
		}
		if c.init.end != nil {
			w.finish(&c.init)
		}
	}
}

func (w *Worker) adoptContainer(id string, k *kept) {
	c := w.newContainer(id)
	p := &c.init
	var err error
	c.record, c.state, err = readRecord(p.path("state"))
	if err != nil {
		// Its record is the first thing that a start puts in place, so that
		// nothing runs; unless the record was damaged, and then nobody can tell
		// what runs.
		if _, watched := k.watched[id]; watched || !errors.Is(err, os.ErrNotExist) {
			warn("container %s can't be taken over: %v", id, err)
		}
		w.undo(c, k)
		return
	}
	c.runner = w.runnerFor(&c.record)
	progress := c.state.Get()
	c.paused, p.token = progress.Paused, c.record.Token
	if !w.findProcess(p, &progress, k) {
		w.undo(c, k)
		return
	}
	p.phase = running
	close(p.begun)
	if !progress.Started {
		if err := w.recordStart(c); err != nil {
			warn("%s: %v", id, err)
		}
	}
	files := w.reopen(p, k)
	p.io.Configure(w.streamConfig(c))
	p.io.Recover()
	if err := w.openStreams(c, files); err != nil {
		warn("%s: %v", id, err)
	}
	for key := range k.watched {
		if execID, ok := strings.CutPrefix(key, id+"/"); ok {
			w.adoptExec(c, execID, k)
		}
	}
}

// findProcess finds out what became of a container's process. It returns false
// when its start has to be undone.
func (w *Worker) findProcess(p *process, progress *stdio.Progress, k *kept) bool {
	p.pid, p.startTime = progress.PID, progress.StartTime
	p.startedAt = time.Unix(0, progress.StartedAt)
	if !progress.Started {
		p.startedAt = time.Now()
	}
	if m, ok := k.watched[p.key()]; ok {
		p.pid, p.pidfd = m.PID, k.pidfd(p.key())
		if m.Exited {
			p.end = &m
		}
		if p.startTime == 0 {
			p.startTime = startTimeOf(p.pid)
		}
		return true
	}
	if !progress.Started {
		// It was being started. Without its terminal it cannot go on.
		pid := p.c.runner.load(p.c.id)
		if pid == 0 || p.c.record.TTY {
			return false
		}
		p.pid, p.startTime = pid, startTimeOf(pid)
	} else if exit := readExit(p.path("exit.json")); exit != nil {
		m := keeper.Message{Key: p.key(), PID: p.pid, Unknown: exit.Unknown, At: exit.At.UnixNano(), Status: exit.Code << 8}
		if exit.Signal != 0 {
			m.Status = exit.Signal
		}
		p.end = &m
		return true
	}
	// The keeper was killed too; its successor has to learn of the process.
	p.pidfd = openPidfd(p.pid, p.startTime)
	watch := keeper.Message{Op: keeper.OpWatch, Key: p.key(), PID: p.pid, Path: p.path("exit.json")}
	watch.Add(keeper.LabelPidfd, p.pidfd)
	w.tellKeeper(watch)
	return true
}

// reopen returns the descriptors of a container's streams: the keeper's, or
// those that can be opened again when the keeper was killed too.
func (w *Worker) reopen(p *process, k *kept) stdio.Files {
	_, survived := k.watched[p.key()]
	files := k.files(p.key())
	if survived || p.end != nil {
		return files
	}
	if p.c.record.TTY {
		warn("%s: its terminal went with both processes of the monitor", p.c.id)
		return files
	}
	var s pipes
	s.ours = files
	open := func(fd *int, name string, flags int) {
		if *fd >= 0 {
			return
		}
		var err error
		if *fd, err = unix.Open(p.path(name), flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
			warn("%s: open its %s: %v", p.c.id, name, err)
			*fd = -1
		}
	}
	if p.c.record.OpenStdin {
		open(&s.ours.Stdin, fifoNames[0], unix.O_RDWR)
	}
	open(&s.ours.Out[0], fifoNames[1], unix.O_RDONLY)
	open(&s.ours.Out[1], fifoNames[2], unix.O_RDONLY)
	hold := keeper.Message{Op: keeper.OpHold, Key: p.key()}
	s.hold(&hold)
	w.tellKeeper(hold)
	return s.ours
}

// adoptExec goes on with an exec. Its clients were lost with the last worker,
// so its output is thrown away from here on.
func (w *Worker) adoptExec(c *container, execID string, k *kept) {
	x := w.newExec(c, execID)
	m := k.watched[x.key()]
	x.pid, x.pidfd, x.startedAt = m.PID, k.pidfd(x.key()), time.Now()
	x.startTime = startTimeOf(m.PID)
	x.phase = running
	close(x.begun)
	if m.Exited {
		x.end = &m
	}
	files := k.files(x.key())
	x.tty = files.TTY >= 0
	if err := w.openExecStreams(x, files); err != nil {
		warn("%s: %v", x.key(), err)
	}
}

// undo ends a start that was interrupted. The engine, which never got an
// answer, asks for it again.
func (w *Worker) undo(c *container, k *kept) {
	(&pipes{ours: k.files(c.id)}).close()
	removeFromRuntime(c)
	sweepCgroup(c.record.Cgroup) // foreign runtimes do not say whether there was anything
	w.tellKeeper(keeper.Message{Op: keeper.OpDrop, Key: c.id})
	c.init.io.Close()
	if c.state != nil {
		c.state.Close()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		warn("undo the start of %s: %v", c.id, err)
	}
	delete(w.containers, c.id)
}

// openPidfd opens a process that has not been replaced by another one of the
// same pid; -1 when it is gone.
func openPidfd(pid int, startTime uint64) int {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	if startTimeOf(pid) != startTime {
		_ = unix.Close(fd)
		return -1
	}
	return fd
}

// startTimeOf returns field 22 of /proc/<pid>/stat, 0 if there is no such
// process.
func startTimeOf(pid int) uint64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0
	}
	n, _ := strconv.ParseUint(string(fields[19]), 10, 64)
	return n
}
