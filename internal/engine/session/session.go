// Package session holds what a client's connection to a program needs of the engine
// that has it: it is handed to the monitor, which from then on moves the bytes, and is
// told the reason when no program comes. It exists so that containers, commands inside
// of them and the steps of builds are attached to in one way.
package session

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"

	"berth/internal/fault"
	"berth/internal/monitor"

	"golang.org/x/sys/unix"
)

// Attacher takes connections over; *monitor.Client is one.
type Attacher interface {
	Attach(ctx context.Context, req monitor.AttachRequest, conn *os.File) error
}

// Pair returns the two ends of a connection, of which one is to be handed over. The
// caller closes both.
func Pair() (near, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fault.New(fault.Internal, "make connection", "", "%w", err)
	}
	return os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far"), nil
}

// HandOver gives a connection to the monitor; the caller closes its own. Input that was
// read from it too early can't be put back, so such a connection is carried by this
// process. A client that goes away meanwhile does not leave half a session.
func HandOver(ctx context.Context, to Attacher, req monitor.AttachRequest, conn *os.File, early []byte) error {
	ctx = context.WithoutCancel(ctx)
	if len(early) == 0 || !req.Stdin {
		return to.Attach(ctx, req, conn)
	}
	const op = "carry connection"
	near, far, err := Pair()
	if err != nil {
		return err
	}
	defer far.Close()
	inner, err := net.FileConn(near)
	near.Close()
	if err != nil {
		return fault.New(fault.Internal, op, "", "%w", err)
	}
	outer, err := net.FileConn(conn)
	if err != nil {
		inner.Close()
		return fault.New(fault.Internal, op, "", "%w", err)
	}
	if err := to.Attach(ctx, req, far); err != nil {
		inner.Close()
		outer.Close()
		return err
	}
	go carry(inner, outer, early)
	return nil
}

// carry copies between two connections until both directions have ended.
func carry(inner, outer net.Conn, early []byte) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(outer, inner)
		endWriting(outer)
	}()
	_, _ = io.Copy(inner, io.MultiReader(bytes.NewReader(early), outer))
	endWriting(inner)
	<-done
	inner.Close()
	outer.Close()
}

// endWriting tells the other end that nothing more comes, where a connection can.
func endWriting(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// Tell writes why there is no program where its output would have gone, and ends the
// connection.
func Tell(conn *os.File, cause error, tty bool) {
	var out io.Writer = conn
	if !tty {
		out = Frames{conn, 2}
	}
	_, _ = out.Write([]byte(cause.Error() + "\r\n"))
	if c, err := net.FileConn(conn); err == nil {
		endWriting(c)
		c.Close()
	}
}

// Frames writes docker's multiplexed frames.
type Frames struct {
	To     io.Writer
	Stream byte // 1 is stdout, 2 is stderr
}

// Write writes one frame, header and all at once.
func (f Frames) Write(p []byte) (int, error) {
	buf := make([]byte, 8, 8+len(p))
	buf[0] = f.Stream
	binary.BigEndian.PutUint32(buf[4:], uint32(len(p)))
	if _, err := f.To.Write(append(buf, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}
