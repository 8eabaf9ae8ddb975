package transfer

import (
	"io"
	"sync/atomic"
	"time"

	"berth/internal/fault"
)

// stallGuard closes a body that delivers nothing for too long, which ends the
// Read that waits for it.
type stallGuard struct {
	body  io.ReadCloser
	after time.Duration
	timer *time.Timer
	fired atomic.Bool
}

func newStallGuard(body io.ReadCloser, after time.Duration) *stallGuard {
	g := &stallGuard{body: body, after: after}
	g.timer = time.AfterFunc(after, func() {
		g.fired.Store(true)
		body.Close()
	})
	return g
}

func (g *stallGuard) Read(p []byte) (int, error) {
	n, err := g.body.Read(p)
	if err != nil && err != io.EOF && g.fired.Load() {
		err = fault.New(fault.Unavailable, "read answer", "", "nothing came for %s", g.after)
	}
	g.timer.Reset(g.after)
	return n, err
}

func (g *stallGuard) stop() { g.timer.Stop() }
