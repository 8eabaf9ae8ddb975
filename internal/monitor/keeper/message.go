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
	OpHold    Op = iota + 1 // keep the descriptors that come along, under key and label
	OpDrop                  // close the descriptors of key and labels; no label forgets the key altogether
	OpWatch                 // hold, and report the end of the process whose pidfd comes along, and write it to Path
	OpOrphans               // processes may appear that nobody announces: reap them as they end
	OpQuit                  // the worker ends now and no other is needed
)

// What the keeper tells the worker.
const (
	OpHeld    Op = iota + 65 // descriptors that were to be kept
	OpWatched                // a process that was to be watched, and its end if it has ended
	OpReady                  // everything kept was told
	OpExited                 // a watched process ended
)

// The labels of descriptors.
const (
	LabelPidfd  = 'p' // of the process to be watched
	LabelStdin  = 'i' // writing end of its input
	LabelStdout = 'o' // reading end of its output
	LabelStderr = 'e' // and of its error output
	LabelTTY    = 't' // master of its terminal
	LabelTTYIn  = 'w' // writing end of the pipe behind the terminal
)

// Message is one packet between keeper and worker. Which fields matter depends
// on Op.
type Message struct {
	Op      Op
	Exited  bool
	Unknown bool // it ended, and how is not known
	PID     int
	Status  int   // as wait(2) returns it
	At      int64 // when it ended, Unix nanoseconds
	Key     string
	Path    string
	Labels  string // of the descriptors, one byte each
	FDs     []int  // descriptors that come along
}

// Add adds a descriptor unless it is -1.
func (m *Message) Add(label byte, fd int) {
	if fd >= 0 {
		m.Labels += string(label)
		m.FDs = append(m.FDs, fd)
	}
}

func (m *Message) closeFDs() {
	for _, fd := range m.FDs {
		_ = unix.Close(fd)
	}
	m.FDs = nil
}

const (
	messageHeader = 32
	maxMessage    = 4096
)

var errMessage = errors.New("malformed message between keeper and worker")

func (m *Message) encode() []byte {
	b := make([]byte, messageHeader, messageHeader+len(m.Labels)+len(m.Key)+len(m.Path))
	b[0], b[1] = byte(m.Op), byte(len(m.Labels))
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
	b = append(b, m.Labels...)
	b = append(b, m.Key...)
	return append(b, m.Path...)
}

func decodeMessage(b []byte) (Message, error) {
	if len(b) < messageHeader {
		return Message{}, errMessage
	}
	rest := b[messageHeader:]
	labels := int(b[1])
	key := labels + int(binary.LittleEndian.Uint16(b[24:]))
	if len(rest) < key {
		return Message{}, errMessage
	}
	return Message{
		Op: Op(b[0]), Exited: b[2] != 0, Unknown: b[3] != 0,
		PID:    int(int32(binary.LittleEndian.Uint32(b[4:]))),
		Status: int(int32(binary.LittleEndian.Uint32(b[8:]))),
		At:     int64(binary.LittleEndian.Uint64(b[16:])),
		Labels: string(rest[:labels]),
		Key:    string(rest[labels:key]),
		Path:   string(rest[key:]),
	}, nil
}

// sendMessage sends one packet on a non-blocking socket; EAGAIN says that it
// has to wait.
func sendMessage(fd int, packet []byte, pass []int) error {
	var rights []byte
	if len(pass) > 0 {
		rights = unix.UnixRights(pass...)
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
			return Message{}, unix.EPIPE
		case err != nil:
			return Message{}, err
		}
		m, err := decodeMessage(buf[:n])
		if nrights > 0 {
			m.FDs, _ = proto.ParseRights(rights[:nrights])
		}
		// OpDrop has labels without descriptors.
		if err != nil || len(m.FDs) > 0 && len(m.FDs) != len(m.Labels) {
			m.closeFDs()
			return m, errMessage
		}
		return m, nil
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

// Send sends a message, with copies of its descriptors. It waits if need be and
// may be called by any number of goroutines.
func (c *Conn) Send(m Message) error {
	packet := m.encode()
	if len(packet) > maxMessage {
		return errMessage
	}
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		failed = sendMessage(int(fd), packet, m.FDs)
		return failed != unix.EAGAIN
	})
	if err != nil {
		return err
	}
	return failed
}

// Receive waits for the next message. Its descriptors belong to the caller.
// EPIPE says that the keeper is gone.
func (c *Conn) Receive() (Message, error) {
	var m Message
	var failed error
	err := c.raw.Read(func(fd uintptr) bool {
		m, failed = receiveMessage(int(fd))
		return failed != unix.EAGAIN
	})
	if err != nil {
		return Message{}, err
	}
	return m, failed
}
