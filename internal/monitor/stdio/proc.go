package stdio

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what becomes of a process's output and input.
type Config struct {
	Name   string    // for messages
	Spools [2]string // where the spool files of output and error output are made when needed
	Log    *Log      // nil: output is not kept
	// CloseStdin ends the process's input when a client that has it ends its
	// own. Terminals stay.
	CloseStdin    bool
	OnDrained     func() // after Exit, once all output is in the log
	OnStdinClosed func() // the input was ended; copies of its descriptor have to be closed
	OnDetach      func() // a client typed its detach keys
}

// Files are the descriptors of a process's standard streams on our side, all
// non-blocking; -1 for none. The Proc owns them from Open on.
type Files struct {
	Stdin int // writing end
	Out   [2]int
	TTY   int // master of the terminal; Out[0] then is a pipe that its output passes through
	TTYIn int // writing end of that pipe
}

// NoFiles has no descriptor at all.
var NoFiles = Files{Stdin: -1, Out: [2]int{-1, -1}, TTY: -1, TTYIn: -1}

// Proc is the standard streams of one process, from before it starts (clients
// may attach already) until its last byte is delivered.
type Proc struct {
	pump *Pump
	cfg  Config

	// Whoever sets running works off events until none are left, so that no
	// goroutine waits for another one that writes to a slow disk.
	events  atomic.Uint32
	running atomic.Bool

	mu       sync.Mutex // guards all below
	open     bool
	closed   bool
	exited   bool
	drained  bool
	isTTY    bool
	ttyReady bool
	files    Files
	ttyAt    ticket
	stdinAt  ticket
	out      [2]stream
	conns    []*conn
	after    []func() // called once mu is free again
}

// The events of a Proc.
const (
	bitOut   = 1 << iota // and the next one: output may be read
	bitErr               //
	bitTTY               // the terminal can be read or written
	bitStdin             // input can be written
	bitConns             // a client's socket changed
	bitExit              // the process ended
	bitCheck             // something changed by a call
)

// NewProc makes the streams of a process that has not started.
func (p *Pump) NewProc(cfg Config) *Proc {
	return &Proc{
		pump: p, cfg: cfg, files: NoFiles, ttyAt: noTicket, stdinAt: noTicket,
		out: [2]stream{{fd: -1, spool: -1, at: noTicket}, {fd: -1, spool: -1, at: noTicket}},
	}
}

// Configure replaces the configuration of a Proc that is not open yet.
func (p *Proc) Configure(cfg Config) {
	p.mu.Lock()
	p.cfg = cfg
	p.mu.Unlock()
}

// Open begins to move output and input. With a Log it first brings the log up
// to date from what a killed predecessor left.
func (p *Proc) Open(files Files, isTTY bool) error {
	p.mu.Lock()
	p.files, p.isTTY, p.open = files, isTTY, true
	var failed error
	for i, fd := range files.Out {
		if fd < 0 {
			continue
		}
		s := &p.out[i]
		s.fd = fd
		if s.at, failed = p.pump.add(fd, unix.EPOLLIN, p, bitOut<<i, nil); failed != nil {
			failed = fmt.Errorf("watch output: %w", failed)
		}
	}
	if files.TTY >= 0 && failed == nil {
		p.ttyAt, failed = p.pump.add(files.TTY, unix.EPOLLIN|unix.EPOLLOUT, p, bitTTY, nil)
	}
	waiting := len(p.conns) > 0
	p.mu.Unlock()
	if waiting {
		p.post(bitCheck)
	}
	return failed
}

// Resize sets the size of the terminal.
func (p *Proc) Resize(height, width uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files.TTY < 0 {
		return unix.ENOTTY
	}
	return unix.IoctlSetWinsize(p.files.TTY, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
}

// WithFiles calls use with the descriptors while they cannot be closed.
func (p *Proc) WithFiles(use func(Files)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	use(p.files)
}

// Exit says that the process ended: what is left of its output is logged, then
// OnDrained called, then clients get the rest and are closed.
func (p *Proc) Exit() { p.post(bitExit) }

// Close drops everything, delivered or not.
func (p *Proc) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if l := p.cfg.Log; l != nil && l.aside.busy {
		idle := l.aside.idle
		p.mu.Unlock()
		<-idle
		p.mu.Lock()
	}
	p.closeFiles()
	for len(p.conns) > 0 {
		p.drop(p.conns[0])
	}
	for i := range p.out {
		p.out[i].closeSpool(p.cfg.Spools[i])
	}
	if p.cfg.Log != nil {
		p.cfg.Log.stop()
	}
}

