package stdio

import (
	"bytes"
	"time"

	"berth/internal/logs"

	"golang.org/x/sys/unix"
)

// Recover goes on where a killed predecessor stopped: it finds the spools,
// completes an interrupted rotation and brings the log to a state in which each
// line is in it exactly once. It has to be called before Open.
func (p *Proc) Recover() {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.cfg.Log
	for i := range p.out {
		if p.cfg.Spools[i] == "" || unix.Access(p.cfg.Spools[i], unix.F_OK) != nil {
			continue
		}
		if err := p.out[i].openSpool(p.cfg.Spools[i]); err != nil {
			p.warn("spool %s: %v; output is lost", p.cfg.Spools[i], err)
		}
	}
	if l == nil {
		return
	}
	was := l.state.Get().Log
	l.pos = was.Streams
	for i := range p.out {
		if l.pos[i].Offset > p.out[i].end { // the spool had just been emptied
			l.pos[i] = StreamProgress{Offset: p.out[i].end, Partial: l.pos[i].Partial, PartialAt: l.pos[i].PartialAt}
		}
	}
	mem := scratches.Get().(*scratch)
	defer scratches.Put(mem)
	if was.Inode != 0 {
		if err := p.recoverLog(was, mem); err != nil {
			p.warn("recover the log: %v", err)
		}
	}
	if err := l.save(false); err != nil {
		p.warn("%v", err)
	}
	for i := range p.out {
		p.log(i, mem, false)
	}
}

func (p *Proc) recoverLog(was LogProgress, mem *scratch) error {
	l := p.cfg.Log
	w, err := logs.OpenWriter(l.Path, l.Limits)
	if err != nil {
		return err
	}
	l.w = w
	if was.Rotating {
		if err := w.Rotate(was.Inode); err != nil {
			return err
		}
		if err := l.save(false); err != nil {
			return err
		}
		w.Rotated()
		return nil
	}
	if w.Inode() != was.Inode || w.Size() <= was.Size {
		return nil // nothing was written that is not recorded; or somebody else moved the file
	}
	return p.redo(was.Size, mem)
}

// redo deals with lines that were appended and not recorded. Made again with
// the time that they carry, they have to come out the same; then they stay, so
// that somebody who has read them already is not misled, and what was to follow
// them is appended.
func (p *Proc) redo(recorded int64, mem *scratch) error {
	l := p.cfg.Log
	tail := make([]byte, l.w.Size()-recorded)
	n, err := l.w.ReadAt(tail, recorded)
	if err != nil {
		return err
	}
	tail = tail[:n]
	tail = tail[:bytes.LastIndexByte(tail, '\n')+1]
	room := l.w.Room() + l.w.Size() - recorded
	i, at := l.writtenBy(tail)
	if len(tail) > 0 && i >= 0 && p.out[i].spool >= 0 {
		for _, final := range []bool{false, true} { // a dying process's last words may have been cut short
			next, err := l.encode(i, &p.out[i], mem, final, at, room)
			if err != nil || !bytes.HasPrefix(mem.out, tail) {
				continue
			}
			if err := l.w.Truncate(recorded + int64(len(tail))); err != nil {
				return err
			}
			if err := l.w.Append(mem.out[len(tail):]); err != nil {
				return err
			}
			l.pos[i] = next
			return nil
		}
	}
	return l.w.Truncate(recorded)
}

// writtenBy finds out of which stream and from when a batch of entries is; -1
// if that cannot be told.
func (l *Log) writtenBy(batch []byte) (int, time.Time) {
	d := l.Format.NewDecoder()
	stream, at := -1, time.Now()
	for n := 0; n < 2; n++ {
		line, rest, found := bytes.Cut(batch, []byte("\n"))
		if !found {
			break
		}
		e := d.Decode(line)
		if e == nil {
			return -1, at
		}
		if stream = 0; e.Stream == streamNames[1] {
			stream = 1
		}
		at = e.Time
		if !l.pos[stream].Partial {
			break // else this line carries the time at which it began, and the next one tells
		}
		batch = rest
	}
	return stream, at
}
