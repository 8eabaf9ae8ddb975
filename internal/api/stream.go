package api

import (
	"sync"
	"time"
)

// The sizes of a stream's buffer, in bytes.
const (
	streamFull = 32 << 10 // write out, or make the producer wait
	streamKeep = 4 << 10  // what an idle stream may hold on to
)

// stream is the body of an answer that grows. A live stream hands what was
// written to a goroutine that sends it at once; while that one is busy, further
// writes pile up and leave together. So single lines arrive without delay, and
// floods cost one system call for many lines, with no timer for either. A stream
// which is not live sends when its buffer is full and at the end.
//
// mu guards all fields; the writer goroutine owns the connection, so that a slow
// client never holds mu.
type stream struct {
	x    *exchange
	live bool

	mu      sync.Mutex
	change  sync.Cond // the buffer was taken, filled or the end was reached
	buf     []byte
	spare   []byte
	begin   bool // send the headers even without data
	ended   bool // no more writes
	running bool // the writer goroutine exists
	err     error
	timer   *time.Timer
}

func newStream(x *exchange, live bool) *stream {
	s := &stream{x: x, live: live}
	s.change.L = &s.mu
	return s
}

// Write appends p to the answer. The error is that of an earlier sending.
func (s *stream) Write(p []byte) (int, error) { return s.write(p, nil) }

// write appends head and body and returns the length of the last of the two.
func (s *stream) write(head, body []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.live && len(s.buf) >= streamFull && s.err == nil {
		s.change.Wait()
	}
	if s.err != nil {
		return 0, s.err
	}
	s.buf = append(append(s.buf, head...), body...)
	n := len(body)
	if body == nil {
		n = len(head)
	}
	if s.live {
		s.wake()
		return n, nil
	}
	if len(s.buf) >= streamFull {
		_, s.err = s.x.Write(s.buf)
		s.buf = s.buf[:0]
	}
	return n, s.err
}

// startAfter sends the headers after a while even if there is no data yet.
func (s *stream) startAfter(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.ended {
			s.begin = true
			s.wake()
		}
	})
}

// wake starts the writer goroutine or tells it that there is work. mu is held.
func (s *stream) wake() {
	if !s.running {
		s.running = true
		go s.run()
		return
	}
	s.change.Broadcast()
}

// run sends what is written until finish is called and nothing is left.
func (s *stream) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil {
		if len(s.buf) == 0 && !s.begin {
			if s.ended {
				break
			}
			s.change.Wait()
			continue
		}
		out := s.buf
		s.buf, s.spare, s.begin = s.spare[:0], nil, false
		s.change.Broadcast()
		s.mu.Unlock()
		var err error
		if len(out) > 0 {
			_, err = s.x.Write(out)
		}
		if err == nil {
			s.x.Flush()
		}
		s.mu.Lock()
		if s.err == nil {
			s.err = err
		}
		if cap(out) <= streamKeep || len(s.buf) > 0 {
			s.spare = out[:0]
		}
	}
	s.running = false
	s.change.Broadcast()
}

// finish sends the rest and waits until it is sent. Afterwards the exchange
// belongs to the caller again. It returns the error of sending, if any.
func (s *stream) finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.change.Broadcast()
	for s.running {
		s.change.Wait()
	}
	if len(s.buf) > 0 && s.err == nil {
		_, s.err = s.x.Write(s.buf)
		s.buf = nil
	}
	return s.err
}

// wrote reports whether anything has been written or the headers are out.
func (s *stream) wrote() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.buf) > 0 || s.running || s.x.started
}
