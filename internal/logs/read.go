package logs

import (
	"context"
	"io"
	"time"
)

// ReadOptions selects what of a log is read.
type ReadOptions struct {
	// Since and Until are inclusive; zero is no bound. Where the clock was put back
	// the log begins with the first entry not before Since, and what lies past Until
	// is left out: no entry that was written in between is.
	Since, Until time.Time
	Tail         int  // how many entries from the end, counted before Since and Until apply; < 0: all
	Follow       bool // go on with what is written meanwhile
	// Done, when closed, tells a follower that nothing more will be written: it
	// delivers what is there and returns.
	Done <-chan struct{}
	// From, unless zero, is where to begin; Tail is not looked at. When its file
	// is not there any more, everything that is there is read.
	From Position
	// Missed, unless nil, is called when entries were rotated away before they
	// could be read.
	Missed func()
}

// Read calls fn with each entry of the log at path in the given format, oldest first, through its
// rotated files. Without Follow it ends with what was there when it began. A log
// that does not exist is empty. Torn and foreign lines are left out. It returns
// the error of fn or of ctx.
func Read(ctx context.Context, format Format, path string, opts ReadOptions, fn func(Entry) error) error {
	r := &reader{ctx: ctx, path: path, opts: opts, fn: fn, dec: format.NewDecoder()}
	began := time.Now()
	var changes *watch
	if opts.Follow {
		var err error
		if changes, err = watchers.add(dirOf(path)); err != nil {
			return err
		}
		defer watchers.remove(changes)
	}
	set, err := openSet(path)
	if err != nil {
		return err
	}
	defer func() { set.close() }()
	if err := r.readSet(set); err != nil || !opts.Follow || r.past {
		return err
	}
	r.live = true
	r.begun = r.begun || !opts.Since.After(began)
	f := follower{reader: r, changes: changes}
	f.current = set.keepNewest()
	defer f.close()
	return endOf(f.run())
}

func endOf(err error) error {
	if err == errPastUntil {
		return nil
	}
	return err
}

// reader carries the state of one Read.
type reader struct {
	ctx   context.Context
	path  string
	opts  ReadOptions
	fn    func(Entry) error
	dec   Decoder
	lines lineReader
	live  bool // what comes now was written after Read began
	begun bool // Since has come
	past  bool // the newest entry lies after Until
}

// readSet delivers what the files held when they were opened.
func (r *reader) readSet(set *fileSet) error {
	first, offset := 0, int64(0)
	switch {
	case r.opts.From != Position{}:
		if first = set.find(r.opts.From.File); first >= 0 {
			offset = r.opts.From.Offset
			break
		}
		first = 0
		r.missed()
	case r.opts.Tail >= 0:
		var err error
		if first, offset, err = set.tail(r.opts.Tail); err != nil {
			return err
		}
	}
	for i := first; i < len(set.files); i++ {
		f := &set.files[i]
		f.offset = offset
		offset = 0
		if !f.zipped && f.size < f.offset {
			f.offset = 0 // emptied by hand
		}
		if err := r.drain(f, f.size); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) missed() {
	if r.opts.Missed != nil {
		r.opts.Missed()
	}
}

// drain delivers the complete lines of f from its offset up to limit, or up to
// its end as it moves when limit is < 0.
func (r *reader) drain(f *logFile, limit int64) error {
	r.lines.reset(f.data, f.offset, limit)
	for n := 0; ; n++ {
		if n%64 == 0 && r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		line, err := r.lines.next()
		f.offset = r.lines.offset
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.deliver(line, Position{f.id, f.offset}); err != nil {
			return err
		}
	}
}

func (r *reader) deliver(line []byte, next Position) error {
	e := r.dec.Decode(line)
	if e == nil {
		return nil
	}
	r.past = !r.opts.Until.IsZero() && e.Time.After(r.opts.Until)
	r.begun = r.begun || !e.Time.Before(r.opts.Since)
	switch {
	case r.past && r.live:
		return errPastUntil
	case r.past, !r.begun:
		return nil
	}
	e.Next = next
	return r.fn(*e)
}

// lineReader cuts a part of a file into lines.
type lineReader struct {
	file   io.ReaderAt
	offset int64 // of the line that next returns
	limit  int64 // < 0: none
	buf    []byte
	r, w   int // the unread part of buf begins at offset
}

const (
	readSize = 64 << 10
	// longestLine bounds what a damaged file may make the reader hold: the
	// longest true entry is six times PartialSize and its attributes.
	longestLine = 4 << 20
)

func (l *lineReader) reset(file io.ReaderAt, offset, limit int64) {
	l.file, l.offset, l.limit, l.r, l.w = file, offset, limit, 0, 0
}

// next returns the next line without its newline. io.EOF says that no complete
// line is left; offset is where it will begin. A line that is too long is
// skipped.
func (l *lineReader) next() ([]byte, error) {
	scanned, skipping := 0, false
	for {
		if i := indexNewline(l.buf[l.r+scanned : l.w]); i >= 0 {
			end := l.r + scanned + i
			line := l.buf[l.r:end]
			l.offset += int64(len(line)) + 1
			l.r = end + 1
			if skipping {
				scanned, skipping = 0, false
				continue
			}
			return line, nil
		}
		scanned = l.w - l.r
		if scanned >= longestLine {
			l.offset += int64(scanned)
			l.r, l.w, scanned, skipping = 0, 0, 0, true
		}
		if err := l.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more behind what buf holds.
func (l *lineReader) fill() error {
	if l.r > 0 {
		l.w = copy(l.buf, l.buf[l.r:l.w])
		l.r = 0
	}
	if l.w == len(l.buf) {
		grown := make([]byte, max(readSize, 2*len(l.buf)))
		copy(grown, l.buf[:l.w])
		l.buf = grown
	}
	room := l.buf[l.w:]
	at := l.offset + int64(l.w)
	if l.limit >= 0 {
		room = room[:max(0, min(int64(len(room)), l.limit-at))]
	}
	if len(room) == 0 {
		return io.EOF
	}
	n, err := l.file.ReadAt(room, at)
	l.w += n
	if n > 0 {
		return nil
	}
	return err
}
