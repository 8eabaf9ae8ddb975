package stdio

import (
	"bytes"
	"fmt"
	"time"

	"berth/internal/logs"

	"golang.org/x/sys/unix"
)

// aside is the part of a Log with non-blocking delivery: a goroutine of its own
// writes the log while output goes on being taken out of the pipes, so that a
// slow disk holds up nobody. What waits lies in the spool. Once that is more than
// the buffer may hold, the oldest lines of it are given up, and a line in their
// place says how many. All fields are guarded by Proc.mu.
type aside struct {
	busy     bool     // the goroutine runs; it alone uses Log.w
	idle     chan any // closed when it ends
	inFlight bool     // a batch is being written
	upTo     [2]int64 // end of what is in that batch
	final    bool     // no output will come
	finished bool     // and all of it is logged
}

// logAside has the goroutine log what is there, and keeps what waits for it
// within bounds.
func (p *Proc) logAside(i int, mem *scratch) {
	l, s := p.cfg.Log, &p.out[i]
	p.bound(i, mem)
	if l.aside.busy || l.pos[i].Offset >= s.end || !l.aside.final && !s.lineEnds(l.pos[i].Offset, mem) {
		return
	}
	p.startAside()
}

func (p *Proc) startAside() {
	a := &p.cfg.Log.aside
	a.busy, a.idle = true, make(chan any)
	go p.writeAside(a.idle)
}

// bound gives up lines when too much waits.
func (p *Proc) bound(i int, mem *scratch) {
	l, s := p.cfg.Log, &p.out[i]
	pos := &l.pos[i]
	from := max(pos.Offset, pos.GapTo, pos.Skip, l.aside.upTo[i])
	if s.end-from <= l.Buffer {
		return
	}
	// Down to half of it, so that this is not done for every line.
	to, lines := s.cut(from, s.end-l.Buffer/2, mem)
	if pos.Skip <= pos.Offset {
		pos.SkipFrom = from
	}
	pos.Skip = to
	pos.Dropped += lines
	if err := l.saveStreams(); err != nil {
		p.warn("%v", err)
		return // a successor must not read what was given back
	}
	for _, c := range p.conns {
		if c.wants[i] {
			to = min(to, c.pos[i])
		}
	}
	if begin, end := (from+4095)&^4095, to&^4095; end > begin {
		_ = unix.Fallocate(s.spool, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, begin, end-begin)
	}
}

// cut returns where the first line begins at or behind about, and how many begin
// between from and there.
func (s *stream) cut(from, about int64, mem *scratch) (to int64, lines int64) {
	for at := from; at < s.end; {
		n, err := unix.Pread(s.spool, mem.in[:min(int64(len(mem.in)), s.end-at)], at)
		if err != nil || n == 0 {
			break
		}
		for text, begin := mem.in[:n], at; len(text) > 0; {
			size := bytes.IndexByte(text, '\n') + 1
			if size == 0 {
				break
			}
			lines++
			text, begin = text[size:], begin+int64(size)
			if begin >= about {
				return begin, lines
			}
		}
		at += int64(n)
	}
	return s.end, lines + 1
}

// writeAside is the goroutine: it goes on until there is nothing to log.
func (p *Proc) writeAside(idle chan any) {
	defer close(idle)
	mem := scratches.Get().(*scratch)
	defer scratches.Put(mem)
	for {
		progress := false
		for i := range p.out {
			for p.batchAside(i, mem) {
				progress = true
			}
		}
		if !progress && p.endAside(mem) {
			return
		}
	}
}

// drainAside has the goroutine log the rest of a process that ended; then it
// posts the end once more. It returns false if there is nothing to wait for.
func (p *Proc) drainAside() bool {
	l := p.cfg.Log
	if l == nil || l.Buffer == 0 {
		return false
	}
	l.aside.final = true
	if !l.aside.busy {
		p.startAside()
	}
	return true
}

// endAside ends the goroutine unless something came meanwhile.
func (p *Proc) endAside(mem *scratch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := &p.cfg.Log.aside
	if !p.closed {
		for i := range p.out {
			if p.pending(i, mem) {
				return false
			}
		}
		if a.final && !a.finished {
			a.finished = true
			go p.post(bitExit)
		}
		p.compact()
	}
	a.busy = false
	return true
}

