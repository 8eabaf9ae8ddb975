package proto

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	goruntime "runtime"
	"sync"
	"syscall"

	"berth/internal/fault"

	"golang.org/x/sys/unix"
)

// Kind says what a frame is.
type Kind uint16

// The kinds of frames. Requests are answered by KindReply or KindError with the
// request's sequence number; events have none.
const (
	KindHello Kind = iota + 1
	KindStart
	KindExec
	KindAttach
	KindSignal
	KindKillAll
	KindResize
	KindPause
	KindResume
	KindUpdate
	KindPids
	KindStats
	KindList
	KindForget
	KindReply
	KindError
	KindEvent
)

// Frame is one message: a JSON head, a blob that belongs to it (the encoded
// specification of a start, so that it is neither escaped nor scanned twice),
// and descriptors.
type Frame struct {
	Kind  Kind
	Seq   uint32
	Head  []byte
	Blob  []byte
	Files []*os.File // to be sent; they stay the caller's
	FDs   []int      // received, close-on-exec; they are the receiver's
}

// Decode unpacks the head into v.
func (f *Frame) Decode(v any) error {
	if err := json.Unmarshal(f.Head, v); err != nil {
		return fault.New(fault.Invalid, "decode message", "", "%w", err)
	}
	return nil
}

// CloseFDs closes the descriptors that came with the frame.
func (f *Frame) CloseFDs() {
	for _, fd := range f.FDs {
		_ = unix.Close(fd)
	}
	f.FDs = nil
}

const (
	headerSize = 16
	maxBody    = 16 << 20
	maxFiles   = 16
	readAhead  = 4096
)

// Conn carries frames over a unix stream socket. One goroutine may receive
// while any number send.
type Conn struct {
	file *os.File
	raw  syscall.RawConn

	sending sync.Mutex // held for a whole frame

	// Owned by the receiver.
	buf  [readAhead]byte
	r, w int
	fds  []int // arrived, not yet claimed by a frame
}

// NewConn takes over a connected socket. The descriptor is made non-blocking so
// that waiting costs a goroutine and not a thread.
func NewConn(fd int, name string) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fault.New(fault.Internal, "use socket", name, "%w", err)
	}
	file := os.NewFile(uintptr(fd), name)
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, fault.New(fault.Internal, "use socket", name, "%w", err)
	}
	return &Conn{file: file, raw: raw}, nil
}

// Close ends the connection; blocked calls return.
func (c *Conn) Close() error { return c.file.Close() }

// Drop closes descriptors that no frame claimed. It belongs to the receiver,
// once it receives no more.
func (c *Conn) Drop() {
	for _, fd := range c.fds {
		_ = unix.Close(fd)
	}
	c.fds = nil
}

// Send writes one frame. Files stay owned by the caller.
func (c *Conn) Send(f *Frame) error {
	var header [headerSize]byte
	binary.LittleEndian.PutUint32(header[0:], uint32(len(f.Head)))
	binary.LittleEndian.PutUint32(header[4:], uint32(len(f.Blob)))
	binary.LittleEndian.PutUint32(header[8:], f.Seq)
	binary.LittleEndian.PutUint16(header[12:], uint16(f.Kind))
	binary.LittleEndian.PutUint16(header[14:], uint16(len(f.Files)))
	if len(f.Head)+len(f.Blob) > maxBody || len(f.Files) > maxFiles {
		return fault.New(fault.Invalid, "send message", c.file.Name(), "%d bytes with %d files are too much", len(f.Head)+len(f.Blob), len(f.Files))
	}
	var rights []byte
	if len(f.Files) > 0 {
		fds := make([]int, len(f.Files))
		for i, file := range f.Files {
			if fds[i] = FD(file); fds[i] < 0 {
				return fault.New(fault.Invalid, "send message", c.file.Name(), "%s: %w", file.Name(), os.ErrClosed)
			}
		}
		rights = unix.UnixRights(fds...)
		defer goruntime.KeepAlive(f.Files)
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.write([][]byte{header[:], f.Head, f.Blob}, rights)
}

func (c *Conn) write(parts [][]byte, rights []byte) error {
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		for {
			n, err := unix.SendmsgBuffers(int(fd), parts, rights, nil, unix.MSG_NOSIGNAL)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN:
				return false
			case err != nil:
				failed = err
				return true
			}
			rights = nil
			for len(parts) > 0 && n >= len(parts[0]) {
				n -= len(parts[0])
				parts = parts[1:]
			}
			if len(parts) == 0 {
				return true
			}
			parts[0] = parts[0][n:]
		}
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return fault.New(fault.Unavailable, "send message", c.file.Name(), "%w", err)
	}
	return nil
}

