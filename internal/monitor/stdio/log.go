package stdio

import (
	"bytes"
	"time"

	"berth/internal/logs"

	"golang.org/x/sys/unix"
)

// Log keeps the output of one container in the files of a log driver. What it
// has done is in a State: each time lines were appended, the new size of the
// file and the new offset in the spool are recorded together.
type Log struct {
	LogConfig
	attrs []byte
	state *State

	w      *logs.Writer // nil until there is something to write
	ended  *logs.Writer // the last one that was closed
	pos    [2]StreamProgress
	failed bool // the last append failed
	aside  aside
}

// LogConfig says where and how output is logged.
type LogConfig struct {
	Path   string
	Format logs.Format
	Limits logs.Limits
	Attrs  map[string]string // written with every line
	// Buffer is how many bytes of a stream may wait to be logged before lines are
	// dropped; 0 lets the process wait instead.
	Buffer int64
}

// NewLog makes a log. Nothing is touched on disk before there is output.
func NewLog(cfg LogConfig, state *State) *Log {
	return &Log{LogConfig: cfg, attrs: logs.EncodeAttrs(cfg.Attrs), state: state}
}

func (l *Log) offset(i int) int64 { return l.pos[i].Offset }

func (l *Log) close() {
	if l.w != nil {
		l.w.Close()
		l.ended, l.w = l.w, nil
	}
}

// stop ends what goes on beside: after it the files are not touched any more.
func (l *Log) stop() {
	l.close()
	if l.ended != nil {
		l.ended.Stop()
	}
}

// restart notes that a spool, all of which was logged, is empty again.
func (l *Log) restart(i int) {
	p := &l.pos[i]
	*p = StreamProgress{Partial: p.Partial, PartialAt: p.PartialAt}
	l.aside.upTo[i] = 0
	_ = l.saveStreams()
}

// saveStreams records how far the streams are and nothing of the file, which may
// be about to change.
func (l *Log) saveStreams() error {
	return l.state.Update(func(p *Progress) { p.Log.Streams = l.pos })
}

// save records how far the log is.
func (l *Log) save(rotating bool) error {
	return l.state.Update(func(p *Progress) {
		p.Log.Rotating = rotating
		p.Log.Streams = l.pos
		if l.w != nil {
			p.Log.Inode, p.Log.Size = l.w.Inode(), l.w.Size()
		}
	})
}

// open opens the file for a container that has just begun to write.
func (l *Log) open() error {
	w, err := logs.OpenWriter(l.Path, l.Limits)
	if err != nil {
		return err
	}
	l.w = w
	if err := w.Mend(); err != nil {
		return err
	}
	return l.save(false)
}

// rotate begins a new file. The intent is recorded first, so that a successor
// can complete what a kill interrupted.
func (l *Log) rotate() error {
	if err := l.save(true); err != nil {
		return err
	}
	if err := l.w.Rotate(l.w.Inode()); err != nil {
		return err
	}
	if err := l.save(false); err != nil {
		return err
	}
	l.w.Rotated()
	return nil
}

// streamNames are the names of the streams in the log.
var streamNames = [2]string{"stdout", "stderr"}

// maxBatch bounds what is encoded at a time, in bytes of the log.
const maxBatch = 512 << 10

// log appends the complete lines of a stream to the log; final says that no
// more will come, so that an unfinished line is logged as it is.
func (p *Proc) log(i int, mem *scratch, final bool) {
	l, s := p.cfg.Log, &p.out[i]
	if l == nil {
		return
	}
	if l.Buffer > 0 {
		p.logAside(i, mem)
		return
	}
	for l.pos[i].Offset < s.end {
		if !final && !s.lineEnds(l.pos[i].Offset, mem) {
			return
		}
		if !p.logBatch(i, mem, final) {
			return
		}
	}
}

// lineEnds reports whether there is a newline, or a full entry without one,
// behind offset. It looks at each byte once only, because an unfinished line
// may grow by single bytes.
func (s *stream) lineEnds(offset int64, mem *scratch) bool {
	if s.end-offset >= logs.PartialSize || s.scanned <= offset {
		s.scanned = offset
		return true
	}
	n, err := unix.Pread(s.spool, mem.in[:s.end-s.scanned], s.scanned)
	if err != nil || bytes.IndexByte(mem.in[:n], '\n') >= 0 {
		return true
	}
	s.scanned = s.end
	return false
}

// logBatch encodes and appends what fits one batch and one file. It returns
// false when there is no complete line.
func (p *Proc) logBatch(i int, mem *scratch, final bool) bool {
	l, s := p.cfg.Log, &p.out[i]
	if l.w == nil {
		if err := l.open(); err != nil {
			return p.logFailed(i, err)
		}
	}
	if l.w.Room() == 0 {
		if err := l.rotate(); err != nil {
			return p.logFailed(i, err)
		}
	}
	next, err := l.encode(i, s, mem, final, time.Now(), l.w.Room())
	if err != nil {
		return p.logFailed(i, err)
	}
	if next == l.pos[i] {
		s.scanned = s.end
		return false
	}
	if err := l.w.Append(mem.out); err != nil {
		return p.logFailed(i, err)
	}
	l.failed = false
	l.pos[i] = next
	if err := l.save(false); err != nil {
		p.warn("%v", err)
	}
	return true
}

// logFailed gives up what was to be logged: a full disk must not stop the
// container.
func (p *Proc) logFailed(i int, err error) bool {
	l := p.cfg.Log
	if !l.failed {
		p.warn("%v; lines are lost", err)
	}
	l.failed = true
	l.pos[i] = StreamProgress{Offset: p.out[i].end}
	_ = l.save(false)
	return false
}

// encode puts entries into mem.out, of lines that begin at the stream's
// position, until a line is not complete or room is used up. It returns the
// position behind them. The entries depend on nothing but the spool, the
// position and at, so that they can be made again.
func (l *Log) encode(i int, s *stream, mem *scratch, final bool, at time.Time, room int64) (StreamProgress, error) {
	pos := l.pos[i]
	mem.out = mem.out[:0]
	enc := mem.encoders(l.Format)
	enc.lines.Set(streamNames[i], l.attrs, at)
	if pos.GapTo > pos.Offset {
		mem.out = l.appendGap(i, enc, mem.out, &pos)
		return pos, nil
	}
	end := s.end
	if pos.Skip > pos.Offset {
		end = pos.SkipFrom // behind it is nothing any more
	}
	n, err := unix.Pread(s.spool, mem.in[:min(int64(len(mem.in)), end-pos.Offset)], pos.Offset)
	if err != nil {
		return pos, err
	}
	final = final && pos.Offset+int64(n) == s.end
	limit := int(min(room, maxBatch))
	for text := mem.in[:n]; len(text) > 0 && len(mem.out) < limit; {
		window := text[:min(len(text), logs.PartialSize)]
		size := bytes.IndexByte(window, '\n')
		partial := size < 0
		if partial {
			if size = len(window); size < logs.PartialSize && !final {
				break
			}
		}
		encoder := enc.lines
		if pos.Partial { // all parts of a line have the time of the first
			encoder = enc.rest
			encoder.Set(streamNames[i], l.attrs, time.Unix(0, pos.PartialAt))
		} else if partial {
			pos.PartialAt = at.UnixNano()
		}
		mem.out = encoder.Append(mem.out, text[:size], partial)
		pos.Partial = partial
		if !partial {
			size++
			pos.PartialAt = 0
		}
		pos.Offset += int64(size)
		text = text[size:]
	}
	return pos, nil
}
