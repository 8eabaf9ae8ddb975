// Package stdio moves the output of processes into log files and to attached
// clients, and input the other way, for all containers in one event loop. It
// exists apart from the worker because it knows nothing of containers: pipes,
// terminals, sockets and files are all it touches.
//
// Output goes from the pipe into a spool file with splice(2), which takes bytes
// out of the one and puts them into the other in a single system call. Whatever
// instant this process is killed at, each byte is in exactly one of the two.
// Log files and clients are fed from the spool; how far the log has come is
// recorded together with the log's size (see State), so that a successor can
// tell a line that was written from one that was not. The spool is also what
// lets a slow client lag behind without memory.
package stdio

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"berth/internal/logs"

	"golang.org/x/sys/unix"
)

// Pump waits for all descriptors at once. Between events an idle process costs
// neither a goroutine nor a buffer.
type Pump struct {
	poll int
	raw  syscall.RawConn

	mu    sync.Mutex // guards the table
	slots []slot
	free  []int32
}

// slot is who wants the events of a descriptor. The generation tells events of
// an earlier user of the slot apart.
type slot struct {
	generation int32
	proc       *Proc
	bits       uint32
	conn       *conn
	call       func() // instead of a Proc
}

// ticket names a slot.
type ticket struct{ index, generation int32 }

var noTicket = ticket{index: -1}

// NewPump makes a pump; Run has to be called for it to work.
func NewPump() (*Pump, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(poll, true); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	raw, err := os.NewFile(uintptr(poll), "epoll").SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &Pump{poll: poll, raw: raw}, nil
}

// Run handles events until the epoll instance fails, which it does not.
func (p *Pump) Run() error {
	var events [64]unix.EpollEvent
	for {
		var n int
		var failed error
		err := p.raw.Read(func(fd uintptr) bool {
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
		for i := range events[:n] {
			p.dispatch(&events[i])
		}
	}
}

func (p *Pump) dispatch(event *unix.EpollEvent) {
	p.mu.Lock()
	s := p.slots[event.Fd]
	p.mu.Unlock()
	if s.generation != event.Pad {
		return
	}
	if s.proc == nil {
		if s.call != nil {
			s.call()
		}
		return
	}
	if s.conn != nil {
		s.conn.events.Or(event.Events)
	}
	s.proc.post(s.bits)
}

// add begins to report events of fd, edge-triggered, as bits of proc.
func (p *Pump) add(fd int, events uint32, proc *Proc, bits uint32, c *conn) (ticket, error) {
	p.mu.Lock()
	var index int32
	if n := len(p.free); n > 0 {
		index, p.free = p.free[n-1], p.free[:n-1]
	} else {
		index = int32(len(p.slots))
		p.slots = append(p.slots, slot{})
	}
	s := &p.slots[index]
	s.generation++
	s.proc, s.bits, s.conn = proc, bits, c
	t := ticket{index, s.generation}
	p.mu.Unlock()
	if err := p.control(unix.EPOLL_CTL_ADD, fd, events, t); err != nil {
		p.release(t)
		return noTicket, err
	}
	return t, nil
}

// Watch calls call, which must not block, each time fd becomes readable. It
// returns a function that ends this; it has to be called before closing fd.
func (p *Pump) Watch(fd int, call func()) (stop func(), err error) {
	t, err := p.add(fd, unix.EPOLLIN, nil, 0, nil)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.slots[t.index].call = call
	p.mu.Unlock()
	p.change(fd, unix.EPOLLIN, t) // what came meanwhile is reported again
	return func() { p.remove(fd, t) }, nil
}

// change replaces the events that are reported; one that holds already is
// reported again.
func (p *Pump) change(fd int, events uint32, t ticket) {
	_ = p.control(unix.EPOLL_CTL_MOD, fd, events, t)
}

// remove ends the reports. It has to come before closing fd, of which others
// may have copies.
func (p *Pump) remove(fd int, t ticket) {
	if t.index < 0 {
		return
	}
	_ = unix.EpollCtl(p.poll, unix.EPOLL_CTL_DEL, fd, nil)
	p.release(t)
}

func (p *Pump) release(t ticket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.slots[t.index]
	s.proc, s.conn, s.call = nil, nil, nil
	s.generation++
	p.free = append(p.free, t.index)
}

func (p *Pump) control(op, fd int, events uint32, t ticket) error {
	event := unix.EpollEvent{Events: events | unix.EPOLLET, Fd: t.index, Pad: t.generation}
	return unix.EpollCtl(p.poll, op, fd, &event)
}

// scratch is the memory that moving output takes, shared by all processes.
type scratch struct {
	in  [128 << 10]byte
	out []byte

	formats map[logs.Format]encoders
}

// encoders are one for lines, and one for what goes on with a line that has begun.
type encoders struct{ lines, rest logs.Encoder }

func (m *scratch) encoders(f logs.Format) encoders {
	e, ok := m.formats[f]
	if !ok {
		e = encoders{f.NewEncoder(), f.NewEncoder()}
		if m.formats == nil {
			m.formats = make(map[logs.Format]encoders, 1)
		}
		m.formats[f] = e
	}
	return e
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}
