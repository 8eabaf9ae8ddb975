package client

import (
	"context"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// reconnectPatience is how long an engine may be away before a client that
	// may not start one gives up.
	reconnectPatience = 60 * time.Second
	// restartPatience is how long a client goes on that tried to start an engine
	// and failed: another may be coming up that somebody else started.
	restartPatience = 10 * time.Second
	// reconnectPoll bounds how long a missed wake-up can delay noticing.
	reconnectPoll = 100 * time.Millisecond
)

// Reconnect returns when an engine that went away answers again. A client that
// may start an engine does so at once; others wait for somebody else to.
func (c *Client) Reconnect(ctx context.Context) error {
	c.Close()
	patience := restartPatience
	if c.starter == nil || c.endpoint.Scheme != "unix" {
		patience = reconnectPatience
	}
	deadline := time.Now().Add(patience)
	watch := watchSocket(c.endpoint)
	defer watch.close()
	for {
		a, err := c.once(ctx, &request{method: "GET", path: "/_ping"})
		if err == nil {
			return a.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		watch.wait()
	}
}

// socketWatch wakes up when something happens in a socket's directory.
type socketWatch struct{ fd int }

func watchSocket(e Endpoint) *socketWatch {
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
