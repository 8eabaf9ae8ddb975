package api

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"os"

	"berth/internal/engine"
	"berth/internal/fault"

	"golang.org/x/net/websocket"
	"golang.org/x/sys/unix"
)

// attachWebsocket attaches over a websocket, which has no frames of docker's: what
// the container writes comes as it is, stdout and stderr in one.
func attachWebsocket(x *exchange) error {
	o := engine.AttachOptions{
		Stream: x.flagOr("stream", true), Stdin: x.flagOr("stdin", true), Stdout: x.flagOr("stdout", true), Stderr: x.flagOr("stderr", true),
		Logs: x.flag("logs"), DetachKeys: x.query("detachKeys"),
	}
	id := x.path("id")
	tty, err := x.api.engine.ContainerTTY(id)
	if err != nil {
		return err
	}
	if x.r.Header.Get("Upgrade") == "" {
		return fault.New(fault.Invalid, "", "", "not a websocket handshake").WithHint("POST /containers/{id}/attach takes plain connections")
	}
	x.started = true
	server := websocket.Server{
		// Any origin may ask, as with docker: the socket decides who may connect.
		Handshake: func(*websocket.Config, *http.Request) error { return nil },
		Handler:   func(ws *websocket.Conn) { x.attachOver(ws, id, o, tty) },
	}
	server.ServeHTTP(x.ResponseWriter, x.r)
	return nil
}

// attachOver carries a websocket's content to and from the monitor, which speaks
// over a socket of its own.
func (x *exchange) attachOver(ws *websocket.Conn, id string, o engine.AttachOptions, tty bool) {
	ws.PayloadType = websocket.BinaryFrame
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return
	}
	near, far := os.NewFile(uintptr(fds[0]), "websocket"), os.NewFile(uintptr(fds[1]), "attach")
	conn, err := net.FileConn(near)
	near.Close()
	if err != nil {
		far.Close()
		return
	}
	defer conn.Close()
	err = x.api.engine.ContainerAttach(x.ctx(), id, o, far)
	far.Close()
	if err != nil {
		_, _ = io.WriteString(ws, "Error attaching: "+err.Error()+"\n")
		return
	}
	go func() {
		// A websocket has no half: when nothing more comes, the client is gone.
		_, _ = io.Copy(conn, ws)
		conn.Close()
	}()
	if tty {
		_, _ = io.Copy(ws, conn)
		return
	}
	_ = unframe(ws, conn)
}

// unframe copies the content of docker's frames: a byte for the stream, three of
// nothing, and the length before each piece.
func unframe(w io.Writer, r io.Reader) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		if _, err := io.CopyN(w, r, int64(binary.BigEndian.Uint32(head[4:]))); err != nil {
			return err
		}
	}
}
