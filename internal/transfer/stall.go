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
