package syslog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout  = 10 * time.Second
	writeTimeout = 30 * time.Second
)

// link is a connection to a server.
type link struct {
	net.Conn              // what messages are written to
	raw      syscall.Conn // below it; nil where nothing is known of what arrived
	stream   bool         // several messages may be under way
	counted  bool         // raw tells how many bytes are
	written  atomic.Int64 // bytes that went into raw
}

// dial connects to the server.
func (o *Options) dial(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	switch o.Network {
	case "":
		return dialLocal(ctx)
	case "tcp+tls":
		return o.dialTLS(ctx)
	}
	return dialPlain(ctx, o.Network, o.Address)
}

// dialLocal looks for the machine's own syslog where it usually is.
func dialLocal(ctx context.Context) (*link, error) {
	for _, network := range []string{"unixgram", "unix"} {
		for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
			if l, err := dialPlain(ctx, network, path); err == nil {
				return l, nil
			}
		}
	}
	return nil, errors.New("this machine has no syslog socket; the option syslog-address names a server")
}

func dialPlain(ctx context.Context, network, address string) (*link, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		if network != "tcp" {
			return nil
		}
		return c.Control(func(fd uintptr) { // a server that went silent must not take lines for ever
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeTimeout.Milliseconds()))
		})
	}}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l := &link{stream: network == "tcp" || network == "unix", counted: network == "tcp"}
	if l.stream {
		l.raw, _ = conn.(syscall.Conn)
	}
	l.Conn = &countingConn{conn, &l.written}
	return l, nil
}

func (o *Options) dialTLS(ctx context.Context) (*link, error) {
	host, _, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{ServerName: host, InsecureSkipVerify: o.SkipVerify, MinVersion: tls.VersionTLS12}
	if o.CA != "" {
		text, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate", o.CA)
		}
	}
	if o.Cert != "" {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	l, err := dialPlain(ctx, "tcp", o.Address)
	if err != nil {
		return nil, err
	}
	secure := tls.Client(l.Conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = l.Close()
		return nil, err
	}
	l.Conn = secure
	return l, nil
}

// send writes one message, unless ctx ended; see endWith.
func (l *link) send(ctx context.Context, message []byte) error {
	_ = l.SetWriteDeadline(time.Now().Add(writeTimeout))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, err := l.Write(message)
	return err
}

// endWith makes a write that waits for the other side fail when ctx ends.
func (l *link) endWith(ctx context.Context) {
	context.AfterFunc(ctx, func() { _ = l.SetWriteDeadline(time.Unix(1, 0)) })
}

// arrived returns how many of the bytes written the other side has taken: its
// kernel over TCP, itself over a unix socket.
func (l *link) arrived() int64 {
	if l.raw == nil {
		return l.written.Load()
	}
	written := l.written.Load()
	raw, err := l.raw.SyscallConn()
	if err != nil {
		return 0
	}
	waiting := -1
	_ = raw.Control(func(fd uintptr) {
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCOUTQ)
		// What waits at a unix socket that was closed is gone, and not read.
		if err == nil && (l.counted || !closed(int(fd))) {
			waiting = n
		}
	})
	switch {
	case waiting == 0:
		return written
	case waiting < 0 || !l.counted:
		return 0
	}
	return written - int64(waiting)
}

// closed reports whether the other side of a socket was closed.
func closed(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	_, err := unix.Poll(fds, 0)
	return err != nil || fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

// watch calls gone when the other side closes a stream.
func (l *link) watch(gone func()) {
	if l.stream {
		go func() {
			_, _ = io.Copy(io.Discard, l.Conn)
			gone()
		}()
	}
}

// countingConn counts what is written.
type countingConn struct {
	net.Conn
	written *atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}