// pending reports whether a stream has something to log. The caller holds mu.
func (p *Proc) pending(i int, mem *scratch) bool {
	l, s := p.cfg.Log, &p.out[i]
	pos := &l.pos[i]
	if p.closed || s.spool < 0 || pos.Offset >= s.end {
		return false
	}
	return l.aside.final || pos.Skip > pos.Offset || pos.GapTo > pos.Offset || s.lineEnds(pos.Offset, mem)
}

// batchAside logs one batch of a stream. It returns false when there is none.
func (p *Proc) batchAside(i int, mem *scratch) bool {
	l, s := p.cfg.Log, &p.out[i]
	p.mu.Lock()
	pending := p.pending(i, mem)
	p.mu.Unlock()
	if !pending {
		return false
	}
	if err := p.makeRoom(); err != nil {
		return p.failedAside(i, err)
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false
	}
	next, err := p.takeBatch(i, mem)
	if err != nil || next == l.pos[i] {
		s.scanned = s.end
		p.mu.Unlock()
		if err != nil {
			return p.failedAside(i, err)
		}
		return false
	}
	l.aside.inFlight, l.aside.upTo[i] = true, next.Offset
	p.mu.Unlock()

	err = l.w.Append(mem.out)
	if err != nil {
		return p.failedAside(i, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := &l.pos[i]
	next.Skip, next.SkipFrom, next.Dropped = now.Skip, now.SkipFrom, now.Dropped // what was given up meanwhile
	l.aside.inFlight, l.failed, l.pos[i] = false, false, next
	if err := l.save(false); err != nil {
		p.warn("%v", err)
	}
	if !p.closed {
		p.compact()
	}
	return true
}

// takeBatch encodes what comes next. What was given up comes first, as a batch of
// its own that is written down before, so that a successor makes the same one.
func (p *Proc) takeBatch(i int, mem *scratch) (StreamProgress, error) {
	l := p.cfg.Log
	if pos := &l.pos[i]; pos.Skip > pos.Offset && pos.SkipFrom <= pos.Offset && pos.GapTo <= pos.Offset {
		pos.GapTo, pos.GapLines = pos.Skip, pos.Dropped
		pos.Skip, pos.SkipFrom, pos.Dropped = 0, 0, 0
		if err := l.saveStreams(); err != nil {
			return *pos, err
		}
	}
	return l.encode(i, &p.out[i], mem, l.aside.final, time.Now(), l.w.Room())
}

// makeRoom opens and rotates the log, without holding up anybody.
func (p *Proc) makeRoom() error {
	l := p.cfg.Log
	locked := func(do func() error) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		return do()
	}
	if l.w == nil {
		w, err := logs.OpenWriter(l.Path, l.Limits)
		if err != nil {
			return err
		}
		if err := w.Mend(); err != nil {
			w.Close()
			return err
		}
		if err := locked(func() error { l.w = w; return l.save(false) }); err != nil {
			return err
		}
	}
	if l.w.Room() > 0 {
		return nil
	}
	if err := locked(func() error { return l.save(true) }); err != nil {
		return err
	}
	if err := l.w.Rotate(l.w.Inode()); err != nil {
		return err
	}
	if err := locked(func() error { return l.save(false) }); err != nil {
		return err
	}
	l.w.Rotated()
	return nil
}

func (p *Proc) failedAside(i int, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cfg.Log.aside.inFlight = false
	if p.closed {
		return false
	}
	return p.logFailed(i, err)
}

// appendGap appends what stands in the log for lines that were given up: the end
// of the line that was logged in part, and how many they were.
func (l *Log) appendGap(i int, enc encoders, dst []byte, pos *StreamProgress) []byte {
	if pos.Partial {
		enc.rest.Set(streamNames[i], l.attrs, time.Unix(0, pos.PartialAt))
		dst = enc.rest.Append(dst, nil, false)
		pos.Partial, pos.PartialAt = false, 0
	}
	text := fmt.Sprintf("berth: %d lines were dropped here: the log could not keep up", pos.GapLines)
	dst = enc.lines.Append(dst, []byte(text), false)
	pos.Offset, pos.GapTo, pos.GapLines = max(pos.Offset, pos.GapTo), 0, 0
	return dst
}
