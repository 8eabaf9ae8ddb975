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
	w.mu.Lock()
	w.leaving = true
	w.mu.Unlock()
	for range 5 { // the next one may be killed, too
		err := w.handOverTo(w.spawnKeeper())
		if err == nil {
			os.Exit(0)
		}
		warn("replace the keeper: %v", err)
	}
	die("no keeper stays alive")
}

// handOverTo gives a keeper everything. What is held now goes first: until then
// this process must not be killed as well.
func (w *Worker) handOverTo(next *keeper.Conn, err error) error {
	if err != nil {
		return err
	}
	// The socket is closed by this process's end and not before, not even by the
	// garbage collector: the keeper starts the next worker then, and there must
	// never be two.
	w.successor = next
	given := map[*process]bool{}
	give := func() error {
		for _, p := range w.processes() {
			if given[p] {
				continue
			}
			if err := handOver(p, next); err != nil {
				return err
			}
			given[p] = true
		}
		return nil
	}
	if err := give(); err != nil {
		return err
	}
	w.awaitStarts()
	return give()
}

func (w *Worker) spawnKeeper() (*keeper.Conn, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[1])
	c := keeper.Config{Dir: w.dir, Lock: keeper.LockFD, Listener: keeper.ListenerFD}
	if _, _, err := keeper.Spawn(w.runDir, keeper.TakeoverFlag, c, pair[1]); err != nil {
		return nil, err
	}
	return keeper.NewConn(pair[0])
}

// awaitStarts waits for the starts under way; new ones are not begun.
func (w *Worker) awaitStarts() {
	for range 10_000 {
		w.mu.Lock()
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

func handOver(p *process, to *keeper.Conn) error {
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
	return err
}