// FD returns the descriptor behind a file, or -1 when it is closed. Other than
// File.Fd it leaves the file's mode alone.
func FD(file *os.File) int {
	fd := -1
	if raw, err := file.SyscallConn(); err == nil {
		_ = raw.Control(func(n uintptr) { fd = int(n) })
	}
	return fd
}

// Receive reads one frame; io.EOF says that the other side ended between
// frames. The caller owns the frame's descriptors.
func (c *Conn) Receive() (*Frame, error) {
	var header [headerSize]byte
	if err := c.readFull(header[:], true); err != nil {
		return nil, err
	}
	head := binary.LittleEndian.Uint32(header[0:])
	blob := binary.LittleEndian.Uint32(header[4:])
	files := int(binary.LittleEndian.Uint16(header[14:]))
	if uint64(head)+uint64(blob) > maxBody || files > maxFiles {
		return nil, fault.New(fault.Invalid, "receive message", c.file.Name(), "a frame of %d bytes with %d files", uint64(head)+uint64(blob), files)
	}
	body := make([]byte, head+blob)
	if err := c.readFull(body, false); err != nil {
		return nil, err
	}
	if len(c.fds) < files {
		return nil, fault.New(fault.Invalid, "receive message", c.file.Name(), "%d descriptors arrived, want %d", len(c.fds), files)
	}
	f := &Frame{
		Kind: Kind(binary.LittleEndian.Uint16(header[12:])),
		Seq:  binary.LittleEndian.Uint32(header[8:]),
		Head: body[:head:head],
		Blob: body[head:],
	}
	if files > 0 {
		f.FDs = append(f.FDs, c.fds[:files]...)
		c.fds = append(c.fds[:0], c.fds[files:]...)
	}
	return f, nil
}

// readFull fills p; start says that an end of stream before the first byte is
// a clean end.
func (c *Conn) readFull(p []byte, start bool) error {
	done := copy(p, c.buf[c.r:c.w])
	c.r += done
	for done < len(p) {
		into := p[done:]
		buffered := len(into) < len(c.buf)
		if buffered {
			into = c.buf[:]
		}
		n, err := c.recv(into)
		if err != nil {
			return fault.New(fault.Unavailable, "receive message", c.file.Name(), "%w", err)
		}
		if n == 0 {
			if start && done == 0 {
				return io.EOF
			}
			return fault.New(fault.Unavailable, "receive message", c.file.Name(), "%w", io.ErrUnexpectedEOF)
		}
		if buffered {
			c.w = n
			c.r = copy(p[done:], c.buf[:n])
			done += c.r
		} else {
			done += n
		}
	}
	return nil
}

func (c *Conn) recv(p []byte) (int, error) {
	var rights [64 + 4*maxFiles]byte
	var n, nrights int
	var failed error
	err := c.raw.Read(func(fd uintptr) bool {
		for {
			n, nrights, _, _, failed = unix.Recvmsg(int(fd), p, rights[:], unix.MSG_CMSG_CLOEXEC)
			if failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	if err == nil {
		err = failed
	}
	if err != nil || nrights == 0 {
		return n, err
	}
	fds, err := ParseRights(rights[:nrights])
	c.fds = append(c.fds, fds...)
	if err == nil && len(c.fds) > 4*maxFiles {
		err = unix.EMSGSIZE
	}
	return n, err
}

// ParseRights returns the descriptors of a control message.
func ParseRights(control []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var all []int
	for i := range messages {
		if messages[i].Header.Level != unix.SOL_SOCKET || messages[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return all, err
		}
		all = append(all, fds...)
	}
	return all, nil
}
