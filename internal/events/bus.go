// Package events is the engine's event bus. It exists so that whoever changes
// something can say so without knowing or waiting for whoever listens: the last
// events are kept in a ring, each subscriber reads it at its own pace, and one
// that is too slow misses events instead of holding anybody up.
package events

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
)

// kept is how many events can be replayed, and how far a subscriber may fall
// behind before it misses some.
const kept = 1024

// Bus distributes events. The zero value is ready to use.
type Bus struct {
	mu      sync.Mutex // guards the fields below; no other lock is taken under it
	ring    []events.Message
	next    uint64        // sequence number of the next event
	wake    chan struct{} // closed when an event comes; nil while nobody waits
	readers int

	path  string // of the file that keeps the events; see Keep
	file  *os.File
	lines int // in the file
}

// Publish appends an event and wakes the subscribers. It never blocks on them.
func (b *Bus) Publish(typ events.Type, action events.Action, id string, attributes map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	m := events.Message{
		Type: typ, Action: action, Scope: "local",
		Actor: events.Actor{ID: id, Attributes: attributes},
		Time:  now.Unix(), TimeNano: now.UnixNano(),
	}
	b.append(m)
	b.write(&m)
	if b.wake != nil {
		close(b.wake)
		b.wake = nil
	}
}

// Has tells whether an event of this action and subject was published at a time or
// later, as far back as events are kept.
func (b *Bus) Has(action events.Action, id string, since time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for seq := b.next; seq > b.next-uint64(len(b.ring)); seq-- {
		m := b.at(seq - 1)
		if m.TimeNano < since.UnixNano() {
			return false
		}
		if m.Actor.ID == id && m.Action == action {
			return true
		}
	}
	return false
}

// append puts an event into the ring. The caller holds the lock.
func (b *Bus) append(m events.Message) {
	if len(b.ring) < kept {
		b.ring = append(b.ring, m)
	} else {
		b.ring[b.next%kept] = m
	}
	b.next++
}

// Readers returns the number of subscribers.
func (b *Bus) Readers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.readers
}

// Subscribe returns a channel of the events for which match holds: first those
// kept since the given time (none when it is zero), then new ones as they come.
// It ends, by closing the channel, when ctx does or when until (if not zero) has
// passed. The subscription holds when Subscribe returns. match must not keep or
// change the message.
//
// Events have the time that the clock showed, and keep the order in which they
// happened. When the clock was put back, since is the first time that it showed
// this time or a later one: nothing that happened after it is left out.
func (b *Bus) Subscribe(ctx context.Context, since, until time.Time, match func(*events.Message) bool) <-chan events.Message {
	out := make(chan events.Message)
	b.mu.Lock()
	live := b.next
	from := live
	if !since.IsZero() {
		from = b.firstAt(since.UnixNano())
	}
	b.readers++
	b.mu.Unlock()
	go b.feed(ctx, from, live, until, match, out)
	return out
}

// firstAt returns the sequence number of the first kept event not before t. When
// there is none although t is still to come, whoever asks read it off the clock
// before that was put back: what happened since then is what he has not seen. The
// caller holds the lock.
func (b *Bus) firstAt(t int64) uint64 {
	last, putBack := int64(0), b.next
	for seq := b.next - uint64(len(b.ring)); seq < b.next; seq++ {
		at := b.at(seq).TimeNano
		if at >= t {
			return seq
		}
		if at < last {
			putBack = seq
		}
		last = at
	}
	if t > time.Now().UnixNano() {
		return putBack
	}
	return b.next
}

func (b *Bus) at(seq uint64) *events.Message { return &b.ring[seq%kept] }

// feed copies events to one subscriber; those before live had happened when it
// came.
func (b *Bus) feed(ctx context.Context, from, live uint64, until time.Time, match func(*events.Message) bool, out chan<- events.Message) {
	defer func() {
		b.mu.Lock()
		b.readers--
		b.mu.Unlock()
		close(out)
	}()
	var end <-chan time.Time
	limit := int64(1<<63 - 1)
	if !until.IsZero() {
		limit = until.UnixNano()
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		end = t.C
	}
	for {
		batch, next, wake := b.read(from)
		from = next
		for i := range batch {
			past := batch[i].TimeNano > limit
			if past && next-uint64(len(batch)-i) >= live {
				return
			}
			if past {
				continue // the clock may have been put back since
			}
			if match != nil && !match(&batch[i]) {
				continue
			}
			select {
			case out <- batch[i]:
			case <-ctx.Done():
				return
			}
		}
		if wake == nil {
			continue
		}
		select {
		case <-wake:
		case <-end:
			return
		case <-ctx.Done():
			return
		}
	}
}

// read returns the events from a sequence number on, where to go on, and, when
// there are none, a channel that is closed when one comes.
func (b *Bus) read(from uint64) ([]events.Message, uint64, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if from == b.next {
		if b.wake == nil {
			b.wake = make(chan struct{})
		}
		return nil, from, b.wake
	}
	if oldest := b.next - uint64(len(b.ring)); from < oldest {
		from = oldest // too slow: what lies between is gone
	}
	n := min(b.next-from, 64)
	batch := make([]events.Message, 0, n)
	for seq := from; seq < from+n; seq++ {
		batch = append(batch, *b.at(seq))
	}
	return batch, from + n, nil
}
