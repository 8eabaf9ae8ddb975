package syslog

import (
	"context"
	"errors"
	"sync"
	"time"

	"berth/internal/logs"
	"berth/internal/logs/local"

	"golang.org/x/sys/unix"
)

// Forwarder sends what a log holds, and what is appended to it, to a server. It
// remembers in a file how far it got. A line counts as sent when the server's
// side has taken it: acknowledged by its kernel over TCP, read over a unix
// socket, and as soon as it was handed to our own kernel for datagrams. What had
// not been taken when a connection broke, or when the engine was killed, is sent
// again: each line arrives at least once, but for datagrams that get lost.
type Forwarder struct {
	Options  Options
	Tag      string
	Log      string // path of the log file, in the format of the driver local
	Progress string // path of the file that remembers how far it got
	// Warn tells of outages and of lines that were lost.
	Warn func(text string, args ...any)

	format *formatter
	memory *memory

	mu    sync.Mutex // guards the following
	link  *link
	marks []mark // what was written and has not arrived yet
	last  logs.Position
	saved logs.Position
	timer *time.Timer
	quiet bool // the present outage was told of
	delay time.Duration
}

// mark says that the lines up to a position are in the first bytes written.
type mark struct {
	bytes int64
	at    logs.Position
}

const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 30 * time.Second
	maxMarks   = 1024                  // messages under way
	lookAgain  = 50 * time.Millisecond // whether what is under way has arrived
)

var errBroken = errors.New("the connection broke")

// Run sends until done is closed and everything that was logged has been sent, or
// until ctx ends.
func (f *Forwarder) Run(ctx context.Context, done <-chan struct{}) error {
	var err error
	if f.memory, err = openMemory(f.Progress); err != nil {
		return err
	}
	defer f.memory.close()
	f.last = f.memory.load()
	f.saved = f.last
	f.format = newFormatter(&f.Options, f.Tag)
	f.delay = firstDelay
	for {
		err := f.feed(ctx, done)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, errBroken) { // a server may hang up and be there again
			f.outage(err)
		}
		if !wait(ctx, f.backOff()) {
			return ctx.Err()
		}
	}
}

// feed sends until the connection breaks. It begins behind what has arrived.
func (f *Forwarder) feed(parent context.Context, done <-chan struct{}) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	defer f.hangUp()
	f.mu.Lock()
	from := f.saved
	f.mu.Unlock()
	err := logs.Read(ctx, local.Format{}, f.Log, logs.ReadOptions{
		Tail: -1, From: from, Follow: true, Done: done,
		Missed: func() { f.Warn("log lines were rotated away before they could be sent to syslog") },
	}, func(e logs.Entry) error { return f.send(ctx, cancel, &e) })
	if err == nil {
		err = f.flush(ctx)
	}
	if err != nil && parent.Err() == nil && context.Cause(ctx) != nil {
		return context.Cause(ctx)
	}
	return err
}

// send sends one entry, connecting first if need be.
func (f *Forwarder) send(ctx context.Context, broke context.CancelCauseFunc, e *logs.Entry) error {
	if len(e.Line) == 0 || len(e.Line) == 1 && e.Line[0] == '\n' {
		f.sent(e.Next) // docker sends no empty lines
		return nil
	}
	if f.link == nil {
		l, err := f.Options.dial(ctx)
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.link = l
		f.mu.Unlock()
		l.endWith(ctx)
		l.watch(func() { broke(errBroken) })
	}
	err := f.link.send(ctx, f.format.encode(e))
	if errors.Is(err, unix.EMSGSIZE) {
		f.Warn("a log line is too long for a syslog datagram", "bytes", len(e.Line))
		err = nil
	}
	if err != nil {
		return err
	}
	f.sent(e.Next)
	for f.underWay() >= maxMarks {
		if err := f.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sent notes that everything up to at was written.
func (f *Forwarder) sent(at logs.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := mark{at: at}
	if f.link != nil {
		m.bytes = f.link.written.Load()
	}
	if n := len(f.marks); n > 0 && f.marks[n-1].bytes == m.bytes {
		f.marks[n-1] = m
	} else {
		f.marks = append(f.marks, m)
	}
	if f.timer == nil {
		f.timer = time.AfterFunc(lookAgain, f.look)
	}
}

func (f *Forwarder) underWay() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.marks)
}

// look remembers what has arrived, again and again while something is under way.
func (f *Forwarder) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirm()
	f.timer = nil
	if len(f.marks) > 0 {
		f.timer = time.AfterFunc(lookAgain, f.look)
	}
}

// confirm remembers what has arrived. The caller holds mu.
func (f *Forwarder) confirm() {
	var arrived int64
	if f.link != nil {
		arrived = f.link.arrived()
	}
	n := 0
	for n < len(f.marks) && f.marks[n].bytes <= arrived {
		f.last = f.marks[n].at
		n++
	}
	f.marks = append(f.marks[:0], f.marks[n:]...)
	if f.last == f.saved {
		return
	}
	f.quiet, f.delay = false, firstDelay
	if err := f.memory.save(f.last); err != nil {
		f.Warn("the progress of syslog cannot be remembered", "error", err)
	}
	f.saved = f.last
}

// settle gives what is under way a moment to arrive.
func (f *Forwarder) settle(ctx context.Context) error {
	f.mu.Lock()
	f.confirm()
	f.mu.Unlock()
	if f.underWay() > 0 && !wait(ctx, 5*time.Millisecond) {
		return ctx.Err()
	}
	return nil
}

// flush waits until nothing is under way.
func (f *Forwarder) flush(ctx context.Context) error {
	for {
		if err := f.settle(ctx); err != nil {
			return err
		}
		if f.underWay() == 0 {
			return nil
		}
	}
}

// hangUp ends the connection. What has not arrived will be sent again.
func (f *Forwarder) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirm()
	f.marks = f.marks[:0]
	f.last = f.saved
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if f.link != nil {
		_ = f.link.Close()
		f.link = nil
	}
}

// outage tells of a failure, once until something arrives again.
func (f *Forwarder) outage(err error) {
	f.mu.Lock()
	told := f.quiet
	f.quiet = true
	f.mu.Unlock()
	if !told {
		f.Warn("syslog cannot be reached; lines wait in the container's log", "error", err)
	}
}

// backOff returns how long to wait before the next attempt. It doubles until
// something arrives.
func (f *Forwarder) backOff() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.delay
	f.delay = min(2*d, lastDelay)
	return d
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
