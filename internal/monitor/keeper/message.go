package keeper

import (
	"encoding/binary"
	"errors"
	"os"
	"syscall"

	"berth/internal/monitor/proto"

	"golang.org/x/sys/unix"
)

// Op says what a message between keeper and worker means.
type Op byte

// What the worker tells the keeper.
const (
	OpHold    Op = iota + 1 // keep the descriptor that comes along, under key and label
	OpDrop                  // close the descriptor of key and label; label 0 forgets the key altogether
	OpWatch                 // report the end of the process whose pidfd comes along, and write it to Path
	OpOrphans               // processes may appear that nobody announces: reap them as they end
	OpQuit                  // the worker ends now and no other is needed
)

// What the keeper tells the worker.
const (
	OpHeld    Op = iota + 65 // a descriptor that was to be kept
	OpWatched                // a process that was to be watched, and its end if it has ended
	OpReady                  // everything kept was told
	OpExited                 // a watched process ended
)

// Message is one packet between keeper and worker. Which fields matter depends
// on Op.
type Message struct {
	Op      Op
	Label   byte
	Exited  bool
	Unknown bool // it ended, and how is not known
	PID     int
	Status  int   // as wait(2) returns it
	At      int64 // when it ended, Unix nanoseconds
	Key     string
	Path    string
	FD      int // a descriptor that comes along, -1 for none
}

const (
	messageHeader = 32
	maxMessage    = 4096
)

var errMessage = errors.New("malformed message between keeper and worker")

func (m *Message) encode() []byte {
	b := make([]byte, messageHeader, messageHeader+len(m.Key)+len(m.Path))
	b[0], b[1] = byte(m.Op), m.Label
	if m.Exited {
		b[2] = 1
	}
	if m.Unknown {
		b[3] = 1
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(m.PID))
	binary.LittleEndian.PutUint32(b[8:], uint32(m.Status))
	binary.LittleEndian.PutUint64(b[16:], uint64(m.At))
	binary.LittleEndian.PutUint16(b[24:], uint16(len(m.Key)))
	b = append(b, m.Key...)
	return append(b, m.Path...)
}

func decodeMessage(b []byte) (Message, error) {
	if len(b) < messageHeader {
		return Message{FD: -1}, errMessage
	}
	key := int(binary.LittleEndian.Uint16(b[24:]))
	if len(b) < messageHeader+key {
		return Message{FD: -1}, errMessage
	}
	return Message{
		Op: Op(b[0]), Label: b[1], Exited: b[2] != 0, Unknown: b[3] != 0,
		PID:    int(int32(binary.LittleEndian.Uint32(b[4:]))),
		Status: int(int32(binary.LittleEndian.Uint32(b[8:]))),
		At:     int64(binary.LittleEndian.Uint64(b[16:])),
		Key:    string(b[messageHeader : messageHeader+key]),
		Path:   string(b[messageHeader+key:]),
		FD:     -1,
	}, nil
}

// sendMessage sends one packet on a non-blocking socket; EAGAIN says that it
// has to wait.
func sendMessage(fd int, packet []byte, pass int) error {
	var rights []byte
	if pass >= 0 {
		rights = unix.UnixRights(pass)
	}
	for {
		err := unix.Sendmsg(fd, packet, rights, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// receiveMessage reads one packet from a non-blocking socket; EAGAIN says that
// there is none, EPIPE that the other side is gone.
func receiveMessage(fd int) (Message, error) {
	var buf [maxMessage]byte
	var rights [64]byte
	for {
		n, nrights, _, _, err := unix.Recvmsg(fd, buf[:], rights[:], unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ECONNRESET || err == nil && n == 0:
			return Message{FD: -1}, unix.EPIPE
		case err != nil:
			return Message{FD: -1}, err
		}
		var fds []int
		if nrights > 0 {
			fds, _ = proto.ParseRights(rights[:nrights])
		}
		m, err := decodeMessage(buf[:n])
		for i, got := range fds {
			if i == 0 && err == nil {
				m.FD = got
			} else {
				_ = unix.Close(got)
			}
		}
		return m, err
	}
}

// Conn is the worker's end.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
}

// NewConn takes over the descriptor that a worker is started with.
func NewConn(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "keeper")
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Conn{file: file, raw: raw}, nil
}

// Send sends a message, with a copy of its descriptor. It waits if need be and
// may be called by any number of goroutines.
func (c *Conn) Send(m Message) error {
	packet := m.encode()
	if len(packet) > maxMessage {
		return errMessage
	}
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		failed = sendMessage(int(fd), packet, m.FD)
		return failed != unix.EAGAIN
	})
	if err != nil {
		return err
	}
	return failed
}

// Receive waits for the next message. Its descriptor belongs to the caller.
// EPIPE says that the keeper is gone.
func (c *Conn) Receive() (Message, error) {
	var m Message
	var failed error
	err := c.raw.Read(func(fd uintptr) bool {
		m, failed = receiveMessage(int(fd))
		return failed != unix.EAGAIN
	})
	if err != nil {
		return Message{FD: -1}, err
	}
	return m, failed
}

// Close closes the worker's end.
func (c *Conn) Close() error { return c.file.Close() }
