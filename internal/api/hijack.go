package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"berth/internal/fault"

	"github.com/moby/moby/api/types"
	"github.com/moby/moby/api/types/common"
	"golang.org/x/sys/unix"
)

// takenConn is a client's connection after HTTP: a descriptor that the monitor
// can go on with, and what was read from it too early.
type takenConn struct {
	file   *os.File
	prefix []byte
}

// Close closes this process's copy of the descriptor.
func (c *takenConn) Close() error { return c.file.Close() }

// takeOver takes the connection of a request away from the HTTP server. A plain
// socket is given away as it is, so that the stream outlives this process; one
// with TLS is carried through a pair of sockets by two goroutines.
func (x *exchange) takeOver() (*takenConn, error) {
	// What follows the body on the connection is input, so the body must end
	// before it: a chunked one has a trailer that no decoder reads.
	if _, err := io.Copy(io.Discard, io.LimitReader(x.r.Body, maxBody)); err != nil {
		return nil, fault.New(fault.Invalid, "read request body", "", "%w", err)
	}
	conn, rw, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err != nil {
		return nil, fault.New(fault.Internal, "take over connection", "", "%w", err)
	}
	x.started = true
	prefix := buffered(rw.Reader)
	var file *os.File
	if c, ok := conn.(interface{ File() (*os.File, error) }); ok {
		file, err = c.File()
		conn.Close()
	} else {
		file, err = carry(conn)
	}
	if err != nil {
		conn.Close()
		x.logFailure(http.StatusInternalServerError, fault.New(fault.Internal, "take over connection", "", "%w", err))
		x.abort()
	}
	return &takenConn{file: file, prefix: prefix}, nil
}

// settleTime bounds how long an exec waits for its client to read the header.
const settleTime = 200 * time.Millisecond

// awaitReader waits until the client has read what was written so far. docker-py
// reads the header through a buffer and the output beside it: of output that
// comes in the same read as the header, as that of a fast exec does, it would
// lose the beginning.
func (c *takenConn) awaitReader() {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	for wait := 20 * time.Microsecond; wait < settleTime/2; wait *= 2 {
		unread := 0
		if raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) != nil || err != nil || unread == 0 {
			return
		}
		time.Sleep(wait)
	}
}

// buffered returns a copy of what a reader holds already.
func buffered(r *bufio.Reader) []byte {
	b, _ := r.Peek(r.Buffered())
	return bytes.Clone(b)
}

// carry connects conn to a fresh socket and returns that one's other end.
func carry(conn net.Conn) (*os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "carried"), os.NewFile(uintptr(fds[1]), "carried")
	near, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, err
	}
	ended := make(chan struct{}, 2)
	go pump(near, conn, ended)
	go pump(conn, near, ended)
	go func() {
		<-ended
		<-ended
		near.Close()
		conn.Close()
	}()
	return theirs, nil
}

// pump copies one direction and passes on its end.
func pump(to, from net.Conn, ended chan<- struct{}) {
	_, _ = io.Copy(to, from)
	if c, ok := to.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	ended <- struct{}{}
}

// upgradeHeader is the answer which precedes a stream: 101 for clients that ask
// for an upgrade, and docker's older 200 for the rest.
func (x *exchange) upgradeHeader(tty bool) []byte {
	if x.r.Header.Get("Upgrade") == "" {
		return []byte("HTTP/1.1 200 OK\r\nContent-Type: " + types.MediaTypeRawStream + "\r\nApi-Version: " + newest.String() + "\r\nOstype: linux\r\n\r\n")
	}
	return []byte("HTTP/1.1 101 UPGRADED\r\nContent-Type: " + x.streamType(tty) +
		"\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: " + newest.String() + "\r\nOstype: linux\r\n\r\n")
}

// fail answers with an error on a connection which the server has given up, and
// on which nothing was written yet.
func (c *takenConn) fail(x *exchange, err error) {
	status := statusOf(fault.KindOf(err))
	x.logFailure(status, err)
	body, jerr := json.Marshal(&common.ErrorResponse{Message: err.Error()})
	if jerr != nil {
		return
	}
	extra := ""
	if code, ok := exitCode(err); ok {
		extra = fmt.Sprintf("%s: %d\r\n", exitCodeHeader, code)
	}
	_, _ = fmt.Fprintf(c.file, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\nApi-Version: %s\r\nOstype: linux\r\n%s\r\n%s",
		status, http.StatusText(status), len(body), newest, extra, body)
}
