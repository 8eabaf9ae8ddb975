package transfer

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"berth/internal/fault"
)

// stallBody is a response's body that ends with an error when nothing comes
// for too long, however slow the rest may be.
type stallBody struct {
	io.ReadCloser
	after  time.Duration
	cancel context.CancelFunc // ends the request and a Read that waits
	timer  *time.Timer
	fired  atomic.Bool
}

func newStallBody(body io.ReadCloser, after time.Duration, cancel context.CancelFunc) *stallBody {
	b := &stallBody{ReadCloser: body, after: after, cancel: cancel}
	b.timer = time.AfterFunc(after, func() {
		b.fired.Store(true)
		cancel()
	})
	b.timer.Stop() // it runs only while a Read waits
	return b
}

func (b *stallBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.after)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF && b.fired.Load() {
		return n, fault.New(fault.Unavailable, "read answer", "", "nothing came for %s", b.after)
	}
	return n, err
}

func (b *stallBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel()
	return err
}

// stallUpload is a request's body that ends the request when the server takes
// nothing for too long. The time in which there is nothing to take, because it
// is being packed, does not count.
type stallUpload struct {
	r     io.Reader
	after time.Duration
	timer *time.Timer
	fired atomic.Bool
}

func newStallUpload(r io.Reader, after time.Duration, cancel context.CancelFunc) *stallUpload {
	b := &stallUpload{r: r, after: after}
	b.timer = time.AfterFunc(after, func() {
		b.fired.Store(true)
		cancel()
	})
	return b
}

// Read gives the transport more to send: what it got before has gone.
func (b *stallUpload) Read(p []byte) (int, error) {
	b.timer.Stop()
	n, err := b.r.Read(p)
	if err == nil {
		b.timer.Reset(b.after)
	}
	return n, err
}

// Close ends the watch.
func (b *stallUpload) Close() error {
	b.timer.Stop()
	if c, ok := b.r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// explain turns what the cancellation looks like into what it means.
func (b *stallUpload) explain(err error) error {
	if b == nil || err == nil || !b.fired.Load() {
		return err
	}
	return fault.New(fault.Unavailable, "send", "", "the server took nothing for %s", b.after)
}