// closeFiles closes the process's side.
func (p *Proc) closeFiles() {
	for i := range p.out {
		s := &p.out[i]
		p.pump.remove(s.fd, s.at)
		closeFD(s.fd)
		s.fd, s.at, s.ready = -1, noTicket, false
	}
	p.pump.remove(p.files.TTY, p.ttyAt)
	p.closeStdin()
	closeFD(p.files.TTY)
	closeFD(p.files.TTYIn)
	p.files, p.ttyAt = NoFiles, noTicket
}

func (p *Proc) closeStdin() {
	if p.files.Stdin < 0 {
		return
	}
	p.pump.remove(p.files.Stdin, p.stdinAt)
	_ = unix.Close(p.files.Stdin)
	p.files.Stdin, p.stdinAt = -1, noTicket
}

// post notes events and works them off unless somebody is at it.
func (p *Proc) post(bits uint32) {
	p.events.Or(bits)
	if !p.running.Swap(true) {
		p.work(false)
	}
}

// work handles events until there are none. The event loop does the first
// round itself; a process that has more to say gets a goroutine for as long.
func (p *Proc) work(own bool) {
	for {
		if bits := p.events.Swap(0); bits != 0 {
			if more := p.round(bits); more != 0 {
				p.events.Or(more)
				if !own {
					go p.work(true)
					return
				}
				continue
			}
		}
		p.running.Store(false)
		if p.events.Load() == 0 || p.running.Swap(true) {
			return
		}
	}
}

// round does a bounded piece of work and returns the events that it left over.
func (p *Proc) round(bits uint32) (more uint32) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return 0
	}
	more = p.step(bits)
	after := p.after
	p.after = nil
	p.mu.Unlock()
	for _, call := range after {
		call()
	}
	return more
}

func (p *Proc) step(bits uint32) (more uint32) {
	mem := scratches.Get().(*scratch)
	defer scratches.Put(mem)
	for i := range p.out {
		if bits&(bitOut<<i) != 0 {
			p.out[i].ready = true
		}
	}
	if bits&bitTTY != 0 {
		p.ttyReady = true
	}
	if bits&bitExit != 0 && p.open {
		p.exited = true
	}
	if bits&bitConns != 0 {
		p.noteConns()
	}
	if p.exited && !p.drained {
		p.drain(mem)
	} else if p.open && !p.drained {
		more = p.pull(mem)
		p.feedAll(mem)
	}
	p.deliverAll(mem)
	p.compact()
	return more | p.heldBack()
}

// heldBack returns the events of output that was left alone for the sake of a
// client that has caught up now. No event would ever come for it.
func (p *Proc) heldBack() (bits uint32) {
	if !p.open || p.drained {
		return 0
	}
	for i := range p.out {
		if p.out[i].ready && !p.lagging(i) {
			bits |= bitOut << i
		}
	}
	if p.ttyReady && !p.lagging(0) {
		bits |= bitTTY
	}
	return bits
}

// pull takes output out of the pipes and logs it.
func (p *Proc) pull(mem *scratch) (more uint32) {
	if p.ttyReady && !p.lagging(0) {
		more |= p.pullTTY()
	}
	for i := range p.out {
		if p.out[i].ready && !p.lagging(i) {
			more |= p.pullStream(i)
			p.log(i, mem, false)
		}
	}
	return more
}

// drain takes what an ended process left in its pipes, however far clients lag
// behind, and closes its side.
func (p *Proc) drain(mem *scratch) {
	if l := p.cfg.Log; l == nil || !l.aside.final {
		p.drainPipes(mem)
		if p.drainAside() {
			return
		}
		for i := range p.out {
			p.log(i, mem, true)
		}
	} else if !l.aside.finished {
		return // the log comes to its end beside us
	}
	p.drained = true
	p.closeFiles()
	if p.cfg.Log != nil {
		p.cfg.Log.close()
	}
	for i := range p.out {
		if p.cfg.Spools[i] != "" && p.out[i].spool >= 0 {
			_ = unix.Unlink(p.cfg.Spools[i]) // clients go on reading it
		}
	}
	if p.cfg.OnDrained != nil {
		p.after = append(p.after, p.cfg.OnDrained)
	}
}

func (p *Proc) drainPipes(mem *scratch) {
	for i := range p.out {
		if p.out[i].fd >= 0 {
			p.out[i].ready = true
		}
	}
	p.ttyReady = p.files.TTY >= 0
	for rounds := 0; rounds < maxDrainRounds && (p.ttyReady || p.out[0].ready || p.out[1].ready); rounds++ {
		if p.ttyReady {
			p.pullTTY()
		}
		for i := range p.out {
			if p.out[i].ready {
				p.pullStream(i)
				p.log(i, mem, false)
			}
		}
	}
}

// maxDrainRounds bounds what is taken from a pipe into which others than the
// ended process go on writing: four times the largest pipe.
const maxDrainRounds = 16

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

func (p *Proc) warn(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %s: %s\n", time.Now().UTC().Format(time.RFC3339), p.cfg.Name, fmt.Sprintf(format, args...))
}
