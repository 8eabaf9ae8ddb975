package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"berth/internal/fault"
	"berth/internal/monitor/proto"
)

// link is the connection under a Client: it matches answers to requests, hands
// out events, and connects again when the monitor goes away.
type link struct {
	dial func(context.Context) (*proto.Conn, error)
	life context.Context // ends with close
	end  context.CancelFunc

	mu      sync.Mutex // guards the rest
	conn    *proto.Conn
	ready   chan struct{} // closed while conn is usable, else closed when it is again or when failed is set
	failed  error         // why there is no connection and nobody tries to get one
	seq     uint32
	pending map[uint32]chan *proto.Frame // a nil frame says that the connection was lost
	queues  map[*queue]struct{}
}

// errGone marks a request whose connection was lost before its answer came.
var errGone = errors.New("the monitor went away")

func newLink(ctx context.Context, dial func(context.Context) (*proto.Conn, error)) (*link, error) {
	l := &link{
		dial:    dial,
		ready:   make(chan struct{}),
		pending: map[uint32]chan *proto.Frame{},
		queues:  map[*queue]struct{}{},
	}
	l.life, l.end = context.WithCancel(context.Background())
	conn, err := dial(ctx)
	if err != nil {
		l.end()
		return nil, err
	}
	l.conn = conn
	close(l.ready)
	go l.receive(conn)
	return l, nil
}

func (l *link) close() error {
	l.end()
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	if conn != nil {
		return conn.Close()
	}
	return nil
}

// call sends a request and waits for its answer, over a new connection when
// this one is lost meanwhile. It decodes the answer into reply unless nil.
func (l *link) call(ctx context.Context, kind proto.Kind, request any, blob []byte, reply any, files ...*os.File) error {
	head, err := json.Marshal(request)
	if err != nil {
		return fault.New(fault.Invalid, "ask the monitor", "", "%w", err)
	}
	for {
		answer, err := l.ask(ctx, &proto.Frame{Kind: kind, Head: head, Blob: blob, Files: files})
		switch {
		case errors.Is(err, errGone):
			continue
		case err != nil:
			return err
		case answer.Kind == proto.KindError:
			return proto.DecodeError(answer.Head)
		case reply == nil:
			return nil
		}
		return answer.Decode(reply)
	}
}

func (l *link) ask(ctx context.Context, f *proto.Frame) (*proto.Frame, error) {
	conn, err := l.connected(ctx)
	if err != nil {
		return nil, err
	}
	answer := make(chan *proto.Frame, 1)
	l.mu.Lock()
	if l.conn != conn {
		l.mu.Unlock()
		return nil, &fault.Error{Kind: fault.Unavailable, Op: "ask the monitor", Err: errGone}
	}
	l.seq++
	f.Seq = l.seq
	l.pending[f.Seq] = answer
	l.mu.Unlock()

	if err := conn.Send(f); err != nil {
		if fault.Is(err, fault.Invalid) {
			l.forgetAnswer(f.Seq)
			return nil, err
		}
		_ = conn.Close() // its receiver notices and connects again
	}
	select {
	case got := <-answer:
		if got == nil {
			return nil, &fault.Error{Kind: fault.Unavailable, Op: "ask the monitor", Err: errGone}
		}
		return got, nil
	case <-ctx.Done():
		l.forgetAnswer(f.Seq)
		return nil, fault.Wrap("ask the monitor", "", ctx.Err())
	}
}

func (l *link) forgetAnswer(seq uint32) {
	l.mu.Lock()
	delete(l.pending, seq)
	l.mu.Unlock()
}

// connected returns the connection, waiting for one that is being made.
func (l *link) connected(ctx context.Context) (*proto.Conn, error) {
	for {
		l.mu.Lock()
		conn, ready, failed := l.conn, l.ready, l.failed
		l.mu.Unlock()
		switch {
		case failed != nil && l.life.Err() != nil:
			return nil, failed
		case failed != nil:
			l.retry(ready)
		case conn != nil:
			return conn, nil
		}
		select {
		case <-ready:
			l.mu.Lock()
			failed = l.failed
			l.mu.Unlock()
			if failed != nil {
				return nil, failed
			}
		case <-ctx.Done():
			return nil, fault.Wrap("reach the monitor", "", ctx.Err())
		}
	}
}

// retry starts another attempt after one has failed.
func (l *link) retry(failedReady chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil || l.ready != failedReady {
		return
	}
	l.failed = nil
	l.ready = make(chan struct{})
	go l.reconnect()
}

// receive hands out what arrives until the connection is lost.
func (l *link) receive(conn *proto.Conn) {
	for {
		f, err := conn.Receive()
		if err != nil {
			break
		}
		f.CloseFDs() // the monitor never passes any
		if f.Kind == proto.KindEvent {
			var e Event
			if f.Decode(&e) == nil {
				l.publish(e)
			}
			continue
		}
		l.mu.Lock()
		answer := l.pending[f.Seq]
		delete(l.pending, f.Seq)
		l.mu.Unlock()
		if answer != nil {
			answer <- f
		}
	}
	_ = conn.Close()
	conn.Drop()
	l.mu.Lock()
	l.conn = nil
	l.ready = make(chan struct{})
	lost := l.pending
	l.pending = map[uint32]chan *proto.Frame{}
	l.mu.Unlock()
	go l.reconnect()
	for _, answer := range lost {
		answer <- nil
	}
}

const reconnectTimeout = 20 * time.Second

// reconnect gets a new connection. When that fails, waiting calls get the error
// and the next call tries again.
func (l *link) reconnect() {
	ctx, cancel := context.WithTimeout(l.life, reconnectTimeout)
	defer cancel()
	conn, err := l.dial(ctx)
	l.mu.Lock()
	if err == nil && l.life.Err() != nil {
		_ = conn.Close()
		err = l.life.Err()
	}
	if err != nil {
		l.failed = fault.Wrap("reach the monitor", "", err)
	} else {
		l.conn = conn
	}
	close(l.ready)
	l.mu.Unlock()
	if err != nil {
		return
	}
	go l.receive(conn)
	l.publish(Event{Type: EventLost})
}

func (l *link) publish(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for q := range l.queues {
		q.push(e)
	}
}

func (l *link) subscribe(ctx context.Context) <-chan Event {
	q := &queue{wake: make(chan struct{}, 1)}
	out := make(chan Event)
	l.mu.Lock()
	l.queues[q] = struct{}{}
	l.mu.Unlock()
	go func() {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(l.life, cancel)()
		q.run(ctx, out)
		l.mu.Lock()
		delete(l.queues, q)
		l.mu.Unlock()
	}()
	return out
}
