package worker

import (
	"os"
	"time"

	"berth/internal/monitor/keeper"
	"berth/internal/monitor/stdio"

	"golang.org/x/sys/unix"
)

// replaceKeeper starts another keeper after the last one was killed, gives it
// what this process holds, and ends: only a child of the new keeper can make
// containers its children. The new keeper then starts a new worker.
func (w *Worker) replaceKeeper() {
	w.awaitQuiet()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		die("replace the keeper: %v", err)
	}
	if err := os.Setenv("GOMAXPROCS", "1"); err != nil {
		die("replace the keeper: %v", err)
	}
	c := keeper.Config{Dir: w.dir, Lock: keeper.LockFD, Listener: keeper.ListenerFD}
	if _, _, err := keeper.Spawn(w.runDir, keeper.TakeoverFlag, c, pair[1]); err != nil {
		die("replace the keeper: %v", err)
	}
	_ = unix.Close(pair[1])
	next, err := keeper.NewConn(pair[0])
	if err != nil {
		die("replace the keeper: %v", err)
	}
	for _, p := range w.processes() {
		handOver(p, next)
	}
	os.Exit(0)
}

// awaitQuiet stops new starts and waits for those under way.
func (w *Worker) awaitQuiet() {
	for range 10_000 {
		w.mu.Lock()
		w.leaving = true
		busy := w.busy
		w.mu.Unlock()
		if busy == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	warn("starts are still under way as the keeper is replaced")
}

// processes returns all processes that run or whose output is not drained.
func (w *Worker) processes() []*process {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*process
	for _, c := range w.containers {
		if c.init.phase == running {
			all = append(all, &c.init)
		}
		for _, x := range c.execs {
			if x.phase == running {
				all = append(all, x)
			}
		}
	}
	return all
}

func handOver(p *process, to *keeper.Conn) {
	var err error
	p.io.WithFiles(func(files stdio.Files) {
		hold := keeper.Message{Op: keeper.OpHold, Key: p.key()}
		(&pipes{ours: files}).hold(&hold)
		hold.Add(keeper.LabelTTY, files.TTY)
		if len(hold.FDs) > 0 {
			err = to.Send(hold)
		}
	})
	if err == nil && p.end == nil {
		watch := keeper.Message{Op: keeper.OpWatch, Key: p.key(), PID: p.pid, Path: p.path("exit.json")}
		watch.Add(keeper.LabelPidfd, p.pidfd)
		err = to.Send(watch)
	}
	if err != nil {
		warn("hand over %s: %v", p.key(), err)
	}
}
