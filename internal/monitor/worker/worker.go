// Package worker is the monitor's process that works: it starts containers, has
// their output logged and delivered (package stdio), learns from the keeper how
// they ended, and answers the engine. It keeps nothing that its successor could
// not find in the run directory or get from the keeper, because it may be
// killed at any instant.
package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"berth/internal/monitor/keeper"
	"berth/internal/monitor/proto"
	"berth/internal/monitor/stdio"

	"golang.org/x/sys/unix"
)

// Worker is the state of the process.
type Worker struct {
	runDir string
	dir    string // the monitor's directory
	keeper *keeper.Conn
	pump   *stdio.Pump
	ooms   oomWatcher

	mu         sync.Mutex // guards all below and the fields of containers; no I/O happens under it
	containers map[string]*container
	clients    map[*client]struct{}
	busy       int  // starts under way
	leaving    bool // this process is about to end
	idle       *time.Timer

	successor *keeper.Conn // of replaceKeeper, to the next keeper
}

// Run is the worker's life. It takes over what is there and returns only with
// an error.
func Run(runDir string) error {
	for fd := keeper.SocketFD; fd <= keeper.LockFD; fd++ {
		unix.CloseOnExec(fd)
	}
	conn, err := keeper.NewConn(keeper.SocketFD)
	if err != nil {
		return fmt.Errorf("socket to the keeper: %w", err)
	}
	pump, err := stdio.NewPump()
	if err != nil {
		return err
	}
	w := &Worker{
		runDir: runDir, dir: filepath.Join(runDir, "monitor"),
		keeper: conn, pump: pump,
		containers: map[string]*container{}, clients: map[*client]struct{}{},
	}
	w.ooms.w = w
	kept, err := receiveKept(conn)
	if err != nil {
		return fmt.Errorf("take over from the keeper: %w", err)
	}
	w.adopt(kept)
	if err := keeper.WritePid(w.dir, "worker.pid"); err != nil {
		return err
	}
	go func() { die("event loop: %v", pump.Run()) }()
	go w.listenToKeeper()
	w.leaveWhenIdle(firstClient)
	return w.serve(keeper.ListenerFD)
}

// How long the monitor stays with nothing to do: after its start, and after the
// last engine has left.
const (
	firstClient = 10 * time.Second
	lastClient  = time.Second
)

// leaveWhenIdle ends the monitor after a while if then no engine is connected
// and no container runs.
func (w *Worker) leaveWhenIdle(after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle != nil {
		w.idle.Stop()
	}
	w.idle = time.AfterFunc(after, func() {
		w.mu.Lock()
		if len(w.clients) > 0 || w.busy > 0 || w.leaving || w.runsAny() {
			w.mu.Unlock()
			return
		}
		w.leaving = true
		w.mu.Unlock()
		_ = w.keeper.Send(keeper.Message{Op: keeper.OpQuit})
		os.Exit(0)
	})
}

// runsAny reports whether a container runs or is being started.
func (w *Worker) runsAny() bool {
	for _, c := range w.containers {
		if c.init.phase == starting || c.init.phase == running {
			return true
		}
	}
	return false
}

// listenToKeeper acts on the ends of processes until the keeper dies; then it
// starts another one.
func (w *Worker) listenToKeeper() {
	for {
		m, err := w.keeper.Receive()
		if err == unix.EPIPE {
			w.replaceKeeper()
			return
		}
		if err != nil {
			die("keeper: %v", err)
		}
		if m.Op == keeper.OpExited {
			w.processEnded(m)
		}
	}
}

// tellKeeper sends a message; when the keeper is gone its successor is told
// everything anyway.
func (w *Worker) tellKeeper(m keeper.Message) { _ = w.keeper.Send(m) }

// publish tells all engines of an event.
func (w *Worker) publish(e proto.Event) {
	w.mu.Lock()
	clients := make([]*client, 0, len(w.clients))
	for c := range w.clients {
		if c.greeted {
			clients = append(clients, c)
		}
	}
	w.mu.Unlock()
	for _, c := range clients {
		c.tell(e)
	}
}

func warn(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s worker: %s\n", time.Now().UTC().Format(time.RFC3339), fmt.Sprintf(format, args...))
}

// die ends the process; the keeper starts another one.
func die(format string, args ...any) {
	warn(format, args...)
	os.Exit(1)
}
