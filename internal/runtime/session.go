package runtime

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"

	"berth/internal/fault"
	"berth/internal/runtime/boot"
	"berth/internal/runtime/plan"
	"berth/internal/runtime/seccomp"

	"golang.org/x/sys/unix"
)

// session is the connection to an init from its launch to its execve.
type session struct {
	prog    *plan.Program
	sync    int    // our end of the socket
	goPipe  int    // our end of the pipe that lets the user's program run
	child   [2]int // the init's ends
	pid     int
	mu      sync.Mutex // guards pidfd against kill, which any goroutine may call
	pidfd   *os.File
	console *os.File
	orphan  bool      // the init is a child of our parent
	early   []request // came before their sender was known
}

// request is a packet of the init.
type request struct {
	kind   uint64
	number uint64
	fd     int // -1 without one
}

// stepError is a failed operation of the init.
type stepError struct {
	addr uint64
	step string
	call string // name of the system call, "" if it is not known
	err  unix.Errno
}

func (e *stepError) Error() string {
	if e.call == "" {
		return e.step + ": " + e.err.Error()
	}
	return e.step + ": " + e.call + ": " + e.err.Error()
}

func (e *stepError) Unwrap() error { return e.err }

// newSession makes the channels to an init.
func newSession(r *resources) (*session, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Exhausted, "connect to init", "", "%w", err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		unix.Close(pair[0])
		unix.Close(pair[1])
		return nil, fault.New(fault.Exhausted, "connect to init", "", "%w", err)
	}
	s := &session{sync: pair[0], goPipe: pipe[1], child: [2]int{pair[1], pipe[0]}}
	for i := range s.child {
		if s.child[i], err = r.high(s.child[i]); err != nil {
			s.close()
			return nil, fault.New(fault.Exhausted, "connect to init", "", "%w", err)
		}
	}
	return s, nil
}

// start launches the program.
func (s *session) start(l *boot.Launch, prog *plan.Program, cloneParent bool) error {
	s.prog, s.orphan = prog, cloneParent
	image, err := prog.Image()
	if err != nil {
		return err
	}
	if cloneParent {
		l.Flags |= unix.CLONE_PARENT
	}
	var pidfd *os.File
	s.pid, pidfd, err = l.Start(image)
	s.take(pidfd)
	s.closeChild()
	return err
}

func (s *session) closeChild() {
	for i, fd := range s.child {
		if fd >= 0 {
			unix.Close(fd)
		}
		s.child[i] = -1
	}
}

// close ends the session; an init that still waits for something exits.
func (s *session) close() {
	s.closeChild()
	for _, fd := range []*int{&s.sync, &s.goPipe} {
		if *fd >= 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
	if f := s.take(nil); f != nil {
		f.Close()
	}
	if s.console != nil {
		s.console.Close()
	}
	s.console = nil
}

// take replaces the pidfd and returns the one that was there.
func (s *session) take(next *os.File) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.pidfd
	s.pidfd = next
	return f
}

// kill ends the init. It may be called at any time and from any goroutine.
func (s *session) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.pidfd; f != nil {
		_ = unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0)
	}
}

// reap takes the killed init's exit status, if it is ours to take.
func (s *session) reap() {
	if s.orphan {
		if s.pidfd != nil {
			awaitExit(int(s.pidfd.Fd()), dying)
		}
		return
	}
	waitPid(s.pid)
}

func waitPid(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// release lets the user's program run.
func (s *session) release() { _, _ = unix.Write(s.goPipe, []byte{1}) }

// recv reads one packet. ok is false at the end: the user's program runs, or
// the init is gone.
func (s *session) recv() (req request, ok bool, err error) {
	var b [16]byte
	var oob [64]byte
	req.fd = -1
	var n, oobn int
	for {
		n, oobn, _, _, err = unix.Recvmsg(s.sync, b[:], oob[:], unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err == unix.ECONNRESET {
		return req, false, nil
	}
	if err != nil {
		return req, false, os.NewSyscallError("recvmsg", err)
	}
	if oobn > 0 {
		if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) > 0 {
			if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil && len(fds) > 0 {
				req.fd = fds[0]
			}
		}
	}
	if n == 0 {
		return req, false, nil
	}
	if n != len(b) {
		return req, false, errors.New("malformed packet of the init")
	}
	req.kind = binary.NativeEndian.Uint64(b[:])
	req.number = binary.NativeEndian.Uint64(b[8:])
	if plan.IsRequest(req.kind) {
		return req, true, nil
	}
	step, nr, found := s.prog.StepAt(req.kind)
	if !found {
		return req, false, errors.New("malformed failure of the init")
	}
	e := &stepError{addr: req.kind, step: step, err: unix.Errno(req.number)}
	if nr < 1<<16 {
		e.call = seccomp.Name(nr)
	}
	return req, false, e
}

// follow waits until the launched process has cloned the one that matters.
func (s *session) follow() error {
	var failed error // of the second process, which may be faster than the first
	for {
		req, ok, err := s.recv()
		var step *stepError
		switch {
		case errors.As(err, &step) && s.prog.Second(step.addr):
			failed = err
			continue
		case err != nil:
			return err
		case !ok:
			return errors.New("the init ended before it entered its namespaces")
		case req.kind != plan.ReqForked:
			s.early = append(s.early, req)
			continue
		case req.fd < 0:
			return errors.New("the init sent no pidfd")
		}
		first := s.pid
		s.pid = int(req.number)
		s.take(os.NewFile(uintptr(req.fd), "pidfd")).Close()
		if !s.orphan {
			waitPid(first)
		}
		return failed
	}
}

// next returns the next request.
func (s *session) next() (request, bool, error) {
	if len(s.early) > 0 {
		req := s.early[0]
		s.early = s.early[1:]
		return req, true, nil
	}
	return s.recv()
}

// serve answers the init's requests until its execve, or until it waits at the
// fence.
func (s *session) serve(answer func(request) error) error {
	for {
		req, ok, err := s.next()
		if err != nil {
			return err
		}
		if !ok || req.kind == plan.ReqReady {
			return nil
		}
		err = answer(req)
		if req.fd >= 0 && req.kind != plan.ReqConsole {
			unix.Close(req.fd)
		}
		if err != nil {
			return err
		}
		if req.kind == plan.ReqConsole {
			continue // nobody waits for an answer
		}
		if _, err := unix.Write(s.sync, []byte{1}); err != nil {
			return os.NewSyscallError("answer init", err)
		}
	}
}

// takeConsole keeps the master of the terminal, or passes it to a socket.
func (s *session) takeConsole(fd int, socket string) error {
	if fd < 0 {
		return errors.New("the init sent no terminal")
	}
	if socket == "" {
		s.console = os.NewFile(uintptr(fd), "console")
		return nil
	}
	defer unix.Close(fd)
	return sendFD(socket, []byte("/dev/ptmx"), fd)
}

// sendFD connects to a unix socket and sends a descriptor along with a message.
func sendFD(socket string, message []byte, fd int) error {
	conn, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(conn)
	if err := unix.Connect(conn, &unix.SockaddrUnix{Name: socket}); err != nil {
		return fault.New(fault.Invalid, "connect to", socket, "%w", err)
	}
	if err := unix.Sendmsg(conn, message, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL); err != nil {
		return fault.New(fault.Internal, "send to", socket, "%w", err)
	}
	return nil
}
