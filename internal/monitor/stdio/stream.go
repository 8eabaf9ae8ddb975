package stdio

import (
	"sync"

	"golang.org/x/sys/unix"
)

// stream is one direction of output: a pipe and the spool that it is emptied
// into. Offsets count bytes of the spool file.
type stream struct {
	fd    int // reading end of the pipe, -1 when closed
	at    ticket
	ready bool // there may be something in the pipe
	wide  bool // the pipe was made larger

	spool   int   // -1: not made yet
	end     int64 // size of the spool
	punched int64 // up to here its blocks were given back
	scanned int64 // up to here no line ends that was not logged
}

const (
	pullSize    = 256 << 10 // taken from a pipe at a time
	widePipe    = 1 << 20   // size of the pipe of a busy writer
	narrowPipe  = 64 << 10  // size that pipes begin with
	maxLag      = 512 << 10 // how far a client may lag behind before the process has to wait for it
	compactSize = 64 << 10  // an all delivered spool of this size is emptied
	punchSize   = 1 << 20   // at a time
)

// devNull takes what nobody wants.
var devNull = sync.OnceValue(func() int {
	fd, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
})

// wanted reports whether anybody reads the stream.
func (p *Proc) wanted(i int) bool {
	if p.cfg.Log != nil {
		return true
	}
	for _, c := range p.conns {
		if c.wants[i] {
			return true
		}
	}
	return false
}

// lagging reports whether a client is too far behind.
func (p *Proc) lagging(i int) bool {
	for _, c := range p.conns {
		if c.wants[i] && p.out[i].end-c.pos[i] > maxLag {
			return true
		}
	}
	return false
}

// pullStream moves one load from the pipe into the spool. It returns the
// stream's bit if there may be more. Only a pipe that says so counts as empty:
// splice also stops short when a signal comes, of which the Go runtime sends
// many, and a writer that waits for room in the middle of a write causes no
// event.
func (p *Proc) pullStream(i int) (more uint32) {
	s := &p.out[i]
	for taken := 0; taken < pullSize; {
		n := p.takeFrom(i, pullSize-taken)
		if n <= 0 {
			s.ready = false // empty, or all writers are gone
			return 0
		}
		taken += n
		if n >= narrowPipe && !s.wide {
			s.wide = true
			_, _ = unix.FcntlInt(uintptr(s.fd), unix.F_SETPIPE_SZ, widePipe)
		}
	}
	return bitOut << i
}

// takeFrom moves up to size bytes from the pipe into the spool, or to nowhere if
// nobody wants them. It returns how many, 0 if there are none.
func (p *Proc) takeFrom(i, size int) int {
	s := &p.out[i]
	if p.wanted(i) && p.haveSpool(i) {
		at := s.end
		n, err := splice(s.fd, s.spool, &at, size)
		if err == nil {
			s.end += int64(n)
		}
		if err != unix.ENOSPC && err != unix.EDQUOT && err != unix.EIO {
			return n
		}
		// Better to lose output than to stop every process that writes.
		p.warn("spool %s: %v; output is lost", p.cfg.Spools[i], err)
	}
	n, _ := splice(s.fd, devNull(), nil, size)
	return n
}

func (p *Proc) haveSpool(i int) bool {
	s := &p.out[i]
	if s.spool >= 0 {
		return true
	}
	if err := s.openSpool(p.cfg.Spools[i]); err != nil {
		p.warn("spool %s: %v; output is lost", p.cfg.Spools[i], err)
		return false
	}
	return true
}

func splice(from, to int, offset *int64, size int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, offset, size, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

// pullTTY moves a terminal's output into the pipe in front of the spool; the
// detour makes reading a terminal as safe against kills as reading a pipe.
func (p *Proc) pullTTY() (more uint32) {
	p.ttyReady = false
	if p.files.TTY < 0 {
		return 0
	}
	for range 8 {
		n, err := splice(p.files.TTY, p.files.TTYIn, nil, narrowPipe)
		if err != nil || n == 0 {
			// EAGAIN may also mean that the pipe is full: then its event, which
			// is ours to cause, has to bring us back.
			if err == unix.EAGAIN && p.out[0].ready {
				p.ttyReady = true
				return bitTTY
			}
			return 0
		}
		p.out[0].ready = true
	}
	p.ttyReady = true
	return bitTTY
}

// openSpool makes the spool, or goes on with the one that is there.
func (s *stream) openSpool(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return err
	}
	s.spool, s.end = fd, st.Size
	return nil
}

func (s *stream) closeSpool(path string) {
	if s.spool < 0 {
		return
	}
	_ = unix.Close(s.spool)
	_ = unix.Unlink(path)
	s.spool = -1
}

// compact gives back what everybody has read.
func (p *Proc) compact() {
	for i := range p.out {
		s := &p.out[i]
		if s.spool < 0 {
			continue
		}
		least := s.end
		if p.cfg.Log != nil {
			least = min(least, p.cfg.Log.offset(i))
		}
		readers := 0
		for _, c := range p.conns {
			if c.wants[i] {
				readers++
				least = min(least, c.pos[i])
			}
		}
		switch {
		case p.drained && readers == 0:
			s.closeSpool(p.cfg.Spools[i])
		case least == s.end && s.end >= compactSize:
			p.empty(i)
		case least-s.punched >= punchSize:
			upTo := least &^ 4095
			_ = unix.Fallocate(s.spool, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, s.punched, upTo-s.punched)
			s.punched = upTo
		}
	}
}

// empty starts the spool over. A spool shorter than the recorded offset says
// to a successor that this was interrupted; see Log.recover.
func (p *Proc) empty(i int) {
	s := &p.out[i]
	if unix.Ftruncate(s.spool, 0) != nil {
		return
	}
	s.end, s.punched, s.scanned = 0, 0, 0
	if p.cfg.Log != nil {
		p.cfg.Log.restart(i)
	}
	for _, c := range p.conns {
		c.pos[i] = 0
	}
}
