package cli

import (
	"context"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"berth/internal/client"
)

const (
	// reconnectTries bounds how often one wait survives the death of its engine.
	reconnectTries = 100
	// reconnectPatience is how long an engine may be away before a client that
	// may not start one gives up.
	reconnectPatience = 60 * time.Second
	// startPatience is how long a client goes on that tried to start an engine
	// and failed: another may be coming up that somebody else started.
	startPatience = 10 * time.Second
	// reconnectPoll bounds how long a missed wake-up can delay noticing.
	reconnectPoll = 100 * time.Millisecond
)

// reconnect returns when the engine answers again. A client that may start an
// engine does so at once; others wait for somebody else to.
func (a *app) reconnect(ctx context.Context, c *client.Client) error {
	c.Close()
	patience := startPatience
	if a.noStart || c.Endpoint().Scheme != "unix" {
		patience = reconnectPatience
	}
	deadline := time.Now().Add(patience)
	watch := watchSocket(c.Endpoint())
	defer watch.close()
	for {
		err := c.Ping(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		watch.wait()
	}
}

// socketWatch wakes up when something happens in a socket's directory.
type socketWatch struct{ fd int }

func watchSocket(e client.Endpoint) *socketWatch {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil || e.Scheme != "unix" {
		return &socketWatch{-1}
	}
	_, _ = unix.InotifyAddWatch(fd, filepath.Dir(e.Address), unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ATTRIB)
	return &socketWatch{fd}
}

func (w *socketWatch) wait() {
	if w.fd < 0 {
		time.Sleep(reconnectPoll)
		return
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, int(reconnectPoll.Milliseconds()))
	var buf [4096]byte
	_, _ = unix.Read(w.fd, buf[:])
}

func (w *socketWatch) close() {
	if w.fd >= 0 {
		_ = unix.Close(w.fd)
	}
}
